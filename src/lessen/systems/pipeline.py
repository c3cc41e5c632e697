"""From a checkpoint and data to a model folder with Points: read, split, train in stages, choose, test, save.

Everything a run decides is in its `CompressionPlan`, which is saved with the result and can be replayed. A
run that was stopped continues from its working folder, `OUT.work`, when the same command is given again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from lessen.artefact import replacing_folder, write_json
from lessen.data.reading import read
from lessen.data.splits import split, without
from lessen.data.table import Table
from lessen.depth.criteria import CRITERIA
from lessen.depth.thresholds import candidates, fastest
from lessen.errors import InputError
from lessen.loading import load, with_exits
from lessen.measure.metrics import METRIC_OF, as_labels, quality, row_scores
from lessen.plan import FULL, ExitShape, Expectation, Point, Promise, Strict
from lessen.runtime.evaluation import Result, answers_of_every_exit, evaluate
from lessen.runtime.text import encode
from lessen.systems.system import System
from lessen.train.fine_tuning import Recipe, fine_tune
from lessen.train.objectives import OBJECTIVES

Say = Callable[[str], None]

REGRESSION_CRITERIA = ("regression_patience",)
FEWEST_TUNING_ROWS = 20


class Columns(Strict):
    """Which columns of the data hold what; found by their usual names where None."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    task: Literal["classification", "multi-label", "regression"] | None = None


class CompressionPlan(Strict):
    """Everything a `compress` run decides.

    `shares` of the data are kept aside for tuning thresholds and for the final test where no files for them
    are named. `max_drops` are the losses against full depth (0.01: one point in a hundred) to make Points
    for; the first is the one the model answers at by default.
    """

    version: Literal[1] = 1
    model: str
    data: str
    tune_data: str | None = None
    test_data: str | None = None
    columns: Columns = Columns()
    system: str
    stages: tuple[Recipe, ...]
    exits: tuple[ExitShape, ...] | None = None
    criteria: tuple[str, ...]
    max_drops: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (0.01,)
    tune_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a run made: the folder, the model, and its Points as measured on rows nothing was chosen on."""

    folder: Path
    model: Any
    results: list[Result]
    rows: dict[str, int]
    training: list[dict[str, Any]]
    test: Table


def plan_for(system: System, *, seed: int, recipe: dict[str, Any], **choices: Any) -> CompressionPlan:
    """The plan of a system with the user's choices; `recipe` changes every stage that has the field."""
    stages = tuple(stage.model_copy(update={"seed": seed, **recipe}) for stage in system.stages)
    stages = tuple(Recipe.model_validate(stage.model_dump()) for stage in stages)
    choices.setdefault("criteria", system.criteria)
    return CompressionPlan(system=system.name, stages=stages, seed=seed, **choices)


def compress(
    plan: CompressionPlan, system: System, out: Path, say: Say = print, *, quiet: bool = False
) -> Outcome:
    """Carry out a plan and save the result in `out`.

    Raises:
        InputError: When model, data and system do not fit, or `out` holds the work of another plan.
        Interrupted: When stopped; the same call continues.
    """
    check_names(plan)
    work = _working_folder(plan, out)
    tables = read_splits(plan)
    say(", ".join(f"{name} {len(table):,}" for name, table in tables.items()) + " rows")
    stages = "; ".join(f"{r.objective}, {r.epochs:g} epochs at {r.learning_rate:g}" for r in plan.stages)
    say(f"plan: {plan.system} ({stages}); criteria {', '.join(plan.criteria)}; saved in {work}/plan.json")
    model = prepare(plan, system, tables["train"])
    write_json(work / "plan.json", plan.model_dump(mode="json"))
    tables = {name: table.with_labels_of(_names(model)) for name, table in tables.items()}
    training = [
        _stage(model, tables["train"], recipe, work / f"stage-{number}", say, quiet)
        for number, recipe in enumerate(plan.stages, start=1)
    ]
    spread = _label_range(tables["train"])
    points = choose_points(model, tables["tune"], plan, spread)
    default = points[0].name if points else FULL.name
    model.config.points = [point.model_dump(mode="json", exclude_none=True) for point in points]
    model.config.point = default
    model.use(default)
    encoded = _encode(model, tables["test"])
    labels = tables["test"].labels
    if labels is None:
        labels = as_labels(answers_of_every_exit(model, encoded)[-1], model.problem_type).tolist()
    results = [evaluate(model, encoded, labels, point) for point in (FULL, *points)]
    rows = {name: len(table) for name, table in tables.items()}
    with replacing_folder(out) as fresh:
        model.save_pretrained(fresh)
        write_json(fresh / "plan.json", plan.model_dump(mode="json"))
        record = {"rows": rows, "training": training, "test": [result.as_dict() for result in results]}
        write_json(fresh / "training.json", record)
    shutil.rmtree(work, ignore_errors=True)
    return Outcome(out, model, results, rows, training, tables["test"])


def check_names(plan: CompressionPlan) -> None:
    """Refuse a plan that names an objective or criterion there is not, before any work is done.

    Raises:
        InputError: Naming it and the known ones.
    """
    for stage in plan.stages:
        if stage.objective not in OBJECTIVES:
            raise InputError(f"unknown objective {stage.objective!r}; one of {', '.join(OBJECTIVES)}")
    for criterion in plan.criteria:
        if criterion not in CRITERIA:
            raise InputError(f"unknown exit criterion {criterion!r}; one of {', '.join(CRITERIA)}")


def read_splits(plan: CompressionPlan) -> dict[str, Table]:
    """Training, tuning and test rows, no text in two of them."""
    columns = plan.columns.model_dump()
    data = read(plan.data, **columns)
    shares = {"train": 1.0}
    parts: dict[str, Table] = {}
    for name, source, share in (
        ("tune", plan.tune_data, plan.tune_share),
        ("test", plan.test_data, plan.test_share),
    ):
        if source is not None:
            parts[name] = read(source, **columns).with_labels_of(data.label_names)
        else:
            shares |= {name: share, "train": shares["train"] - share}
    data, _ = without(data, parts.values())
    parts |= split(data, shares, plan.seed)
    parts["tune"], _ = without(parts["tune"], [parts["test"]])
    if len(parts["tune"]) < FEWEST_TUNING_ROWS:
        raise InputError(
            f"{plan.data}: {len(parts['tune'])} rows are left to tune thresholds on, at least "
            f"{FEWEST_TUNING_ROWS} are needed; give more data or name a file with --tune-data"
        )
    return {name: parts[name] for name in ("train", "tune", "test")}


def prepare(plan: CompressionPlan, system: System, train: Table) -> Any:
    """The checkpoint with the exits of the plan."""
    base = load(plan.model)
    if system.keeps_head:
        if not base.config.form().exits:
            raise InputError(
                f"{plan.model} has no classifier; {system.name} adds exits to a model already fine-tuned"
            )
        return with_exits(base, exits=plan.exits, seed=plan.seed)
    if train.kind is None:
        raise InputError(f"{train.name} has no labels; system {system.name} needs them (self-exit does not)")
    names = train.label_names or ["value"]
    return with_exits(base, exits=plan.exits, labels=names, problem_type=train.kind, seed=plan.seed)


def choose_points(model: Any, tune: Table, plan: CompressionPlan, label_range: float = 1.0) -> list[Point]:
    """One Point for each of the plan's `max_drops`, by the plug-in rule on the tuning rows."""
    encoded = _encode(model, tune)
    logits = answers_of_every_exit(model, encoded)
    problem = model.problem_type
    truth = as_labels(logits[-1], problem) if tune.labels is None else np.asarray(tune.labels)
    scores = np.stack([row_scores(answer, truth, problem, label_range) for answer in logits])
    layers = model.transformer.shape.exit_layers
    criteria = REGRESSION_CRITERIA if problem == "regression" else plan.criteria
    choices = [
        choice
        for criterion in criteria
        for choice in candidates(logits, scores, layers, criterion, label_range=label_range)
    ]
    points = []
    for max_drop in plan.max_drops:
        choice = fastest(choices, max_drop, float(layers[-1]))
        point = Point(
            name=f"drop-{100 * max_drop:g}%",
            exits=choice.rule,
            promise=Promise(
                rule="plug-in",
                loss="disagreement" if tune.labels is None else "drop",
                epsilon=max_drop,
            ),
        )
        result = evaluate(model, encoded, truth.tolist(), point)
        expected = Expectation(
            split=f"{tune.name} (tuning)",
            rows=len(tune),
            metric=METRIC_OF[problem],
            value=result.value,
            full_value=quality(logits[-1], truth.tolist(), problem),
            mean_layers=result.mean_layers,
            macs_ratio=result.macs_ratio,
        )
        points.append(point.model_copy(update={"expected": expected}))
    return points


def _stage(model: Any, train: Table, recipe: Recipe, folder: Path, say: Say, quiet: bool) -> dict[str, Any]:
    """Train one stage, or take the result of an earlier run that finished it."""
    done = folder / "done.json"
    weights = folder / "weights.safetensors"
    if done.exists():
        model.load_state_dict(load_file(weights))
        say(f"{folder.name} was finished by an earlier run")
        return json.loads(done.read_text())
    torch.manual_seed(recipe.seed)
    record = fine_tune(model, train, recipe, folder / "checkpoints", quiet=quiet)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    write_json(done, record)
    return record


def _working_folder(plan: CompressionPlan, out: Path) -> Path:
    """The folder of the unfinished work, which must not be another plan's."""
    work = out.with_name(out.name + ".work")
    place = work / "plan.json"
    if place.exists() and json.loads(place.read_text()) != plan.model_dump(mode="json"):
        raise InputError(
            f"{work} holds the unfinished work of another plan; finish it with --plan {place}, or delete it"
        )
    return work


def _encode(model: Any, table: Table) -> list[Any]:
    return encode(model.tokenizer, table.texts, model.config.facts().max_tokens)


def _names(model: Any) -> list[str]:
    return [model.config.id2label[i] for i in range(model.config.num_labels)]


def _label_range(table: Table) -> float:
    if table.kind != "regression" or not table.labels:
        return 1.0
    return float(np.ptp(np.asarray(table.labels, dtype=float))) or 1.0
