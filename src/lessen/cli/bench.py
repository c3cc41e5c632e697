"""`lessen bench`: measured time of a model's Points beside the same weights in other runtimes."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from lessen.cli.given import CLASSIFIER_ROWS, GENERATOR, NO_GENERATOR, refuse_given, refuse_others
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
from lessen.cli.speedups import at_speedups, dialled_at, fit_here, predictions, show_speedups
from lessen.errors import InputError

OF_KERNELS = {"kernels", "seconds", "thread_count", "as_json"}
"""Options that `--kernels` takes."""

CALIBRATION_ROWS = 300
"""For rivals that quantize activations: rows that are not timed, where there are others."""


def command(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="Model folder, hub name, or builtin:NAME.")] = None,
    data: Annotated[
        str, typer.Option(help="Rows to time on; quality is measured on the same rows if they have labels.")
    ] = "builtin:movie-reviews",
    against: Annotated[
        str | None,
        typer.Option(
            help="Rivals, separated by commas, or none; onnxruntime and openvino need the [bench] extra. "
            "[torch, if the model is dense; for generators transformers, llama.cpp, openvino-genai, those "
            "that apply]"
        ),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(help="Only these Points; all if not given. Of a generator one.")
    ] = None,
    speedups: Annotated[
        str | None,
        typer.Option(
            help="Dial these speed-ups by tokens, such as 1,1.5,2,3,4.8, in place of the Points; of a "
            "generator those of reading the prompt."
        ),
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="First fit latencies on this machine, and keep them in the folder.")
    ] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Time our products with few bits beside torch's; takes no model."),
    ] = False,
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8,32",
    rows: Annotated[int, typer.Option(min=1, help="How many rows to time on.")] = 64,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Of a generator: so many tokens of each row are the prompt.")
    ] = 32,
    new_tokens: Annotated[
        int, typer.Option(min=2, help="Of a generator: tokens generated for each row.")
    ] = 64,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Our own precisions, separated by commas. [float32,bfloat16; as stored, if in few bits]"
        ),
    ] = None,
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
    if kernels:
        if model is not None:
            raise InputError(f"--kernels times products of given sizes, not {model}; leave it out")
        refuse_others(context, OF_KERNELS, "is about models; --kernels times products of given sizes")
        _bench_kernels(thread_count, seconds, as_json=as_json)
        return
    if model is None:
        raise InputError("bench needs MODEL (or --kernels)")
    import random

    import torch

    from lessen.data.reading import read
    from lessen.data.splits import without_keys
    from lessen.hf import LessenForSequenceClassification, LessenGenerator
    from lessen.loading import load
    from lessen.machine import machine
    from lessen.measure.side_by_side import Contestant, build_rivals, compare
    from lessen.promise.rows import seen_by
    from lessen.runtime.text import encode

    sizes = numbers(batch, "--batch")
    models = in_precisions(model, precision, "float32,bfloat16")
    first = models.get("lessen") or next(iter(models.values()))
    if isinstance(first, LessenGenerator):
        from lessen.cli.bench_generator import bench
        from lessen.cli.generate import point_of

        refuse_given(context, CLASSIFIER_ROWS | {"batch"}, GENERATOR)
        if speedups and point:
            raise InputError("give --point or --speedups, not both")
        if fit and not speedups:
            raise InputError("--fit: of a generator it is reading that is fitted; give --speedups too")
        if len(point or []) > 1:
            raise InputError("--point: a generator is timed at one Point; give one")
        bench(
            model,
            models,
            data,
            text_column,
            against=against,
            point=point_of(first, point[0]) if point else None,
            rows=rows,
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            seconds=seconds,
            threads=thread_count,
            seed=seed,
            as_json=as_json,
            dialled=None if speedups is None else dialled_at(first, speedups),
            fit=partial(fit_here, model, models, sizes=[1], seconds=seconds) if fit else None,
        )
        return
    if "lessen" not in models and precision is not None:
        first = load(model)
    kinds = rival_kinds(against, [first])
    if not isinstance(first, LessenForSequenceClassification):
        raise InputError(f"{model} has no classifier to time; compress it on a task first")
    refuse_given(context, {"prompt_tokens", "new_tokens"}, NO_GENERATOR)
    source = read(data, text=text_column, pair=pair_column, label=label_column, task=task)
    unseen, _ = without_keys(source, seen_by(model))
    fits = source.labels is not None and source.kind == first.problem_type
    fits = fits and set(source.label_names) <= set(first.config.id2label.values())
    if learned := len(unseen) < min(rows, len(source)):
        say(f"only {len(unseen)} of {len(source)} rows are new to the model; the quality column stays empty")
    else:
        source = unseen
    if fits:
        source = source.with_labels_of(first.label_names)
    else:
        say(f"{data} has no labels of this model's task; the quality column stays empty")
    chosen = random.Random(seed).sample(range(len(source)), min(rows, len(source)))
    sample = source.take(chosen)
    encoded = encode(first.tokenizer, sample.texts, first.config.facts().max_tokens)
    others = sorted(set(range(len(source))) - set(chosen))[:CALIBRATION_ROWS] or chosen
    calibration = encode(first.tokenizer, source.take(others).texts, first.config.facts().max_tokens)
    count = thread_count or torch.get_num_threads()
    dialled = None if speedups is None else dialled_at(first, speedups)
    if dialled is not None and point:
        raise InputError("give --point or --speedups, not both")
    points = [first.use(name).point for name in point] if point else list(first.points.values())
    points = points if dialled is None else list(dialled.values())
    if fit:
        fit_here(model, models, calibration, sizes, count, seconds)
    contestant = Contestant(
        models=models,
        reference=first,
        encoded=encoded,
        labels=sample.labels if fits and not learned else None,
        points=points,
        rivals=build_rivals(kinds, first, count, calibration),
    )
    result = compare({model: contestant}, batch_sizes=sizes, thread_count=count, seconds=seconds)[model]
    if dialled is not None:
        lines = at_speedups(result, dialled, first, encoded, predictions(model, count))
        if as_json:
            emit({"rows": lines, "threads": count, "machine": machine()})
        else:
            show_speedups(lines, f"{len(sample)} rows of {data}, {count} threads")
        return
    if as_json:
        emit({"rows": [row.as_dict() for row in result], "threads": count, "machine": machine()})
        return
    show(
        result, f"ms per row on {len(sample)} rows of {data}, {result[0].length:.0f} tokens, {count} threads"
    )


def _bench_kernels(thread_count: int | None, seconds: float, *, as_json: bool) -> None:
    import torch

    from lessen.machine import machine
    from lessen.measure.kernel_speed import kernel_rows
    from lessen.native import why_not

    rows = kernel_rows(thread_count=thread_count or torch.get_num_threads(), seconds=seconds)
    if as_json:
        emit({"rows": rows, "machine": machine()})
        return
    if (reason := why_not()) is not None:
        say(f"the plain form in torch is timed, there are no kernels: {reason}")
    rivals = ("torch_fp32_ms", "torch_bf16_ms", "int8_ms")
    table(
        ["kernel", "rows x in x out", "ms", "GB/s", *rivals],
        [
            [
                row["kernel"],
                f"{row['m']} x {row['k']} x {row['n']}",
                f"{row['ms']:.3f}",
                f"{row['gb_per_s']:.3g}",
            ]
            + [f"{row[name]:.3f} ({row[name] / row['ms']:.1f}x)" for name in rivals]
            for row in rows
        ],
        f"{rows[0]['isa']}, {rows[0]['threads']} threads; in brackets how many times faster the kernel is; "
        f"GB/s are of weights, in a plain loop {rows[-1]['read_gb_per_s']:.3g} for the last size",
    )


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
