"""Calibrate a classifier: with the answers kept in its folder, or on new rows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lessen.certificate import SCORES
from lessen.measure.metrics import METRIC_OF, as_labels, best_single_answer, quality, row_scores
from lessen.plan import Expectation, Point
from lessen.promise.judging import judge, why_not
from lessen.promise.outputs import Kept, Outputs, Task, task_of
from lessen.promise.paths import freeze_path
from lessen.promise.record import Basis, count_attempt
from lessen.promise.settle import Asked, Calibration, check_enough, settle


def calibrate_classifier(
    folder: Path,
    model: Any,
    kept: Kept,
    asked: Asked,
    *,
    reference: str = "full depth",
    reference_weights: str | None = None,
    dropped: int = 0,
) -> Calibration:
    """Choose and record the Points of a model whose weights lie in `folder`; see `settle`.

    Args:
        folder: Holds `model.safetensors` and `config.json`.
        model: Loaded from there, or saved there.
        kept: Answers to calibrate with.
        asked: What is to be promised.
        reference: Name of the model whose answers are the reference.
        reference_weights: Hash of its contents.
        dropped: Calibration rows left out because they had been seen.

    Raises:
        InputError: When too few rows are left.
    """
    check_enough(len(kept.calibration), dropped, "rows")
    task = task_of(model, kept.label_range)
    if kept.calibration.labels is None and asked.loss == "drop" and task.problem_type != "regression":
        asked = asked.model_copy(update={"loss": "disagreement"})
    path = freeze_path(kept.tune, task, kept.criteria, asked.bounds[0], asked.loss)
    verdicts = judge(
        kept.calibration,
        path,
        task,
        asked.bounds,
        asked.delta,
        loss=asked.loss,
        rule=asked.rule,
    )
    reasons = {
        verdict.epsilon: why_not(kept.calibration, path, task, verdict, asked.loss)
        for verdict in verdicts
        if verdict.chosen.step is None
    }
    basis = Basis(
        outputs=kept.calibration,
        dropped=dropped,
        path=path,
        loss=asked.loss,
        rule=asked.rule,
        delta=asked.delta,
        reference=reference,
        reference_weights=reference_weights,
        score=SCORES[task.problem_type] if kept.calibration.labels is not None else "agreement",
        precision=kept.precision,
        label_range=kept.label_range,
        attempt=count_attempt(folder, kept.calibration, asked.model_dump(mode="json")),
    )

    def expected(point: Point, tuning: bool) -> Expectation:
        rows, split = (kept.tune, "tuning") if tuning else (kept.calibration, "calibration")
        return expectation_of(rows, point, task, split)

    settled = settle(folder, model, asked, basis, verdicts, reasons, expected)
    return replace(settled, weak=no_better_than_one_answer(kept.calibration, task))


def no_better_than_one_answer(outputs: Outputs, task: Task) -> str | None:
    """In a line, that the whole model is no better than always the same answer; None if it is.

    A promise is about what is lost against full depth: of a model that learned nothing there is nothing to
    lose. It is better where its mean score is higher by at least a standard error.
    """
    if outputs.labels is None or len(outputs) < 2:
        return None
    asked = (outputs.labels, task.problem_type, task.label_range)
    own = row_scores(outputs.logits[-1], *asked)
    same = row_scores(np.tile(best_single_answer(*asked[:2]), (len(outputs), 1)), *asked)
    gain = own - same
    if gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)):
        return None
    found, plain = 100 * float(own.mean()), 100 * float(same.mean())
    said = {
        "single_label_classification": f"{found:.1f}% of the calibration rows are answered right, and "
        f"{plain:.1f}% have the most frequent label",
        "multi_label_classification": f"{found:.1f}% of the calibration rows' labels are answered right, and "
        f"{plain:.1f}% would be by what is most frequent of each label",
        "regression": f"calibration rows are missed by {100 - found:.1f}% of the labels' range on average, "
        f"and by {100 - plain:.1f}% if their median is always answered",
    }[task.problem_type]
    return f"at full depth {said}: the model has learned little that could be lost"


def expectation_of(outputs: Outputs, point: Point, task: Task, split: str) -> Expectation:
    """What a Point did on some rows; agreement with the reference where they have no labels."""
    taken = outputs.answers_taken([point], task)[:, 0]
    reached = outputs.logits[taken, np.arange(len(outputs))]
    labels = outputs.labels
    if labels is None:
        labels = as_labels(outputs.reference_answers(), task.problem_type)
    return Expectation(
        split=split,
        rows=len(outputs),
        tokens=None if outputs.tokens is None else float(outputs.tokens.mean()),
        metric=METRIC_OF[task.problem_type],
        value=_finite(quality(reached, list(labels), task.problem_type)),
        full_value=_finite(quality(outputs.logits[-1], list(labels), task.problem_type)),
        mean_layers=float(task.depths(taken).mean()),
        macs_ratio=1 / float(outputs.cost_of(taken[:, None], task)[0]),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
