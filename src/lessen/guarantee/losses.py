"""What a step of a path costs each row: bounded losses, whose mean is the risk that is controlled.

Source: docs/measuring.md, "Certified"; self-supervised exits page, 6.2 (C2: disagreement, C3: selective).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Losses:
    """Losses of every step of a path on the same rows.

    Attributes:
        values: `[rows, steps]`, steps from the most careful to the boldest.
        low: No loss can be smaller.
        high: No loss can be larger.
        kind: `drop`, `disagreement` or `selective`; of texts, which have many tokens each, `tokens` or
            `selective-tokens`.
        counted: Selective losses: which rows count at each step, `[rows, steps]`, bool; None: all.
        paired: Whether losses can only be -1, 0 and 1: answers are right or wrong.
        parts: Selective losses of tokens: wrong early ones and early ones, `[rows, steps, 2]`.
    """

    values: Array
    low: float
    high: float
    kind: str
    counted: NDArray[np.bool_] | None = None
    paired: bool = False
    parts: Array | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not len(self.values):
            raise ValueError(f"losses must be [rows, steps] with at least one row, not {self.values.shape}")
        if not (self.values >= self.low).all() or not (self.values <= self.high).all():
            raise ValueError(f"losses must lie between {self.low:g} and {self.high:g}")
        if self.paired and not np.isin(self.values, (-1.0, 0.0, 1.0)).all():
            raise ValueError("paired losses must be -1, 0 or 1")

    @property
    def binary(self) -> bool:
        """Whether rows that count are right or wrong, so that the exact binomial test applies."""
        return self.kind in ("disagreement", "selective")

    @property
    def risks(self) -> Array:
        """What is bounded, for each step: the mean loss, over rows (or tokens) that count."""
        if self.parts is not None:
            differ, early = self.parts.sum(0).T
            return np.asarray(np.divide(differ, early, out=np.zeros_like(differ), where=early > 0))
        if self.counted is None:
            return np.asarray(self.values.mean(0))
        wrong = (self.values * self.counted).sum(0)
        return np.asarray(wrong / np.maximum(self.counted.sum(0), 1))

    def take(self, rows: ArrayLike) -> Losses:
        """The losses of some rows, in the order given."""
        chosen = np.asarray(rows)
        counted = None if self.counted is None else self.counted[chosen]
        parts = None if self.parts is None else self.parts[chosen]
        return replace(self, values=self.values[chosen], counted=counted, parts=parts)

    def step(self, step: int) -> Losses:
        """Those of one step."""
        counted = None if self.counted is None else self.counted[:, [step]]
        parts = None if self.parts is None else self.parts[:, [step]]
        return replace(self, values=self.values[:, [step]], counted=counted, parts=parts)


def marginal_drop(reference: ArrayLike, scores: ArrayLike, *, right_or_wrong: bool = False) -> Losses:
    """Score lost against the reference, signed: a row that only the step gets right counts -1.

    Args:
        reference: Scores of the reference in [0, 1], `[rows]`; 0 or 1 for right and wrong.
        scores: Of every step, `[rows, steps]`.
        right_or_wrong: Whether scores can only be 0 and 1.
    """
    lost = np.asarray(reference, float)[:, None] - np.asarray(scores, float)
    return Losses(lost, -1.0, 1.0, "drop", paired=right_or_wrong)


def disagreement(agrees: ArrayLike) -> Losses:
    """1 where a step's answer differs from the reference's.

    Args:
        agrees: `[rows, steps]`, bool.
    """
    return Losses(1.0 - np.asarray(agrees, bool), 0.0, 1.0, "disagreement")


def selective_disagreement(agrees: ArrayLike, early: ArrayLike, epsilon: float) -> Losses:
    """Disagreement among the rows that leave early, in the linear form epsilon + early (wrong - epsilon).

    Its mean is at most epsilon exactly when the share of wrong rows among the early ones is.

    Args:
        agrees: `[rows, steps]`, bool.
        early: Whether the row left before the end, `[rows, steps]`, bool.
        epsilon: The bound it will be tested against.
    """
    wrong = 1.0 - np.asarray(agrees, bool)
    leaves = np.asarray(early, bool)
    return Losses(epsilon + leaves * (wrong - epsilon), 0.0, 1.0, "selective", leaves)


def token_disagreement(wrong: ArrayLike) -> Losses:
    """Share of a text's tokens that left early and differ (C2 of the page, 6.2). A text is one draw.

    Args:
        wrong: `[texts, steps]`, shares.
    """
    return Losses(np.asarray(wrong, float), 0.0, 1.0, "tokens")


def selective_token_disagreement(wrong: ArrayLike, early: ArrayLike, epsilon: float) -> Losses:
    """The same among the tokens that left early, in linear form (C3): epsilon + wrong - epsilon early.

    Its mean is at most epsilon exactly when the expected number of wrong early tokens is at most epsilon
    times that of early tokens.

    Args:
        wrong: Early tokens that differ, over the length of the longest text, `[texts, steps]`.
        early: Early tokens over the same length.
        epsilon: The bound it will be tested against.
    """
    parts = np.stack([np.asarray(wrong, float), np.asarray(early, float)], -1)
    lost = epsilon + parts[..., 0] - epsilon * parts[..., 1]
    return Losses(np.clip(lost, 0.0, 1.0), 0.0, 1.0, "selective-tokens", parts=parts)
