"""p-values for "the mean loss exceeds epsilon", one for each step of a path.

Each is valid for any sample size: under the hypothesis it falls below delta with probability at most delta.
Rows must be independent draws; steps may depend on each other in any way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from lessen.guarantee.losses import Losses

Array = NDArray[np.float64]

LARGEST_BET = 0.99
"""Of the bet that could lose everything in one row."""


def binomial(losses: Losses, epsilon: float) -> Array:
    """Exact, for losses of 0 and 1: P[Binomial(n, epsilon) <= number of ones].

    Raises:
        ValueError: For other losses.
    """
    if not losses.binary:
        raise ValueError("the binomial test needs losses of 0 and 1")
    return np.asarray(binom.cdf(losses.values.sum(0), len(losses.values), min(max(epsilon, 0.0), 1.0)))


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
