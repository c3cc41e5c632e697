"""Does a bound still hold on rows that keep coming? Confidence bounds one may look at any number of times.

Betting confidence sequences (Waudby-Smith and Ramdas 2024): a gambler bets against every possible mean, and
those against which a fortune was made are excluded. Bets follow the recent mean at several memories at once,
so that a change that comes late is noticed too; money is only risked in the direction the data point to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Verdict = Literal["stands", "broken", "undecided"]

MEMORIES = (50.0, 400.0, np.inf)
"""In rows: how far back a gambler looks. The fortune is the mean of theirs."""

MOST_STAKED = 0.75
"""Of what could be lost in one row."""

GRID = 1001
"""Means tested, over the range of the losses."""


@dataclass(frozen=True)
class Bounds:
    """What the rows so far say about the mean loss.

    Attributes:
        mean: Of the rows; None without rows.
        lower: The mean is at least this; None without rows.
        upper: The mean is at most this; None without rows.
    """

    mean: float | None
    lower: float | None
    upper: float | None


def verdict(epsilon: float, lower: float | None, upper: float | None) -> Verdict:
    """Whether a bound was kept: `broken` if the mean is surely above, `stands` if surely not."""
    if lower is not None and lower >= epsilon:
        return "broken"
    return "stands" if upper is not None and upper <= epsilon else "undecided"


def bounds(values: ArrayLike, low: float, high: float, alpha: float, *, at: float | None = None) -> Bounds:
    """Bounds on the mean of a stream, valid together and at any time with probability 1 - alpha.

    The lower one keeps the strongest evidence there ever was: as long as no row's expected loss exceeds a
    bound, it passes that bound with probability at most alpha / 2, however often one looks. The upper one is
    today's.

    Args:
        values: Losses in the order the rows came.
        low: No loss can be smaller.
        high: No loss can be larger.
        alpha: Probability allowed for being wrong.
        at: A mean to be tested exactly; others lie on a grid.

    Raises:
        ValueError: When a loss lies outside its range, or alpha is not between 0 and 1.
    """
    losses = np.asarray(values, float)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha:g}")
    if len(losses) == 0:
        return Bounds(None, None, None)
    if not (losses >= low).all() or not (losses <= high).all():
        raise ValueError(f"losses must lie between {low:g} and {high:g}")
    tested = np.linspace(low, high, GRID)[1:-1]
    if at is not None and low < at < high:
        tested = np.sort(np.append(tested[np.abs(tested - at) > 1e-9], at))
    above, below = _fortunes((losses - low) / (high - low), (tested - low) / (high - low))
    excluded_low, excluded_high = above >= np.log(2 / alpha), below >= np.log(2 / alpha)
    lower = float(tested[excluded_low].max()) if excluded_low.any() else low
    upper = float(tested[excluded_high].min()) if excluded_high.any() else high
    return Bounds(float(losses.mean()), lower, upper)


def _fortunes(values: Array, means: Array) -> tuple[Array, Array]:
    """Logarithms of the largest fortune ever made on "the mean is above", and of today's on "it is below".

    Args:
        values: In [0, 1].
        means: Strictly between 0 and 1.

    Returns:
        Both for each mean.
    """
    memory = np.array(MEMORIES)[:, None]
    recent, variance = np.full_like(memory, 0.5), np.full_like(memory, 0.25)
    up, down = np.zeros((len(memory), len(means))), np.zeros((len(memory), len(means)))
    best = np.zeros(len(means))
    most_up, most_down = MOST_STAKED / means, MOST_STAKED / (1 - means)
    for seen, value in enumerate(values, start=1):
        gap = recent - means
        bet = gap / (variance + gap**2)
        up += np.log1p(np.clip(bet, 0, most_up) * (value - means))
        down += np.log1p(np.clip(-bet, 0, most_down) * (means - value))
        np.maximum(best, _log_mean(up), out=best)
        weight = np.maximum(1 / (seen + 1), 1 / memory)
        variance += weight * ((value - recent) ** 2 * (1 - weight) - variance)
        recent += weight * (value - recent)
    return best, _log_mean(down)


def _log_mean(logs: Array) -> Array:
    highest = logs.max(0)
    return np.asarray(highest + np.log(np.exp(logs - highest).mean(0)))
