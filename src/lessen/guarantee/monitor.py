"""Does a bound still hold on rows that keep coming? Statements one may look at any number of times.

Two of them, both true whatever the rows do in between: bounds on the mean loss of the rows so far (empirical
Bernstein confidence sequence; Howard et al. 2021), and an alarm that some stretch of them lost more than was
promised (betting; Waudby-Smith and Ramdas 2024). New gamblers join with a part of the reserve in every block
of rows, so that a change after a long good time is noticed too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]
Verdict = Literal["stands", "broken", "undecided"]

RATES = np.geomspace(1e-3, 0.9, 60)
"""Of the confidence sequence: each is best for some number of rows and spread of losses."""

MEMORIES = (100.0, np.inf)
"""In rows: how far back gamblers look. The fortune is the mean of theirs."""

BLOCK = 250
"""Rows after which a new gambler joins."""

MOST_STAKED = 0.75
"""Of what could be lost in one row."""


@dataclass(frozen=True)
class Bounds:
    """What the rows so far say about their mean expected loss.

    Attributes:
        mean: Measured; None without rows.
        lower: The expected loss is at least this on average; None without rows.
        upper: It is at most this; None without rows.
    """

    mean: float | None
    lower: float | None
    upper: float | None


def bounds(values: ArrayLike, low: float, high: float, alpha: float) -> Bounds:
    """Bounds on the mean expected loss of the rows so far, right at all times with probability 1 - alpha.

    Expected losses may change from row to row and depend on what came before.

    Args:
        values: Losses in the order the rows came.
        low: No loss can be smaller.
        high: No loss can be larger.
        alpha: Probability allowed for being wrong.

    Raises:
        ValueError: When a loss lies outside its range, or alpha is not between 0 and 1.
    """
    losses = _checked(values, low, high, alpha)
    if len(losses) == 0:
        return Bounds(None, None, None)
    scaled = (losses - low) / (high - low)
    rows = len(scaled)
    before = (0.5 + np.concatenate([[0.0], scaled.cumsum()[:-1]])) / np.arange(1, rows + 1)
    spread = ((scaled - before) ** 2).sum()
    penalty = (-np.log1p(-RATES) - RATES) * spread
    width = _largest_sum(penalty, np.log(2 / alpha)) / rows * (high - low)
    mean = float(losses.mean())
    return Bounds(mean, max(low, mean - width), min(high, mean + width))


def _largest_sum(penalty: Array, limit: float) -> float:
    """The sum of deviations at which the mean over rates of exp(rate sum - penalty) reaches its limit."""
    low, high = 0.0, float(((limit + np.log(len(RATES)) + penalty) / RATES).min())
    for _ in range(60):
        middle = (low + high) / 2
        value = logsumexp(RATES * middle - penalty) - np.log(len(RATES))
        low, high = (middle, high) if value < limit else (low, middle)
    return high


def alarm(values: ArrayLike, epsilon: float, low: float, high: float, alpha: float) -> bool:
    """Whether some stretch of the rows surely lost more than `epsilon`.

    As long as no row's expected loss, given those before it, exceeds `epsilon`, it is ever raised with
    probability at most alpha.

    Args:
        values: Losses in the order the rows came.
        epsilon: The bound.
        low: No loss can be smaller.
        high: No loss can be larger.
        alpha: Probability of a false alarm, over all time.

    Raises:
        ValueError: As `bounds`.
    """
    losses = _checked(values, low, high, alpha)
    if not low < epsilon < high:
        return False
    mean = (epsilon - low) / (high - low)
    fortunes = np.mean([_fortune((losses - low) / (high - low), mean, memory) for memory in MEMORIES], 0)
    return bool(len(fortunes) and fortunes.max() >= 1 / alpha)


def _fortune(values: Array, mean: float, memory: float) -> Array:
    """Fortune after each row, from betting that losses exceed `mean`; the reserve not yet staked included."""
    recent, variance = 0.5, 0.25
    reserve, staked = 1.0, 0.0
    found = np.empty(len(values))
    for row, value in enumerate(values):
        if row % BLOCK == 0:
            block = row // BLOCK + 1
            share = 1 / (block * (block + 1))
            reserve, staked = reserve - share, staked + share
        gap = recent - mean
        bet = min(max(gap / (variance + gap**2), 0.0), MOST_STAKED / mean)
        staked *= 1 + bet * (value - mean)
        found[row] = reserve + staked
        weight = max(1 / (row + 2), 1 / memory)
        variance += weight * ((value - recent) ** 2 * (1 - weight) - variance)
        recent += weight * (value - recent)
    return found


def _checked(values: ArrayLike, low: float, high: float, alpha: float) -> Array:
    losses = np.asarray(values, float)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha:g}")
    if not (losses >= low).all() or not (losses <= high).all():
        raise ValueError(f"losses must lie between {low:g} and {high:g}")
    return losses
