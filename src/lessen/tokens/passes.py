"""Training with elimination in place: what takes tokens away in each pass of a training step.

In the paper's way there is one pass, at the retention the model is to run at. The wide-range way makes four:
one in which all tokens stay and which learns the task, one at the boldest retention and two at random ones
between, which imitate it (the sandwich rule, as in Length-Adaptive Transformer; latency-adjustable page, 1.8:
an extension, not the paper's method).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lessen.model.transformer import InLayer
from lessen.plan import RetentionProfile, Shape
from lessen.tokens.elimination import Elimination, elimination_for
from lessen.tokens.profile import retention_of

Passes = Callable[[], Sequence[InLayer | None]]
"""Called once for each step: the passes to make. The first one learns the task, others imitate it."""

RANDOM_PASSES = 2

SEEDS = 1 << 20


def all_stay() -> list[InLayer | None]:
    """One pass, in which no token leaves."""
    return [None]


def at(profile: RetentionProfile, alpha: float, shape: Shape) -> Passes:
    """One pass, at a profile's retention.

    Args:
        profile: Family, base and score.
        alpha: Its scalar.
        shape: Of the model.
    """
    retention = retention_of(profile, alpha)
    return lambda: [_elimination(retention, profile, shape)]


def wide(profile: RetentionProfile, alpha: float, shape: Shape) -> Passes:
    """Four passes: all tokens, the boldest retention, and two with a scalar drawn between 0 and `alpha`.

    Draws come from torch's generator, which checkpoints restore.
    """

    def passes() -> list[InLayer | None]:
        drawn = (alpha * torch.rand(RANDOM_PASSES)).tolist()
        bold = [retention_of(profile, each) for each in (alpha, *drawn)]
        return [None, *(_elimination(each, profile, shape) for each in bold)]

    return passes


def _elimination(retention: Sequence[float], profile: RetentionProfile, shape: Shape) -> Elimination:
    """Of one pass; `random` takes other tokens in each step."""
    seed = int(torch.randint(SEEDS, ())) if profile.score == "random" else 0
    return elimination_for(shape, retention, profile.score, seed=seed)
