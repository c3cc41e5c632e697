"""How tokens leave where the user says nothing, by what a model's tokens can see."""

from __future__ import annotations

from typing import Literal, NamedTuple

from lessen.plan import TokenScore


class Usual(NamedTuple):
    """Fields of a `TokenPlan` of these names.

    Attributes:
        score: What the tokens that stay are chosen by.
        family: Whether shares compound over layers (`acc`) or are what each layer needs (`envelope`).
    """

    score: TokenScore
    family: Literal["acc", "envelope"]


def usual_elimination(*, causal: bool) -> Usual:
    """ACC where every token is read by all others; where only by later ones, what the last few read.

    Under plain ACC early tokens of a text that is only read forwards get more for where they stand. What the
    last tokens read (SnapKV) is about what comes next: up to twice as fast it loses least, of the scores from
    attention, of a passage that is asked for again; of running text that follows ACC loses less
    (docs/results.md).

    Over the thirty layers of a language model shares that compound leave the upper ones only what never
    leaves, at a speed-up that classifiers bear easily, and what it writes then is poor (docs/results.md).
    """
    return Usual("window", "envelope") if causal else Usual("mean", "acc")
