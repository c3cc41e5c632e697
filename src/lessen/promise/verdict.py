"""What is asked of a path whoever's answers are judged, classifier's or generator's, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lessen.guarantee import Chosen, Losses, certify, expectation, plug_in

Loss = Literal["drop", "disagreement", "selective", "block"]
"""`block` is of generators only; see `language.py`."""

Rule = Literal["certified", "expectation", "plug-in"]

LOSSES: tuple[Loss, ...] = ("drop", "disagreement", "selective")
RULES: tuple[Rule, ...] = get_args(Rule)

EVIDENT = 0.01
"""A p-value on tuning rows from which on a step should pass on as many new ones."""


@dataclass(frozen=True)
class Verdict:
    """What one bound allows.

    Attributes:
        epsilon: The bound.
        delta: Probability allowed for missing it.
        chosen: The step taken and the tests behind it.
        mean_layers: At that step, on the calibration rows; full depth without a step.
        early: Share of the rows that leave before the end there.
        saving: Work of the whole model over that of this step, on the calibration rows.
    """

    epsilon: float
    delta: float
    chosen: Chosen
    mean_layers: float
    early: float
    saving: float


def choose(losses: Losses, keys: Sequence[str], bound: float, delta: float, rule: Rule) -> Chosen:
    """The step a rule takes; tests meet rows in the order of their hashes, which nobody could choose."""
    if rule == "certified":
        return certify(losses.take(np.argsort(keys)), bound, delta)
    return expectation(losses, bound) if rule == "expectation" else plug_in(losses, bound)


def first_evident(pvalues: NDArray[np.float64]) -> int:
    """The first step that tuning rows speak for clearly: where the path of a selective loss starts.

    Not the one with the smallest p-value, unless none is evident: rules were made on these rows, so bold ones
    look better there than they are.
    """
    evident = np.flatnonzero(pvalues <= EVIDENT)
    return int(evident[0]) if len(evident) else int(pvalues.argmin())
