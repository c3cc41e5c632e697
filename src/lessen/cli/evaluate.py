"""`lessen evaluate`: a model's Points on labelled rows, as they really run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lessen.cli.evaluate_classifier import say_known
from lessen.cli.given import ANSWERED, DOCUMENTS, PREDICTED, refuse_others
from lessen.cli.output import (
    GENERATORS,
    Data,
    Json,
    LabelColumn,
    PairColumn,
    Precision,
    Task,
    TextColumn,
    precision_of,
)
from lessen.errors import InputError


def command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model folder, hub name, or builtin:NAME.")],
    data: Data,
    point: Annotated[list[str] | None, typer.Option(help="Only these Points; all if not given.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a dataset that has several.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per batch.")] = 32,
    precision: Precision = None,
    strict: Annotated[bool, typer.Option(help="Refuse texts longer than the model takes.")] = False,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="For a model that writes: how to ask. sentiment, question, yes-no, paraphrase, score "
            "(a number), similarity (one of a pair), first-sentence (several ways each), or a text with "
            "{text} and, for pairs, {pair}; scores are then written as numbers."
        ),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            help="With --prompt: an answer for each label, such as no,yes for 0 and 1, or "
            "fresh=positive,rotten=negative."
        ),
    ] = None,
    speedups: Annotated[
        str | None,
        typer.Option(
            help="Let so many tokens leave, such as 1,1.5,2, in place of the Points; of a model that writes "
            "those of its --prompt."
        ),
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(
            min=1, help="Documents whose beginnings are continued. [100]", rich_help_panel=GENERATORS
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of each beginning; as calibrated if not given, or 64.", rich_help_panel=GENERATORS
        ),
    ] = None,
    new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of each continuation; as calibrated if not given, or 64.", rich_help_panel=GENERATORS
        ),
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Measure quality, mean depth and MACs of each Point on labelled rows.

    A generator with exits takes plain text instead: its beginnings are continued in every mode at each
    Point. Shown are agreement with full depth, weights read, MACs, where tokens were named and where they
    differ.
    """
    from lessen.cli.evaluate_answers import evaluate_prompts
    from lessen.cli.evaluate_classifier import evaluate_classifier
    from lessen.cli.evaluate_generator import evaluate_generator
    from lessen.data.prompts import needs_labels, task_of, templates_of
    from lessen.data.reading import read
    from lessen.data.table import Table
    from lessen.hf import LessenForSequenceClassification, LessenGenerator
    from lessen.loading import load

    loaded = load(model, precision=precision_of(precision))

    def rows_for(kind: str | None, labelled: bool | None) -> Table:
        columns: dict[str, Any] = {"text": text_column, "pair": pair_column, "label": label_column}
        return read(data, **columns, split=split, task=kind, labelled=labelled)

    if prompt is None and answers is not None:
        raise InputError("--answers belongs to --prompt")
    if prompt is not None and isinstance(loaded, LessenGenerator):
        refuse_others(
            context, ANSWERED, "does not go with --prompt, by which rows are answered, not continued"
        )
        ways = templates_of(prompt, None if answers is None else answers.split(","))
        rows = rows_for(task or task_of(ways), None if needs_labels(ways) else False)
        say_known(model, rows)
        evaluate_prompts(
            loaded,
            rows,
            ways=ways,
            speedups=speedups,
            batch_size=batch_size,
            strict=strict,
            as_json=as_json,
        )
        return
    if prompt is not None:
        raise InputError(f"{model} does not write; leave --prompt away")
    if not isinstance(loaded, LessenForSequenceClassification):
        if not isinstance(loaded, LessenGenerator):
            raise InputError(f"{model} has no classifier to evaluate; it only embeds sentences")
        if not loaded.config.form().language_exits:
            raise InputError(f"{model} has no classifier to evaluate; it only generates: give --prompt")
        refuse_others(context, DOCUMENTS, "is for rows; without --prompt documents are continued")
        evaluate_generator(
            loaded,
            model,
            data,
            text_column,
            [loaded.use(name).point for name in point] if point else list(loaded.points.values()),
            prompts=prompts or 100,
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            as_json=as_json,
        )
        return
    refuse_others(context, PREDICTED, f"is for models that write; {model} is a classifier")
    evaluate_classifier(
        loaded,
        model,
        data,
        rows_for(task or loaded.problem_type, None),
        point=point,
        speedups=speedups,
        batch_size=batch_size,
        strict=strict,
        as_json=as_json,
    )
