"""Paths of exit rules made on a tuning split, from the most careful to the boldest.

What holds on the tuning split need not hold on new rows: which step of a path may be taken is decided
elsewhere, on other rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lessen.depth.criteria import CRITERIA, Criterion, scores_at_every_exit
from lessen.plan import ExitRule

Array = NDArray[np.float64]

AGREEMENT_LEVELS = 60
"""Number of target agreements between all and one half on a path."""


def path(logits: Array, layers: Sequence[int], criterion: str, *, label_range: float = 1.0) -> list[ExitRule]:
    """Rules of one criterion in order of boldness.

    Criteria with a real-valued score get one threshold per exit, matched so that the rows leaving there agree
    with the last exit at a target rate, for targets falling from one to a half, never growing more careful
    along the path (self-supervised exits page, 6.1). Patience gets every count; the entropy rules a grid of
    one global threshold.
    """
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
    scores = scores_at_every_exit(kind, probe, [torch.from_numpy(answer) for answer in logits]).numpy()
    if kind.remembers:
        return _global_path(kind, scores)
    if kind.task == "multi-label":
        agree = ((logits[:-1] > 0) == (logits[-1] > 0)).all(-1)
    else:
        agree = logits[:-1].argmax(-1) == logits[-1].argmax(-1)
    return _matched_path(kind, scores[:-1], agree, layers)


def _global_path(kind: Criterion, scores: Array) -> list[ExitRule]:
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return []
    levels = np.unique(np.quantile(finite, np.linspace(0, 1, AGREEMENT_LEVELS)))
    careful_first = levels if kind.leaves == "below" else levels[::-1]
    return [ExitRule(criterion=kind.name, threshold=float(level)) for level in careful_first]


def _matched_path(
    kind: Criterion, scores: Array, agree: NDArray[np.bool_], layers: Sequence[int]
) -> list[ExitRule]:
    sign = 1.0 if kind.leaves == "below" else -1.0
    surest_first = np.argsort(sign * scores, axis=1, kind="stable")
    ordered = np.take_along_axis(sign * scores, surest_first, 1)
    running = np.take_along_axis(agree, surest_first, 1).cumsum(1) / np.arange(1, agree.shape[1] + 1)
    boldest: dict[int, float] = {}
    rules: list[ExitRule] = []
    for target in np.linspace(1.0, 0.5, AGREEMENT_LEVELS):
        for exit in range(len(scores)):
            enough = np.flatnonzero(running[exit] >= target)
            if len(enough):
                threshold = _just_past(ordered[exit], int(enough[-1]), kind)
                boldest[exit] = max(threshold, boldest.get(exit, -np.inf))
        if boldest:
            thresholds = {layers[exit]: sign * value for exit, value in sorted(boldest.items())}
            rule = ExitRule(criterion=kind.name, thresholds=thresholds)
            if not rules or rule != rules[-1]:
                rules.append(rule)
    return rules


def _just_past(ordered: Array, index: int, kind: Criterion) -> float:
    """A threshold that lets the rows up to `index` leave and no others: halfway to the next row's score."""
    here = ordered[index]
    beyond = ordered[index + 1 :]
    beyond = beyond[beyond > here]
    if len(beyond) == 0:
        return float(here + 1e-6)
    return float((here + beyond[0]) / 2)
