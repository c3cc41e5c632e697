"""p-values for "the mean loss exceeds epsilon", one for each step of a path.

Each is valid for any sample size: under the hypothesis it falls below delta with probability at most delta.
Rows must be independent draws; steps may depend on each other in any way.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, gammaln, xlog1py, xlogy
from scipy.stats import beta, binom

from lessen.guarantee.losses import Losses

Array = NDArray[np.float64]

RATES = 40
"""Values tried for the rate of differing answers: the p-value is smooth in it."""

LARGEST_BET = 0.99
"""Of the bet that could lose everything in one row."""


def binomial(losses: Losses, epsilon: float) -> Array:
    """Exact, for losses of 0 and 1: P[Binomial(n, epsilon) <= number of ones].

    Selective losses are tested among the rows that count, given how many those are.

    Raises:
        ValueError: For other losses.
    """
    if not losses.binary:
        raise ValueError("the binomial test needs losses of 0 and 1")
    if losses.counted is None:
        wrong, trials = losses.values.sum(0), np.full(losses.values.shape[1], len(losses.values))
    else:
        wrong, trials = ((losses.values == 1.0) & losses.counted).sum(0), losses.counted.sum(0)
    return np.asarray(binom.cdf(wrong, trials, min(max(epsilon, 0.0), 1.0)))


def paired(losses: Losses, epsilon: float, *, delta: float = 0.1) -> Array:
    """Exact, for losses of -1, 0 and 1: two answers to the same rows, of which either may be the right one.

    How often the two differ in score is not known. Its p-value is the largest over a confidence interval for
    it of level 1 - delta / 100, plus delta / 100 (Berger and Boos 1994); outcomes are ordered by the
    studentized mean. Uses the variance as `betting` does, and wastes next to nothing.

    Args:
        losses: Signed drops of right and wrong answers.
        epsilon: The bound.
        delta: The level the interval is made for; the p-values are valid at every level.

    Raises:
        ValueError: For other losses.
    """
    if not losses.paired:
        raise ValueError("the paired test needs losses of -1, 0 and 1")
    worse, better = (losses.values > 0).sum(0), (losses.values < 0).sum(0)
    rows, spare = len(losses.values), delta / 100
    if not 0 < epsilon < 1:
        return np.full(len(worse), float(epsilon <= 0))
    outcomes = zip(worse.tolist(), better.tolist(), strict=True)
    return np.array([_paired(rows, a, b, epsilon, spare) for a, b in outcomes])


@lru_cache(maxsize=100_000)
def _paired(rows: int, worse: int, better: int, epsilon: float, spare: float) -> float:
    """P[an outcome at least as good as this one], at the most favourable rate of differing answers."""
    differ = worse + better
    low = float(beta.ppf(spare / 2, differ, rows - differ + 1)) if differ else 0.0
    high = float(beta.ppf(1 - spare / 2, differ + 1, rows - differ)) if differ < rows else 1.0
    rates = np.linspace(max(low, epsilon), max(high, epsilon), RATES)[:, None]
    reach = 9 * np.sqrt(rows * high * (1 - high)) + 40
    counts = np.arange(max(0, int(rows * low - reach)), min(rows, int(rows * high + reach)) + 1)
    most = _most_worse(counts, rows, epsilon, _studentized(worse, differ, rows, epsilon))
    chance = np.exp(
        gammaln(rows + 1) - gammaln(counts + 1) - gammaln(rows - counts + 1)
        + xlogy(counts, rates) + xlog1py(rows - counts, -rates)
    )  # fmt: skip
    against = (rates + epsilon) / (2 * rates)
    below = np.where(most >= 0, bdtr(np.maximum(most, 0).astype(float), counts, against), 0.0)
    return float(min(1.0, (chance * below).sum(1).max() + spare))


def _studentized(worse: ArrayLike, differ: ArrayLike, rows: int, epsilon: float) -> Array:
    mean = (2.0 * np.asarray(worse) - np.asarray(differ)) / rows
    return np.asarray((mean - epsilon) / np.sqrt((np.asarray(differ) + 1.0) / rows - mean**2))


def _most_worse(counts: NDArray[np.int64], rows: int, epsilon: float, value: Array) -> NDArray[np.int64]:
    """For each number of differing rows, the most of them that may be worse up to a studentized mean."""
    low, high = np.full(len(counts), -1), counts.copy()
    while (low < high).any():
        middle = (low + high + 1) // 2
        fits = _studentized(np.maximum(middle, 0), counts, rows, epsilon) <= value + 1e-12
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    return low


def betting(losses: Losses, epsilon: float, *, delta: float = 0.1) -> Array:
    """One over the largest wealth reached by betting against the hypothesis (Waudby-Smith and Ramdas 2024).

    Wealth is prod(1 - bet (x - epsilon)) over rows in the order given, so that order must not depend on the
    losses. A bet is set by the variance of the rows before it, to be strongest at level `delta`.

    Args:
        losses: Bounded.
        epsilon: In the losses' own unit.
        delta: The level the bets are made for; the p-values are valid at every level.
    """
    scaled, bound = _in_unit_interval(losses, epsilon)
    rows, steps = scaled.shape
    if not 0 < bound < 1:
        return np.full(steps, float(bound <= 0))
    seen = np.arange(1, rows + 1)[:, None]
    mean = (0.5 + scaled.cumsum(0)) / (seen + 1)
    variance = (0.25 + ((scaled - mean) ** 2).cumsum(0)) / (seen + 1)
    before = np.vstack([np.full((1, steps), 0.25), variance[:-1]])
    bet = np.minimum(LARGEST_BET / (1 - bound), np.sqrt(2 * np.log(1 / delta) / (rows * before)))
    wealth = np.log1p(-bet * (scaled - bound)).cumsum(0)
    return np.exp(-np.maximum(wealth.max(0), 0.0))


def hoeffding_bentkus(losses: Losses, epsilon: float) -> Array:
    """The smaller of Hoeffding's and Bentkus's bound (Bates et al. 2021); it ignores the variance."""
    scaled, bound = _in_unit_interval(losses, epsilon)
    rows, steps = scaled.shape
    if not 0 < bound < 1:
        return np.full(steps, float(bound <= 0))
    mean = scaled.mean(0)
    below = np.minimum(mean, bound)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.where(below > 0, below * np.log(below / bound), 0.0)
        far = np.where(below < 1, (1 - below) * np.log((1 - below) / (1 - bound)), 0.0)
    hoeffding = np.exp(-rows * (near + far))
    bentkus = np.e * binom.cdf(np.ceil(rows * mean - 1e-9), rows, bound)
    return np.minimum(1.0, np.minimum(hoeffding, bentkus))


def _in_unit_interval(losses: Losses, epsilon: float) -> tuple[Array, float]:
    """Losses `[rows, steps]` and the bound, both as shares of the losses' range."""
    span = losses.high - losses.low
    return (losses.values - losses.low) / span, (epsilon - losses.low) / span
