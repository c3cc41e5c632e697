"""`lessen evaluate` of a classifier: each Point on labelled rows."""

from __future__ import annotations

import time
from typing import Any

from lessen.cli.compress_results import show_results
from lessen.cli.output import emit, say
from lessen.cli.speedups import dialled_at
from lessen.errors import InputError


def evaluate_classifier(
    model: Any,
    name: str,
    data: str,
    rows: Any,
    *,
    point: list[str] | None,
    speedups: str | None,
    batch_size: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Print quality, depth and MACs of Points, or of speed-ups.

    Args:
        model: As loaded.
        name: Of the model.
        data: What the rows are called.
        rows: Their `Table`.
        point: Only these Points.
        speedups: Ratios of MACs, separated by commas, in place of Points.
        batch_size: Rows that run at once.
        strict: Refuse texts longer than the model takes.
        as_json: Print one JSON object.

    Raises:
        InputError: When model, rows and options do not fit.
    """
    from lessen.measure.evaluation import evaluate
    from lessen.runtime.text import encode

    if speedups is not None and point:
        raise InputError("give --point or --speedups, not both")
    if speedups is not None:
        chosen = list(dialled_at(model, speedups).values())
    else:
        chosen = [model.use(one).point for one in point] if point else list(model.points.values())
    if rows.labels is None:
        raise InputError(f"{data} has no labels to evaluate against")
    if rows.kind != model.problem_type:
        raise InputError(f"{data} is for {rows.kind}, {name} was trained for {model.problem_type}")
    rows = rows.with_labels_of(model.label_names)
    began, longest = time.perf_counter(), model.config.facts().max_tokens
    encoded = encode(model.tokenizer, rows.texts, longest, strict=strict)
    if cut := sum(row.truncated for row in encoded):
        say(f"{cut} of {len(encoded)} texts were cut to the model's {longest} tokens")
    say_known(name, rows)
    results = [evaluate(model, encoded, rows.labels, each, batch_size) for each in chosen]
    if as_json:
        emit(
            {
                "points": [result.as_dict() for result in results],
                "n": len(rows),
                "seconds": round(time.perf_counter() - began, 3),
                "truncated": cut,
            }
        )
        return
    show_results(results, f"{data}: {len(rows):,} rows")


def say_known(model: str, rows: Any) -> None:
    """Say how many of these rows are no test of the model."""
    from lessen.data.splits import without_keys
    from lessen.promise.rows import seen_by

    if known := without_keys(rows, seen_by(model))[1]:
        say(f"{known} of {len(rows)} rows are among those {model} was trained, tuned or calibrated on")
