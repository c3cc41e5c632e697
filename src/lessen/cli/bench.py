"""`lessen bench`: measured time of a model's Points beside the same weights in other runtimes."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from lessen.cli.bench_kernels import bench_kernels
from lessen.cli.given import CLASSIFIER_ROWS, GENERATOR, NO_GENERATOR, refuse_given, refuse_others
from lessen.cli.output import (
    Json,
    LabelColumn,
    PairColumn,
    Task,
    TextColumn,
    in_precisions,
    numbers,
)
from lessen.cli.speedups import dialled_at, fit_here
from lessen.errors import InputError
from lessen.records import MOST_SEED

OF_KERNELS = {"kernels", "seconds", "thread_count", "as_json"}
"""Options that `--kernels` takes."""


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
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the choice of rows.")] = 0,
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
        bench_kernels(thread_count, seconds, as_json=as_json)
        return
    if model is None:
        raise InputError("bench needs MODEL (or --kernels)")
    from lessen.cli import bench_classifier, bench_generator
    from lessen.cli.generate import point_of
    from lessen.data.reading import read
    from lessen.hf import LessenForSequenceClassification, LessenGenerator
    from lessen.loading import load

    sizes = numbers(batch, "--batch")
    models = in_precisions(model, precision, "float32,bfloat16")
    first = models.get("lessen") or next(iter(models.values()))
    if isinstance(first, LessenGenerator):
        refuse_given(context, CLASSIFIER_ROWS | {"batch"}, GENERATOR)
        if speedups and point:
            raise InputError("give --point or --speedups, not both")
        if fit and not speedups:
            raise InputError("--fit: of a generator it is reading that is fitted; give --speedups too")
        if len(point or []) > 1:
            raise InputError("--point: a generator is timed at one Point; give one")
        bench_generator.bench(
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
    if not isinstance(first, LessenForSequenceClassification):
        raise InputError(f"{model} has no classifier to time; compress it on a task first")
    refuse_given(context, {"prompt_tokens", "new_tokens"}, NO_GENERATOR)
    bench_classifier.bench(
        model,
        models,
        first,
        data,
        read(data, text=text_column, pair=pair_column, label=label_column, task=task),
        against=against,
        point=point,
        speedups=speedups,
        fit=fit,
        sizes=sizes,
        rows=rows,
        seconds=seconds,
        threads=thread_count,
        seed=seed,
        as_json=as_json,
    )
