"""From a checkpoint and data to a model folder with Points: read, split, train, calibrate, test, save.

Everything a run decides is in its `CompressionPlan`, which is saved with the result and can be replayed. A
run that was stopped continues from its working folder, `OUT.work`, when the same command is given again.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lessen.artefact import CONFIG, KEPT, check_place, replacing_folder, write_text
from lessen.card import does_of, write_card
from lessen.certificate import one_digest
from lessen.data.splits import without_keys
from lessen.data.table import Table
from lessen.depth.criteria import criteria_for
from lessen.errors import InputError, Interrupted, PlanError
from lessen.history import remember
from lessen.loading import latent_form_of, load
from lessen.measure.evaluation import Result, answers_of_every_exit, evaluate
from lessen.measure.metrics import as_labels
from lessen.model.few_bits import FewBits
from lessen.plan import Shape
from lessen.promise.classifiers import calibrate_classifier
from lessen.promise.rows import keep
from lessen.promise.settle import Calibration
from lessen.reshaping import in_signs, with_exits, with_shape
from lessen.runtime.text import encode
from lessen.systems.binarizing import Binarizing, binarized, check_bits, turning
from lessen.systems.dividing import known_to, read_splits
from lessen.systems.milestone import Milestone
from lessen.systems.planning import CompressionPlan, check_names, check_task
from lessen.systems.pretraining import Pretraining
from lessen.systems.removing import remove, shape_within
from lessen.systems.rounds import Rounds
from lessen.systems.selecting import judge_of, selects
from lessen.systems.system import System
from lessen.systems.token_stages import check_tokens, give_profile, leaving, passes_of
from lessen.systems.working import Say, begin_work, result_folder, working_folder
from lessen.train.fine_tuning import Recipe, fine_tune, passes_over
from lessen.train.trainer import Diverged
from lessen.width.budget import parameters_of


@dataclass(frozen=True)
class Outcome:
    """What a run made: the folder, the model, its promises, and its Points on rows nothing was chosen on."""

    folder: Path
    model: Any
    calibration: Calibration
    results: list[Result]
    rows: dict[str, int]
    training: list[dict[str, Any]]
    test: Table


def compress(
    plan: CompressionPlan, system: System, out: Path, say: Say = print, *, quiet: bool = False
) -> list[Outcome]:
    """Carry out a plan and save the result in `out`; of several targets, each in a folder of its own there.

    Returns:
        What was made, largest first.

    Raises:
        InputError: When model, data and system do not fit, or `out` holds the work of another plan.
        Interrupted: When stopped; the same call continues.
    """
    check_names(plan)
    if any(isinstance(stage, Pretraining) for stage in plan.stages):
        raise InputError(f"{plan.system} has no task; systems.pretraining carries it out")
    out = out.resolve()
    if keeps_latents(plan):
        check_place(latent_beside(out))
    work = working_folder(plan, out)
    before = known_to(plan.model, say)
    tables = read_splits(plan, before, say)
    check_task(plan, system, tables["train"].kind)
    say(", ".join(f"{name} {len(table):,}" for name, table in tables.items()) + " rows")
    if system.keeps_head and plan.calibration_data is None and not without_keys(tables["train"], before)[1]:
        say(f"was {plan.model} trained on these rows? then promises need others: --calibration-data")
    model = prepare(plan, system, tables["train"])
    for stage in plan.stages:
        if stage.speedup > 1:
            check_tokens(model, tables["train"], stage, plan.tokens)
        if isinstance(stage, Binarizing):
            check_bits(model, stage)
    ways = _ways(plan, model)
    if len(ways) > 1 and (out / CONFIG).exists():
        raise InputError(f"{out} is a model's folder; name another one for models of several sizes")
    start = Path(plan.model).expanduser().resolve()
    if len(ways) > 1 and any((out / way.name).resolve() == start for way in ways):
        raise InputError(
            f"{plan.model} would be replaced before all sizes are made of it; name another --out"
        )
    for way in ways:
        if way.shapes:
            say(f"to become: {way.shapes[-1].in_words()}")
    count = len(tables["train"])
    stages = "; ".join(_said(stage, passes_over(count, stage)) for stage in plan.stages)
    begin_work(work, plan, tables, model)
    usable = criteria_for(model.problem_type)
    criteria = ", ".join(each for each in plan.criteria if each in usable)
    say(f"plan: {plan.system} ({stages}); criteria {criteria}; saved in {work}/plan.json")
    tables = {name: table.with_labels_of(model.label_names) for name, table in tables.items()}
    outcomes = []
    try:
        for place, way in enumerate(ways, start=1):
            if len(ways) > 1:
                say(f"size {place} of {len(ways)}: {way.name}")
            run = _Stages(plan, model, tables, work, way, say, quiet=quiet)
            training = [run.stage(number) for number in range(1, len(plan.stages) + 1)]
            saved = work / way.name / "saved"
            if stays := saved.exists() and (out / way.name / CONFIG).exists():
                say(f"{out / way.name} was saved before and stays as it is")
            outcomes.append(_saved(plan, run.model, tables, before, training, out / way.name, stays=stays))
            write_text(saved, "")
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; run the same command to continue from {work}") from None
    shutil.rmtree(work, ignore_errors=True)
    return outcomes


def keeps_latents(plan: CompressionPlan) -> bool:
    """Whether what binary weights learn by is saved beside: those that are trained now, or were before.

    Raises:
        InputError, ArtefactError, PlanError, UnsupportedModelError: As `load`.
    """
    if any(isinstance(stage, Pretraining) for stage in plan.stages):
        return False  # it is all that is saved
    learns = any(isinstance(stage, Binarizing) and stage.weight_bits == 1 for stage in plan.stages)
    return learns or latent_form_of(plan.model) is not None


def latent_beside(out: Path) -> Path:
    """Where what binary weights learned by is kept."""
    out = out.resolve()
    return out.with_name(f"{out.name}-latent")


def _said(stage: Recipe, epochs: float) -> str:
    said = f"{stage.objective}, {epochs:.3g} epochs at {stage.learning_rate:g}"
    if not isinstance(stage, Rounds):
        return said
    return f"{said} a round, {100 * stage.growth:g}% more in each next one"


@dataclass(frozen=True)
class _Way:
    """Where a model of one size is saved below the run's folder, and the shapes it passes through."""

    name: str = ""
    shapes: tuple[Shape, ...] = ()


def _ways(plan: CompressionPlan, model: Any) -> list[_Way]:
    """One for each size, largest first; each passes through those before it.

    Raises:
        PlanError: When a target cannot be reached, or is as large as the model or another target.
    """
    removal = next((stage for stage in plan.stages if isinstance(stage, Rounds)), None)
    if removal is None:
        return [_Way()]
    shapes = {target: shape_within(model, target, removal) for target in plan.targets}
    facts, outputs = model.config.facts(), model.config.num_labels
    sizes = {target: parameters_of(facts, shape, outputs) for target, shape in shapes.items()}
    for target, shape in shapes.items():
        if shape == model.config.form():
            raise PlanError(f"target {target}: the model is that small already")
    if len(set(sizes.values())) < len(plan.targets):
        raise PlanError(f"targets {', '.join(map(str, plan.targets))}: two of them are the same size")
    order = sorted(shapes, key=lambda target: -sizes[target])
    through = [tuple(shapes[larger] for larger in order[: place + 1]) for place in range(len(order))]
    if len(order) == 1:
        return [_Way(shapes=through[0])]
    return [_Way(target.folder, shapes) for target, shapes in zip(order, through, strict=True)]


def _saved(
    plan: CompressionPlan,
    model: Any,
    tables: dict[str, Table],
    before: frozenset[str],
    training: list[dict[str, Any]],
    out: Path,
    *,
    stays: bool,
) -> Outcome:
    """Certify a trained model, save it in `out`, and test it on the rows nothing was chosen on.

    Binary weights are packed; what they learned by goes into a folder beside, to train on from. What `stays`
    was saved before this run was stopped, and may have been calibrated since: it is not written again.
    """
    latent = None if model.config.form().latent is None else model
    if latent is not None:
        model = in_signs(latent)
    kept = keep(model, tables, plan.criteria, tables["train"].label_range, before)
    rows = {name: len(table) for name, table in tables.items()}
    with result_folder(out, plan, written=not stays) as (fresh, record):
        model.save_pretrained(fresh)
        kept = replace(kept, subject=one_digest(fresh))
        kept.save(fresh / KEPT)
        calibration = calibrate_classifier(fresh, model, kept, plan.promise)
        results = _test(model, tables["test"])
        record |= {
            "rows": rows,
            "training": training,
            "test": [result.as_dict() for result in results],
            "rules": {point["name"]: does_of(point) for point in model.config.points},
        }
    if latent is not None:
        beside = latent_beside(out)
        with replacing_folder(beside) as fresh:
            latent.save_pretrained(fresh)
            remember(fresh, kept.seen, before)
            write_card(fresh, beside.name)
    return Outcome(out, model, calibration, results, rows, training, tables["test"])


def prepare(plan: CompressionPlan, system: System, train: Table) -> Any:
    """The checkpoint with the exits of the plan."""
    torch.manual_seed(plan.seed)
    base = load(plan.model)
    if base.config.facts().language_head is not None:
        raise InputError(f"{plan.model} generates; system {system.name} is for models that classify")
    for part in base.modules():
        if isinstance(part, FewBits):
            raise PlanError(f"{plan.model}: {part.frozen}")
    exits = plan.exits
    if exits is None and system.exit is not None:
        depth = len(base.config.form().layers)
        exits = tuple(system.exit.model_copy(update={"layer": layer}) for layer in range(1, depth + 1))
    if system.keeps_head:
        if not base.config.form().exits:
            raise InputError(
                f"{plan.model} has no classifier; {system.name} adds exits to a model already fine-tuned"
            )
        return with_exits(base, exits=exits, seed=plan.seed)
    if train.kind is None:
        raise InputError(f"{train.name} has no labels; system {system.name} needs them (self-exit does not)")
    names = train.label_names or ["value"]
    return with_exits(base, exits=exits, labels=names, problem_type=train.kind, seed=plan.seed)


def _test(model: Any, table: Table) -> list[Result]:
    """Full depth and every Point on the test rows; without labels, agreement with full depth."""
    encoded = encode(model.tokenizer, table.texts, model.config.facts().max_tokens)
    trained = getattr(model.config.retention_profile(), "trained_at", None)
    dialled = [point for speedup, point in model.speeds().items() if speedup in (2.0, 3.0, trained)]
    points = [*model.points.values(), *dialled]
    if table.labels is not None:
        return [evaluate(model, encoded, table.labels, point) for point in points]
    answers = as_labels(answers_of_every_exit(model, encoded)[-1], model.problem_type).tolist()
    return [replace(evaluate(model, encoded, answers, point), metric="agreement") for point in points]


class _Stages:
    """The trainings of a plan, one after the other; what is finished already is taken from its folder.

    Attributes:
        model: As the last stage left it.
    """

    def __init__(
        self,
        plan: CompressionPlan,
        checkpoint: Any,
        tables: dict[str, Table],
        work: Path,
        way: _Way,
        say: Say,
        *,
        quiet: bool,
    ) -> None:
        self.plan, self.checkpoint, self.train = plan, checkpoint, tables["train"]
        self.selection = tables.get("selection")
        self.work, self.way, self.say, self.quiet = work, way, say, quiet
        self.model = _copy(checkpoint)

    def stage(self, number: int) -> dict[str, Any]:
        """Carry out a stage, counted from 1; returns its record."""
        recipe, place = self.plan.stages[number - 1], self._place(number)
        if recipe.from_checkpoint:
            self.model = _copy(self.checkpoint)
        if recipe.speedup > 1:
            give_profile(self.model, self.train, recipe, self.plan.tokens, place.folder)
            self.say(f"stage {number}: {leaving(self.model, recipe)}")
        if place.reached():
            self.say(f"stage {number} is done already")
        else:
            torch.manual_seed(recipe.seed)
            try:
                training = self._train(recipe, place.folder)
            except Diverged as error:
                raise Diverged(f"stage {number}, {recipe.objective}: {error}") from None
            place.leave(self.model.transformer.state_dict(), self.model.config.form(), training)
            shutil.rmtree(place.folder / "checkpoints", ignore_errors=True)
        self.model = place.model(self.model)
        return place.training()

    def _train(self, recipe: Recipe, folder: Path) -> dict[str, Any]:
        if isinstance(recipe, Binarizing):
            self.model = binarized(self.model, recipe)
        teacher = None if recipe.teacher is None else self._place(recipe.teacher).model(self.checkpoint)
        if isinstance(recipe, Rounds):
            shapes, rounds = self.way.shapes, self.work / "rounds"
            self.model, records = remove(
                self.model, teacher, self.train, recipe, shapes, rounds, self.say, quiet=self.quiet
            )
            return _summed(records)
        return fine_tune(
            self.model,
            self.train,
            recipe,
            folder / "checkpoints",
            passes=passes_of(self.model, recipe) if recipe.speedup > 1 else None,
            teacher=teacher,
            told=turning(self.model, recipe) if isinstance(recipe, Binarizing) else None,
            judge=None if self.selection is None or not selects(recipe) else judge_of(recipe, self.selection),
            quiet=self.quiet,
        )

    def _place(self, number: int) -> Milestone:
        """Of a stage; from the one that removes parts on, models of different sizes have their own."""
        removed = any(isinstance(stage, Rounds) for stage in self.plan.stages[:number])
        return Milestone((self.work / self.way.name if removed else self.work) / f"stage-{number}")


def _copy(model: Any) -> Any:
    return with_shape(model, model.config.form(), model.transformer.state_dict())


def _summed(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One record of trainings that follow each other."""
    return records[-1] | {
        "steps": sum(record["steps"] for record in records),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "resumed": any(record["resumed"] for record in records),
        "rounds": len(records),
    }
