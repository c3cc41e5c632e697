"""`lessen bench` for classifiers: every Point, beside other runtimes on the same rows."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from lessen.cli.output import emit, percent, rival_kinds, say, table
from lessen.cli.speedups import at_speedups, dialled_at, fit_here, predictions, show_speedups
from lessen.errors import InputError

CALIBRATION_ROWS = 300
"""For rivals that quantize activations: rows that are not timed, where there are others."""


def bench(
    name: str,
    models: dict[str, Any],
    first: Any,
    data: str,
    source: Any,
    *,
    against: str | None,
    point: list[str] | None,
    speedups: str | None,
    fit: bool,
    sizes: list[int],
    rows: int,
    seconds: float,
    threads: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Time Points and rivals, interleaved in one process.

    Args:
        name: Of the model.
        models: Of each precision, by what it is called in tables.
        first: The one rivals are made from.
        data: What the rows are called.
        source: The `Table` to draw them from.
        against: Rivals, separated by commas, or `none`; those that apply if None.
        point: Only these Points.
        speedups: Ratios of MACs, separated by commas, in place of Points.
        fit: First fit latencies, and keep them in the model's folder.
        sizes: Rows per batch.
        rows: To time on, at most.
        seconds: For each batch size.
        threads: Of the processor; torch's choice if None.
        seed: Of the choice of rows.
        as_json: Print JSON.

    Raises:
        InputError: When model, rows and options do not fit.
    """
    import torch

    from lessen.machine import machine
    from lessen.measure.side_by_side import Contestant, build_rivals, compare

    if speedups is not None and point:
        raise InputError("give --point or --speedups, not both")
    kinds = rival_kinds(against, [first])
    timed = _timed(name, first, data, source, rows, seed)
    dialled = None if speedups is None else dialled_at(first, speedups)
    if dialled is not None:
        points = list(dialled.values())
    else:
        points = [first.use(one).point for one in point] if point else list(first.points.values())
    count = threads or torch.get_num_threads()
    if fit:
        fit_here(name, models, timed.calibration, sizes, count, seconds)
    contestant = Contestant(
        models=models,
        reference=first,
        encoded=timed.encoded,
        labels=timed.labels,
        points=points,
        rivals=build_rivals(kinds, first, count, timed.calibration),
    )
    result = compare({name: contestant}, batch_sizes=sizes, thread_count=count, seconds=seconds)[name]
    title = f"{len(timed.encoded)} rows of {data}"
    lines = (
        [row.as_dict() for row in result]
        if dialled is None
        else at_speedups(result, dialled, first, timed.encoded, predictions(name, count))
    )
    if as_json:
        emit({"rows": lines, "threads": count, "machine": machine()})
    elif dialled is not None:
        show_speedups(lines, f"{title}, {count} threads")
    else:
        _show(result, f"ms per row on {title}, {result[0].length:.0f} tokens, {count} threads")


@dataclass(frozen=True)
class _Timed:
    """Rows to time on, with labels where quality on them says something; and others, to calibrate rivals."""

    encoded: list[Any]
    labels: Any
    calibration: list[Any]


def _timed(name: str, model: Any, data: str, source: Any, rows: int, seed: int) -> _Timed:
    """Rows drawn of a table: those new to the model, where there are enough."""
    from lessen.data.splits import without_keys
    from lessen.promise.rows import seen_by
    from lessen.runtime.text import encode

    unseen, _ = without_keys(source, seen_by(name))
    fits = source.labels is not None and source.kind == model.problem_type
    fits = fits and set(source.label_names) <= set(model.config.id2label.values())
    if learned := len(unseen) < min(rows, len(source)):
        say(f"only {len(unseen)} of {len(source)} rows are new to the model; the quality column stays empty")
    else:
        source = unseen
    if fits:
        source = source.with_labels_of(model.label_names)
    else:
        say(f"{data} has no labels of this model's task; the quality column stays empty")
    chosen = random.Random(seed).sample(range(len(source)), min(rows, len(source)))
    others = sorted(set(range(len(source))) - set(chosen))[:CALIBRATION_ROWS] or chosen
    encoded, calibration = (
        encode(model.tokenizer, source.take(part).texts, model.config.facts().max_tokens)
        for part in (chosen, others)
    )
    labels = source.take(chosen).labels if fits and not learned else None
    return _Timed(encoded, labels, calibration)


def _show(result: Any, title: str) -> None:
    """One line per model and Point, one column per batch size."""
    sizes = sorted({row.batch for row in result})
    lines: dict[tuple[str, str], dict[int, Any]] = {}
    for row in result:
        lines.setdefault((row.kind, row.name), {})[row.batch] = row
    table(
        ["kind", "point", "quality", *(f"batch {size}" for size in sizes)],
        [
            [
                kind,
                name,
                "" if (value := next(iter(found.values())).value) is None else percent(value),
                *(f"{found[size].ms:.2f}" for size in sizes),
            ]
            for (kind, name), found in lines.items()
        ],
        title,
    )
