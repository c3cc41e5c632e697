"""Which step of a path to take: certified, in expectation, or by the literature's plug-in rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lessen.guarantee.losses import Losses
from lessen.guarantee.pvalues import betting, binomial, hoeffding_bentkus, paired

Test = Literal["best", "binomial", "paired", "betting", "hoeffding-bentkus"]


@dataclass(frozen=True)
class Chosen:
    """A step of a path and why it was taken.

    Attributes:
        step: Index into the path; None: not even the first step can be taken.
        test: The rule or test that took it.
        risks: Of every step on the calibration rows: mean losses; for selective ones, over rows that count.
        pvalues: Of the steps tested, in order; the last one failed unless all passed. Empty without a test.
    """

    step: int | None
    test: str
    risks: NDArray[np.float64]
    pvalues: tuple[float, ...] = ()


def certify(losses: Losses, epsilon: float, delta: float, *, test: Test = "best") -> Chosen:
    """The boldest step that fixed-sequence testing certifies.

    Steps are tested in order, each at level `delta`, up to the first that fails; the one before it is taken.
    With probability at least 1 - delta over the draw of the rows, its true mean loss is at most `epsilon`.
    The path and its order must be fixed before the rows are looked at. (Learn then Test, Angelopoulos et al.
    2021; self-supervised exits page, 6.3.)

    Args:
        losses: On rows that neither training nor the making of the path saw, drawn independently; in an order
            that does not depend on them, which the betting test needs.
        epsilon: The bound.
        delta: Probability allowed for missing it. Divide it by the number of points certified together.
        test: `best`: exact where losses are 0 and 1 (binomial) or -1, 0 and 1 (paired), else betting.

    Raises:
        ValueError: When `delta` is not between 0 and 1, or `epsilon` is negative.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, not {delta:g}")
    if epsilon < 0:
        raise ValueError(f"epsilon must not be negative, not {epsilon:g}")
    name = best_test(losses) if test == "best" else test
    pvalues: list[float] = []
    for step in range(losses.values.shape[1]):
        pvalues.append(_pvalue(name, losses.step(step), epsilon, delta))
        if pvalues[-1] > delta:
            break
    passed = leading(np.array(pvalues) <= delta)
    return Chosen(passed - 1 if passed else None, name, losses.risks, tuple(pvalues))


def best_test(losses: Losses) -> Test:
    """The most powerful valid test for losses of this kind."""
    return "binomial" if losses.binary else "paired" if losses.paired else "betting"


def _pvalue(test: Test, losses: Losses, epsilon: float, delta: float) -> float:
    if test == "binomial":
        return float(binomial(losses, epsilon)[0])
    if test == "hoeffding-bentkus":
        return float(hoeffding_bentkus(losses, epsilon)[0])
    return float((paired if test == "paired" else betting)(losses, epsilon, delta=delta)[0])


def expectation(losses: Losses, epsilon: float) -> Chosen:
    """Conformal risk control (Angelopoulos et al. 2022): the mean loss of a new row is at most `epsilon`.

    A statement about the average over calibration draws, weaker than `certify`'s. It needs losses that do not
    fall along the path, so the running maximum over steps is used.
    """
    rows = len(losses.values)
    highest = np.maximum.accumulate(losses.values, 1)
    bound = (highest.sum(0) + losses.high) / (rows + 1)
    passed = leading(bound <= epsilon)
    return Chosen(passed - 1 if passed else None, "expectation", losses.risks)


def plug_in(losses: Losses, epsilon: float) -> Chosen:
    """The boldest step whose measured mean loss is at most `epsilon`: no guarantee."""
    risks = losses.risks
    small = np.flatnonzero(risks <= epsilon)
    return Chosen(int(small[-1]) if len(small) else None, "plug-in", risks)


def leading(flags: NDArray[np.bool_]) -> int:
    """How many flags are true before the first that is not."""
    return int(np.logical_and.accumulate(flags).sum())
