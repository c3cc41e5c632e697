"""How many calibration rows a promise needs."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
from scipy.stats import binom

from lessen.guarantee.choose import certify
from lessen.guarantee.losses import Losses
from lessen.guarantee.pvalues import paired

TRIALS = 200
MOST_ROWS = 1_000_000
MOST_TIMES = 100
DRAWS = 40


def rows_needed(
    epsilon: float, delta: float, *, power: float = 0.9, risk: float | None = None, spread: float = 0.0
) -> int:
    """Rows with which a step of the given true risk is certified with probability `power`.

    Args:
        epsilon: The bound to be certified.
        delta: Probability allowed for missing it.
        power: Probability with which the test shall pass.
        risk: True mean loss of the step; half of `epsilon` if None.
        spread: 0 for losses of 0 and 1 (exact binomial test). For signed drops: the share of rows on which
            the step is better than the reference; worse ones are `risk` more than that.

    Raises:
        ValueError: When no number of rows can do it (`risk` at or above `epsilon`), or an argument makes no
            sense.
    """
    risk = epsilon / 2 if risk is None else risk
    if not 0 < delta < 1 or not 0 < power < 1 or not 0 < epsilon < 1:
        raise ValueError("epsilon, delta and power must be between 0 and 1")
    if risk >= epsilon:
        raise ValueError(f"a step whose risk is {risk:g} cannot be certified to lose at most {epsilon:g}")
    if spread == 0 and risk >= 0:
        return _exact(epsilon, delta, power, risk)
    low, high = 1, 2
    while _paired_power(high, epsilon, delta, risk, spread) < power:
        low, high = high, 2 * high
        if high > MOST_ROWS:
            raise ValueError(f"more than {MOST_ROWS:,} rows would be needed")
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        if _paired_power(middle, epsilon, delta, risk, spread) < power:
            low = middle
        else:
            high = middle
    return high


def rows_like_these(losses: Losses, epsilon: float, delta: float, *, power: float = 0.9) -> int | None:
    """Rows like the given ones with which their first step would be certified, with probability `power`.

    Draws from them with replacement and runs the very test; None if more than `MOST_TIMES` as many are
    needed.
    """
    rows = len(losses.values)
    first = losses.step(0)
    generator = np.random.default_rng(0)
    size = rows
    while size <= MOST_TIMES * rows:
        passed = sum(
            certify(first.take(generator.integers(rows, size=size)), epsilon, delta).step == 0
            for _ in range(DRAWS)
        )
        if passed >= power * DRAWS:
            return size
        size = math.ceil(1.3 * size)
    return None


def _exact(epsilon: float, delta: float, power: float, risk: float) -> int:
    """The smallest number of rows: for each number of errors in turn, the fewest that pass with it."""
    rows = 1
    for errors in range(MOST_ROWS):
        step = 1
        while binom.cdf(errors, rows + step, epsilon) > delta:
            step *= 2
        span = range(rows, rows + step + 1)
        rows = span[bisect_left(span, True, key=lambda n: binom.cdf(errors, n, epsilon) <= delta)]
        if binom.cdf(errors, rows, risk) >= power:
            return rows
    raise ValueError(f"more than {MOST_ROWS:,} rows would be needed")


def _paired_power(rows: int, epsilon: float, delta: float, risk: float, spread: float) -> float:
    """Probability that the paired test passes for signed drops, by simulation with a fixed seed."""
    better = max(spread, -risk)
    worse = better + risk
    draws = np.random.default_rng(0).random((rows, TRIALS))
    values = np.where(draws < better, -1.0, np.where(draws < better + worse, 1.0, 0.0))
    found = paired(Losses(values, -1.0, 1.0, "drop", paired=True), epsilon, delta=delta)
    return float((found <= delta).mean())
