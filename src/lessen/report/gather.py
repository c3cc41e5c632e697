"""Measure what a report shows: answers of every exit on one set of rows, and times beside dense rivals."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessen.data.table import Table
from lessen.errors import InputError
from lessen.machine import machine
from lessen.measure.side_by_side import Contestant, build_rivals, compare
from lessen.plan import Point
from lessen.promise.outputs import Outputs
from lessen.report.facts import describe, rows_of, spot_of, spread, task_in, value_of
from lessen.runtime.text import Encoded, encode

STEPS_TIMED = 4
"""Of the path, beside full depth and the Points: enough to draw a curve."""

CALIBRATION_ROWS = 300
"""For rivals that quantize activations."""


@dataclass(frozen=True)
class Subject:
    """A model to report on.

    Attributes:
        name: In the report.
        folder: Where it lies.
        models: By kind, such as `lessen` in float32 and `lessen-bf16`; the first is the one reported on.
        stored: As it lies in the folder; what rivals are made of.
    """

    name: str
    folder: Path
    models: Mapping[str, Any]
    stored: Any

    @property
    def model(self) -> Any:
        """The one reported on."""
        return next(iter(self.models.values()))


@dataclass(frozen=True)
class Timing:
    """How to measure times.

    Attributes:
        against: Kinds of rivals.
        batch_sizes: Rows given at once.
        rows: How many rows to time on.
        seconds: For each batch size.
        threads: For everyone.
        seed: Of the choice of rows.
    """

    against: Sequence[str]
    batch_sizes: Sequence[int]
    rows: int
    seconds: float
    threads: int
    seed: int = 0


def gather(
    subjects: Sequence[Subject],
    table: Table,
    about_rows: str,
    timing: Timing,
    *,
    with_examples: bool = False,
) -> dict[str, Any]:
    """All facts of a report.

    Args:
        subjects: Models of one task.
        table: Rows none of them has seen.
        about_rows: What rows these are, for people.
        timing: How to measure times.
        with_examples: Whether rows of `table` may be shown.

    Raises:
        InputError: When the models' tasks differ, or a row's label is unknown to one.
    """
    check_one_task(subjects)
    answers = {subject.name: rows_of(subject.model, table) for subject in subjects}
    models = [
        {"kind": next(iter(subject.models))}
        | describe(
            subject.name,
            subject.folder,
            subject.model,
            answers[subject.name],
            table,
            with_examples=with_examples,
        )
        for subject in subjects
    ]
    return {
        "version": 1,
        "kind": "classifier",
        "rows": {"about": about_rows, "count": len(table), "labelled": table.labels is not None},
        "models": models,
        "times": times(subjects, answers, table, timing),
        "timing": {"rows": min(timing.rows, len(table)), "threads": timing.threads},
        "machine": machine(),
    }


def check_one_task(subjects: Sequence[Subject]) -> None:
    """Refuse to draw models of different tasks into one chart.

    Raises:
        InputError: Naming the two.
    """
    first = subjects[0]
    for other in subjects[1:]:
        kinds = [one.model.problem_type for one in (first, other)]
        labels = [set(one.model.config.id2label.values()) for one in (first, other)]
        if kinds[0] != kinds[1] or (kinds[0] != "regression" and labels[0] != labels[1]):
            raise InputError(f"{first.name} and {other.name} answer different tasks; report on each alone")


def times(
    subjects: Sequence[Subject], answers: Mapping[str, Outputs], table: Table, timing: Timing
) -> list[dict[str, Any]]:
    """Milliseconds of every model's Points and rivals, each with its quality on all rows.

    Times are of a random sample of the rows, and all in one interleaved run.
    """
    order = random.Random(timing.seed).sample(range(len(table)), len(table))
    chosen, others = order[: timing.rows], order[timing.rows :][:CALIBRATION_ROWS] or order
    contestants, whole = {}, {}
    for subject in subjects:
        model = subject.model
        encoded = encode(model.tokenizer, table.texts, model.config.facts().max_tokens)
        contestants[subject.name] = Contestant(
            models=subject.models,
            reference=subject.stored,
            encoded=[encoded[i] for i in chosen],
            labels=None,
            points=points_timed(model),
            rivals=build_rivals(timing.against, subject.stored, timing.threads, [encoded[i] for i in others]),
        )
        whole[subject.name] = encoded
    measured = compare(
        contestants, batch_sizes=timing.batch_sizes, thread_count=timing.threads, seconds=timing.seconds
    )
    lines = []
    for subject in subjects:
        one = contestants[subject.name]
        qualities = _qualities(subject, one, answers[subject.name], table, whole[subject.name])
        for row in measured[subject.name]:
            value, depth = qualities[row.kind, row.name]
            lines.append(row.as_dict() | {"model": subject.name, "value": value, "mean_layers": depth})
    return lines


def points_timed(model: Any) -> list[Point]:
    """Full depth, the saved Points, and a few steps of the path."""
    return [*model.points.values(), *spread(model.config.steps(), STEPS_TIMED)]


def _qualities(
    subject: Subject, one: Contestant, answers: Outputs, table: Table, encoded: Sequence[Encoded]
) -> dict[tuple[str, str], tuple[float, float]]:
    """The main metric and mean layers of everything timed, on all rows, by kind and Point."""
    task = task_in(subject.folder, subject.model, table)
    found = {}
    for kind, model in subject.models.items():
        rows = answers if model is subject.model else rows_of(model, table)
        for point in one.points:
            spot = spot_of(point, rows, task)
            found[kind, point.name] = (spot.value, spot.mean_layers)
    for kind, rival in one.rivals.items():
        logits = rival(encoded).double().numpy()
        found[kind, "dense"] = (value_of(logits, answers, task), float(task.layers[-1]))
    return found
