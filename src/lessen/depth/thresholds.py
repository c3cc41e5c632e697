"""Paths of exit rules made on a tuning split, from the most careful to the boldest.

What holds on the tuning split need not hold on new rows: which step of a path may be taken is decided
elsewhere, on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lessen.depth.criteria import CRITERIA, Criterion, scores_at_every_exit
from lessen.plan import ExitRule

Array = NDArray[np.float64]

AGREEMENT_LEVELS = 60
"""Number of target agreements between all and one half on a path."""

LARGEST_STEP = 0.02
"""Between two targets a path goes in steps of at most this share of the rows at any exit."""


def path(logits: Array, layers: Sequence[int], criterion: str, *, label_range: float = 1.0) -> list[ExitRule]:
    """Rules of one criterion in order of boldness.

    Criteria with a real-valued score get one threshold per exit, matched so that the rows leaving there agree
    with the last exit at a target rate, for targets falling from one to a half, with small steps between,
    never growing more careful along the path (self-supervised exits page, 6.1). Patience gets every count;
    the entropy rules a grid of one global threshold. With one exit there is nowhere to leave early, and no
    rule.
    """
    if len(layers) == 1:
        return []
    kind = CRITERIA[criterion]
    if criterion in ("patience", "label_patience"):
        return [ExitRule(criterion=criterion, threshold=float(p)) for p in range(len(layers) - 1, 0, -1)]
    if criterion == "regression_patience":
        changes = [share * label_range for share in (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)]
        return [
            ExitRule(criterion=criterion, threshold=float(p), change=change)
            for p in range(len(layers) - 1, 0, -1)
            for change in changes
        ]
    probe = ExitRule(criterion=criterion, threshold=0.0)
    answers = [torch.from_numpy(answer).float() for answer in logits]
    scores = scores_at_every_exit(kind, probe, answers).double().numpy()
    if kind.remembers:
        return global_path(kind, scores)
    if kind.task == "multi-label":
        agree = ((logits[:-1] > 0) == (logits[-1] > 0)).all(-1)
    else:
        agree = logits[:-1].argmax(-1) == logits[-1].argmax(-1)
    return matched_path(kind, scores[:-1], agree, layers)


def global_path(kind: Criterion, scores: Array) -> list[ExitRule]:
    """Rules with one threshold for all exits: quantiles of all finite scores, the most careful first."""
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return []
    levels = np.unique(np.quantile(finite, np.linspace(0, 1, AGREEMENT_LEVELS)))
    careful_first = levels if kind.leaves == "below" else levels[::-1]
    return [ExitRule(criterion=kind.name, threshold=float(level)) for level in careful_first]


def matched_path(
    kind: Criterion, scores: Array, agree: NDArray[np.bool_], layers: Sequence[int]
) -> list[ExitRule]:
    """Rules with a threshold for each exit, matched by target agreement, each letting more rows leave.

    Args:
        kind: The criterion.
        scores: Of every exit but the last, `[exits, rows]`; infinite where a row may never leave there.
        agree: Whether the exit says what the last one does, the same shape.
        layers: Depth of each exit (1-based).
    """
    sign = 1.0 if kind.leaves == "below" else -1.0
    surest_first = np.argsort(sign * scores, axis=1, kind="stable")
    ordered = np.take_along_axis(sign * scores, surest_first, 1)
    running = np.take_along_axis(agree, surest_first, 1).cumsum(1) / np.arange(1, agree.shape[1] + 1)
    running[~np.isfinite(ordered)] = -1.0
    rules: list[ExitRule] = []
    for leaving in _coverages(running):
        thresholds = {
            layers[exit]: sign * _just_past(ordered[exit], count - 1)
            for exit, count in enumerate(leaving)
            if count
        }
        rule = ExitRule(criterion=kind.name, thresholds=thresholds)
        if not rules or rule != rules[-1]:
            rules.append(rule)
    return rules


def _coverages(running: Array) -> Iterator[NDArray[np.int64]]:
    """How many of the surest rows each exit lets go, never fewer than before, in small steps.

    Args:
        running: Agreement among the surest rows of each exit, `[exits, rows]`, as more of them are taken.
    """
    rows = running.shape[1]
    now = np.zeros(len(running), dtype=np.int64)
    for target in np.linspace(1.0, 0.5, AGREEMENT_LEVELS):
        enough = [np.flatnonzero(of_exit >= target) for of_exit in running]
        wanted = np.maximum(now, [places[-1] + 1 if len(places) else 0 for places in enough])
        pieces = math.ceil((wanted - now).max() / (LARGEST_STEP * rows))
        yield from (now + (wanted - now) * piece // pieces for piece in range(1, pieces + 1))
        now = wanted


def _just_past(ordered: Array, index: int) -> float:
    """A threshold that lets the rows up to `index` leave and no others: halfway to the next row's score."""
    here = ordered[index]
    beyond = ordered[index + 1 :]
    beyond = beyond[(beyond > here) & np.isfinite(beyond)]
    if len(beyond) == 0:
        return float(here + 1e-6)
    return float((here + beyond[0]) / 2)
