"""The boldest step of a path that a bound allows, and what it does on test rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tasks import prepare

from lessen.data.reading import read
from lessen.depth.criteria import CRITERIA
from lessen.loading import load
from lessen.plan import FULL, Point, Precision
from lessen.promise.judging import judge
from lessen.promise.outputs import Outputs, Task, outputs_of, settings_of, task_of
from lessen.promise.paths import freeze_path

BOUNDS = (0.005, 0.01, 0.02)
DELTA = 0.1

Answers = dict[str, Outputs]
"""Of the tune, calibration and test rows."""


def answers(folder: Path, name: str, precision: Precision | None = None) -> tuple[Answers, Task]:
    """Answers of every exit at every setting, on a task's rows."""
    model = load(folder, promises=False, precision=precision)
    settings = settings_of(model.speeds().values())
    tables = {part: read(str(prepare(name)[part])) for part in ("tune", "calibration", "test")}
    found = {
        part: outputs_of(model, table.with_labels_of(model.label_names), settings=settings)
        for part, table in tables.items()
    }
    return found, task_of(model, 1.0)


def certified(
    found: Answers, task: Task, path_for: Any, bounds: Sequence[float] = BOUNDS
) -> list[dict[str, Any]]:
    """The step each bound allows, each bound on its own, and what that step does on the test rows."""
    lines = []
    for bound in bounds:
        path: Sequence[Point] = path_for(found["tune"], task, bound)
        verdict = judge(found["calibration"], path, task, [bound], DELTA)[0]
        step = FULL if verdict.chosen.step is None else path[verdict.chosen.step]
        test = found["test"]
        taken = test.answers_taken([step], task)
        full, scores = test.scores(task)
        reached = np.take_along_axis(scores, taken, 1)[:, 0]
        lines.append(
            {
                "bound": bound,
                "certified": verdict.chosen.step is not None,
                "macs_ratio": 1 / float(test.cost_of(taken, task)[0]),
                "mean_layers": float(task.depths(taken).mean()),
                "test_accuracy": float(reached.mean()),
                "test_drop": float((full - reached).mean()),
                "retention": step.retention,
                "exits": None if step.exits is None else step.exits.model_dump(mode="json"),
            }
        )
    return lines


def by_any(tune: Outputs, task: Task, bound: float) -> tuple[Point, ...]:
    """The path that should save most: tokens up to a setting, then exits."""
    return freeze_path(tune, task, list(CRITERIA), bound)
