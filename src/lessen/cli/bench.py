"""`lessen bench`: measured time of a model's Points beside the same weights in other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.output import (
    Json,
    LabelColumn,
    PairColumn,
    Task,
    TextColumn,
    emit,
    in_precisions,
    numbers,
    percent,
    rival_kinds,
    say,
    table,
)
from lessen.errors import InputError

CALIBRATION_ROWS = 300
"""For rivals that quantize activations: rows that are not timed, where there are others."""


def command(
    model: Annotated[str, typer.Argument(help="Model folder, hub name, or builtin:NAME.")],
    data: Annotated[
        str, typer.Option(help="Rows to time on; quality is measured on the same rows if they have labels.")
    ] = "builtin:movie-reviews",
    against: Annotated[
        str,
        typer.Option(help="Rivals, separated by commas; onnxruntime and openvino need the [bench] extra."),
    ] = "torch",
    point: Annotated[list[str] | None, typer.Option(help="Only these Points; all if not given.")] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8,32",
    rows: Annotated[int, typer.Option(min=1, help="How many rows to time on.")] = 64,
    precision: Annotated[
        str, typer.Option(help="Our own precisions, separated by commas.")
    ] = "float32,bfloat16",
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for each batch size.")] = 20.0,
    thread_count: Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of rows.")] = 0,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Time every Point, and rivals with the same weights, interleaved in one process on the same rows."""
    import random

    import torch

    from lessen.data.reading import read
    from lessen.hf import LessenForSequenceClassification
    from lessen.loading import load
    from lessen.measure.machine import machine
    from lessen.measure.side_by_side import Contestant, build_rivals, compare
    from lessen.runtime.text import encode

    kinds = rival_kinds(against)
    sizes = numbers(batch, "--batch")
    models = in_precisions(model, precision)
    first = models.get("lessen") or load(model)
    if not isinstance(first, LessenForSequenceClassification):
        raise InputError(f"{model} has no classifier to time; compress it on a task first")
    source = read(data, text=text_column, pair=pair_column, label=label_column, task=task)
    source = _unseen(source, Path(model), rows)
    fits = source.labels is not None and source.kind == first.problem_type
    fits = fits and set(source.label_names) <= set(first.config.id2label.values())
    if fits:
        source = source.with_labels_of(first.label_names)
    else:
        say(f"{data} has no labels of this model's task; the quality column stays empty")
    chosen = random.Random(seed).sample(range(len(source)), min(rows, len(source)))
    sample = source.take(chosen)
    encoded = encode(first.tokenizer, sample.texts, first.config.facts().max_tokens)
    others = sorted(set(range(len(source))) - set(chosen))[:CALIBRATION_ROWS] or chosen
    calibration = encode(first.tokenizer, source.take(others).texts, first.config.facts().max_tokens)
    points = [first.use(name).point for name in point] if point else list(first.points.values())
    count = thread_count or torch.get_num_threads()
    contestant = Contestant(
        models=models,
        reference=first,
        encoded=encoded,
        labels=sample.labels if fits else None,
        points=points,
        rivals=build_rivals(kinds, first, count, calibration),
    )
    result = compare({model: contestant}, batch_sizes=sizes, thread_count=count, seconds=seconds)[model]
    if as_json:
        emit({"rows": [row.as_dict() for row in result], "threads": count, "machine": machine()})
        return
    show(
        result, f"ms per row on {len(sample)} rows of {data}, {result[0].length:.0f} tokens, {count} threads"
    )


def _unseen(source: Any, folder: Path, rows: int) -> Any:
    """The rows the model was not trained on, if it is known which those are and enough are left."""
    from lessen.data.table import row_key
    from lessen.promise.rows import seen_by

    seen = seen_by(folder) if folder.is_dir() else frozenset()
    if not seen:
        return source
    unseen = [row for row, text in enumerate(source.texts) if row_key(text) not in seen]
    return source.take(unseen) if len(unseen) >= rows else source


def show(result: Any, title: str) -> None:
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
