"""`lessen report`: a page about one model or several, made to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.given import CLASSIFIER_ROWS, GENERATOR, NO_GENERATOR, refuse_given
from lessen.cli.output import (
    GENERATORS,
    Json,
    LabelColumn,
    PairColumn,
    Task,
    TextColumn,
    Threads,
    emit,
    in_precisions,
    numbers,
    rival_kinds,
    say,
)
from lessen.cli.own_rows import rows_of_split
from lessen.errors import InputError
from lessen.records import MOST_SEED

FEWEST_ROWS = 20


def command(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(help="Model folders of one task, the main one first.")],
    data: Annotated[
        str | None,
        typer.Option(help="Rows to report on; else the test rows the first model's data was split into."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; else the first model's folder.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Rivals, separated by commas; none for none. [torch, if all models are dense; generators: "
            "transformers]"
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8",
    rows: Annotated[int, typer.Option(min=1, help="How many rows to time on.")] = 48,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for each batch size.")] = 20.0,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Separated by commas, such as float32,bfloat16; the page is about the first. [as stored]"
        ),
    ] = None,
    with_examples: Annotated[
        bool, typer.Option("--with-examples", help="Show some of the rows; else built-in sentences.")
    ] = False,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the choice of rows to time on.")] = 0,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    task: Task = None,
    prompts: Annotated[
        int, typer.Option(min=20, help="Most documents to continue.", rich_help_panel=GENERATORS)
    ] = 100,
    as_json: Json = False,
) -> None:
    """Write report.html, report.png and report.json: quality, depth, time, exits, and what is certified.

    The page needs no script and fetches nothing. Rows that any of the models was trained, tuned or calibrated
    on are left out. Of a generator with exits: agreement with full depth, where tokens are named and differ,
    and tokens per second of every mode.
    """
    import torch

    from lessen.cli.report_generator import report_generator
    from lessen.loading import generates
    from lessen.report.gather import Timing, gather
    from lessen.report.page import shown, write_report

    folder = out or Path(models[0])
    if not folder.is_dir() and (out is None or folder.exists()):
        raise InputError(f"{folder} is not a folder; name one with --out")
    if Path(models[0]).is_dir() and generates(models[0]):
        refuse_given(context, CLASSIFIER_ROWS | {"batch", "precision"}, GENERATOR)
        report_generator(
            models,
            folder,
            data,
            text_column,
            against=against,
            prompts=prompts,
            rows=rows,
            seconds=seconds,
            with_examples=with_examples,
            threads=threads,
            seed=seed,
            as_json=as_json,
        )
        return
    refuse_given(context, {"prompts"}, NO_GENERATOR)
    sizes, subjects = numbers(batch, "--batch"), _subjects(models, precision)
    kinds = rival_kinds(against, [subject.stored for subject in subjects])
    table, about = _rows(subjects, data, (text_column, pair_column, label_column, task))
    say(f"{len(table):,} rows: {about}")
    timing = Timing(kinds, sizes, rows, seconds, threads or torch.get_num_threads(), seed)
    facts = gather(subjects, table, about, timing, with_examples=with_examples)
    places = {kind: str(place) for kind, place in write_report(facts, folder).items()}
    if as_json:
        emit({"files": places, **facts})
        return
    for model in facts["models"]:
        spots = {spot["name"]: spot for spot in model["points"]}
        own, full = spots[model["point"]], spots["full"]
        print(
            f"{model['name']}: {model['metric']} {shown(own['value'], model['metric'])} "
            f"at point {own['name']} with {own['mean_layers']:.2f} of {model['depth']} layers, "
            f"{shown(full['value'], model['metric'])} at full depth"
        )
    print("\n".join(places.values()))


def _subjects(models: list[str], precisions: str | None) -> list[Any]:
    from lessen.hf import LessenForSequenceClassification
    from lessen.loading import load
    from lessen.report.gather import Subject

    names = _names(models)
    subjects = []
    for name, model in zip(names, models, strict=True):
        loaded = in_precisions(model, precisions)
        first = next(iter(loaded.values()))
        if not isinstance(first, LessenForSequenceClassification):
            raise InputError(f"{model} has no classifier to report on; compress it on a task first")
        stored = first if precisions is None else loaded.get("lessen") or load(model)
        subjects.append(Subject(name, Path(model), loaded, stored))
    return subjects


def _names(models: list[str]) -> list[str]:
    """The folders' own names, or their whole paths where those are equal."""
    if len({str(Path(model).resolve()) for model in models}) < len(models):
        raise InputError("the same model is named twice")
    short = [Path(model).resolve().name or model for model in models]
    return short if len(set(short)) == len(short) else models


def _rows(subjects: list[Any], data: str | None, columns: tuple[str | None, ...]) -> tuple[Any, str]:
    """Rows none of the models has seen, and what they are."""
    from lessen.data.reading import read
    from lessen.data.splits import without_keys
    from lessen.promise.rows import fitting, kept_in, seen_by

    text, pair, label, task = columns
    if data is not None:
        table = read(data, text=text, pair=pair, label=label, task=task or subjects[0].model.problem_type)
        about = data
    else:
        table, about = rows_of_split(subjects[0].folder, "test")
    for subject in subjects:
        fitting(table, subject.model, subject.folder, kept_in(subject.folder))
    seen = {key for subject in subjects for key in seen_by(subject.folder)}
    fresh, known = without_keys(table, seen)
    if len(fresh) < FEWEST_ROWS:
        raise InputError(
            f"{about}: {len(fresh)} rows are left that no model has seen, at least {FEWEST_ROWS} are needed; "
            "give others with --data"
        )
    if known:
        about += f", without {known:,} that a model had seen"
    return fresh, about
