"""Training with elimination in place: what takes tokens away in each pass of a training step.

In the paper's way there is one pass, at one retention, always the same. A model trained so answers well there
and where more tokens stay, and badly where fewer do. `drawn` makes one pass too, at another retention in each
step, and answers well over the whole range for the same price. The sandwich makes four: one in which all
tokens stay and which learns the task, one at the boldest retention and two at random ones between, which
imitate it (as in Length-Adaptive Transformer). Both are extensions (latency-adjustable page, 1.8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lessen.model.architecture import Architecture
from lessen.model.transformer import InLayer
from lessen.plan import Rates, RetentionProfile, Shape
from lessen.tokens.elimination import Elimination, elimination_for
from lessen.tokens.profile import retention_of

Passes = Callable[[], Sequence[InLayer | None]]
"""Called once for each step: the passes to make. The first one learns the task, others imitate it."""

RANDOM_PASSES = 2

SEEDS = 1 << 20


def all_stay() -> list[InLayer | None]:
    """One pass, in which no token leaves."""
    return [None]


def at(
    profile: RetentionProfile, alpha: float, shape: Shape, architecture: Architecture | None = None
) -> Passes:
    """One pass, at a profile's retention.

    Args:
        profile: Family, base and score.
        alpha: Its scalar.
        shape: Of the model.
        architecture: Of the model; None: of a classifier (`tokens.elimination.protected`).
    """
    retention = retention_of(profile, alpha)
    return lambda: [_elimination(retention, profile, shape, architecture)]


def drawn(
    profile: RetentionProfile, alpha: float, shape: Shape, architecture: Architecture | None = None
) -> Passes:
    """One pass, with a scalar drawn between 0 and `alpha` in each step: alpha times the square of a share.

    Evenly drawn scalars hardly ever leave nearly all tokens there, and the whole model suffers from it; with
    squares half of the steps are below a quarter of `alpha`. Draws come from torch's generator, which
    checkpoints restore.
    """

    def passes() -> list[InLayer | None]:
        retention = retention_of(profile, alpha * _shares(1)[0] ** 2)
        return [_elimination(retention, profile, shape, architecture)]

    return passes


def sandwich(
    profile: RetentionProfile, alpha: float, shape: Shape, architecture: Architecture | None = None
) -> Passes:
    """Four passes: all tokens, the boldest retention, and two with a scalar drawn between 0 and `alpha`."""

    def passes() -> list[InLayer | None]:
        bold = [
            retention_of(profile, each)
            for each in (alpha, *(alpha * share for share in _shares(RANDOM_PASSES)))
        ]
        return [None, *(_elimination(each, profile, shape, architecture) for each in bold)]

    return passes


WAYS: dict[Rates, Callable[..., Passes]] = {
    "one": at,
    "drawn": drawn,
    "sandwich": sandwich,
}
"""Of training at rates up to one, by name; arguments as in `at`."""


def _shares(count: int) -> list[float]:
    drawn: list[float] = torch.rand(count).tolist()
    return drawn


def _elimination(
    retention: Sequence[float],
    profile: RetentionProfile,
    shape: Shape,
    architecture: Architecture | None,
) -> Elimination:
    """Of one pass; `random` takes other tokens in each step."""
    seed = int(torch.randint(SEEDS, ())) if profile.score == "random" else 0
    return elimination_for(shape, retention, profile.score, seed=seed, architecture=architecture)
