"""Retention profiles: how many tokens each layer passes on, moved by one scalar, and solved for a speed-up.

A family turns alpha into the share of each row's tokens that leaves each layer. At alpha 0 all stay; shares
fall with alpha and with depth. Offline tuning is choosing alpha after training: no weight changes. The
families are our reconstruction (latency-adjustable page, 1.5 and 1.6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lessen.errors import PlanError
from lessen.plan import RetentionProfile
from lessen.tokens.elimination import left_after_layers

Array = NDArray[np.float64]

Cost = Callable[[int, Sequence[int] | None], float]
"""`cost(tokens, left)` of one row, in MACs or ms; `left` are the tokens that leave each layer, None: all."""

STEPS = 60
FIRST = 1e-3
LARGEST = 1e4
"""Solving tries `FIRST`, doubles it up to this, then halves the last step so often."""

SMALLEST_SHARE = 1e-6


def retention_of(profile: RetentionProfile, alpha: float) -> tuple[float, ...]:
    """The share of a row's tokens that leaves each layer.

    Args:
        profile: Family and base.
        alpha: At least 0.
    """
    layers = np.arange(1, len(profile.base) + 1)
    if profile.family == "geometric":
        shares = math.exp(-alpha) ** layers
    elif profile.family == "tilt":
        shares = 1 - alpha * layers
    else:
        shares = np.asarray(profile.base) ** alpha
    return tuple(float(share) for share in np.clip(shares, SMALLEST_SHARE, 1.0))


def speedup_of(
    profile: RetentionProfile, alpha: float, lengths: Sequence[int], cost: Cost, fewest: int = 1
) -> float:
    """Cost of whole rows over cost with elimination, on rows of these lengths."""
    return _whole(lengths, cost) / _spent(profile, alpha, lengths, cost, fewest)


def _in_words(lengths: Sequence[int]) -> str:
    least, most = min(lengths), max(lengths)
    return f"{most}" if least == most else f"{least} to {most}"


def _whole(lengths: Sequence[int], cost: Cost) -> float:
    return sum(cost(tokens, None) for tokens in lengths)


def _spent(profile: RetentionProfile, alpha: float, lengths: Sequence[int], cost: Cost, fewest: int) -> float:
    retention = retention_of(profile, alpha)
    return sum(cost(tokens, left_after_layers(retention, tokens, fewest)) for tokens in lengths)


def solve(
    profile: RetentionProfile, speedup: float, lengths: Sequence[int], cost: Cost, fewest: int = 1
) -> float:
    """An alpha that reaches a speed-up, while one a hair smaller does not; 0 for a speed-up of 1 or less.

    It is the smallest of all where cost falls as alpha grows, as MACs do. In ms it need not be: taking tokens
    away costs time as well, so a cost may rise before it falls.

    Args:
        profile: Family and base.
        speedup: Wanted.
        lengths: Tokens of typical rows.
        cost: Of one row.
        fewest: Tokens of a row that never leave.

    Raises:
        PlanError: When it cannot be reached; the message names what can.
    """
    if speedup <= 1:
        return 0.0
    whole = _whole(lengths, cost)
    low, high = 0.0, FIRST
    while (reached := whole / _spent(profile, high, lengths, cost, fewest)) < speedup:
        if high == LARGEST:
            raise PlanError(
                f"taking tokens away reaches a speed-up of {in_reach(reached):.2f} at most on rows of "
                f"{_in_words(lengths)} tokens, not {speedup:g}; ask for no more, or for longer rows"
            )
        low, high = high, min(2 * high, LARGEST)
    for _ in range(STEPS):
        middle = (low + high) / 2
        if whole / _spent(profile, middle, lengths, cost, fewest) < speedup:
            low = middle
        else:
            high = middle
    return high


def most(profile: RetentionProfile, lengths: Sequence[int], cost: Cost, fewest: int = 1) -> float:
    """The speed-up at `LARGEST`, beyond which `solve` does not look; arguments as there.

    Every token has left that may, but for shares of a base that are nearly 1.
    """
    return speedup_of(profile, LARGEST, lengths, cost, fewest)


def in_reach(speedup: float) -> float:
    """The largest speed-up as people are told it: rounded down to two decimals, so that it is reached."""
    return math.floor(100 * speedup) / 100


def shares_of_scores(
    scores: Sequence[ArrayLike],
    mass: float,
    *,
    envelope: bool = False,
    protected: tuple[int, int] = (1, 0),
) -> Array:
    """For each layer, the share of the median row's tokens that together get a share of the attention.

    [CLS], which always stays, is left out and the rest counted as the whole: it draws a third of all
    attention in middle layers and would hide the others; so do others that never leave. Scores are taken
    while all tokens are there. What layers need of them compounds twice: a layer can do with the product of
    what it and those before it need, and keeps so much of what the one before left. So few leave early, where
    scores know least.

    Args:
        scores: Of each layer of each row: `[layers, tokens]` for every row.
        mass: Share of the attention, between 0 and 1.
        envelope: Take what a layer needs as it is, where that is less than before (page, 1.5).
        protected: How many of a row's first and last tokens never leave.

    Returns:
        `[layers]`, not increasing.

    Raises:
        PlanError: When no row has a token that may leave.
    """
    shares, (first, last) = [], protected
    for row in scores:
        table = np.asarray(row, float)
        rest = np.sort(table[:, first : table.shape[1] - last], axis=1)[:, ::-1]
        if rest.shape[1] == 0:
            continue
        running = rest.cumsum(1) / np.maximum(rest.sum(1, keepdims=True), 1e-12)
        counts = (running < mass - 1e-9).sum(1) + 1
        shares.append((first + last + counts) / table.shape[1])
    if not shares:
        more = "one token" if first + last == 1 else f"{first + last} tokens"
        raise PlanError(f"a profile needs rows of more than {more}")
    needed = np.median(shares, 0)
    if envelope:
        return np.minimum.accumulate(needed)
    # Of many layers that each need little, more is multiplied than a number holds; a share is never 0.
    return np.maximum(np.cumprod(np.cumprod(needed)), np.finfo(float).tiny)
