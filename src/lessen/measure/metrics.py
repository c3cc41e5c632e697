"""Quality of answers: one main metric per task, and a bounded score per row for thresholds and promises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

METRIC_OF = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "micro_f1",
    "regression": "pearson",
}
"""The main metric of each task."""


def quality(logits: Array, labels: Sequence[object], problem_type: str) -> float:
    """The main metric of `logits [rows, outputs]` against the labels; nan where it is undefined."""
    truth = np.asarray(labels)
    if problem_type == "single_label_classification":
        return float((logits.argmax(-1) == truth).mean())
    if problem_type == "multi_label_classification":
        said = logits > 0
        hits = float((said & (truth > 0)).sum())
        total = float(said.sum() + (truth > 0).sum())
        return 2 * hits / total if total else 1.0
    values = logits[:, 0]
    if len(values) < 2 or np.ptp(values) == 0 or np.ptp(truth.astype(float)) == 0:
        return float("nan")
    return float(stats.pearsonr(values, truth.astype(float)).statistic)


def row_scores(
    logits: Array, truth: Sequence[object] | Array, problem_type: str, label_range: float = 1.0
) -> Array:
    """A score in [0, 1] for every row, `[rows]`: 1 for right, 0 for wrong.

    Args:
        logits: `[rows, outputs]`.
        truth: Labels; or, to measure agreement, another model's answers in the form of labels.
        problem_type: As in transformers.
        label_range: Regression: the spread of the labels; the score is 1 minus the error as a share of it, at
            least 0.
    """
    target = np.asarray(truth)
    if problem_type == "single_label_classification":
        return (logits.argmax(-1) == target).astype(float)
    if problem_type == "multi_label_classification":
        return ((logits > 0) == (target > 0)).mean(-1)
    error = np.abs(logits[:, 0] - target.astype(float)) / max(label_range, 1e-12)
    return 1.0 - np.minimum(error, 1.0)


def best_single_answer(labels: Array, problem_type: str) -> Array:
    """The answer, `[outputs]` in the form of logits, that is right the most often if given to every row."""
    if problem_type == "regression":
        return np.array([np.median(labels)])
    if problem_type == "multi_label_classification":
        return np.where(labels.mean(0) > 0.5, 1.0, -1.0)
    values, counts = np.unique(labels.astype(int), return_counts=True)
    return np.eye(int(values[-1]) + 1)[values[counts.argmax()]]


def as_labels(logits: Array, problem_type: str) -> Array:
    """A model's answers in the form labels have, so that agreement can be scored."""
    if problem_type == "single_label_classification":
        return logits.argmax(-1).astype(float)
    if problem_type == "multi_label_classification":
        return (logits > 0).astype(float)
    return logits[:, 0]
