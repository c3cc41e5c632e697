"""What a `compress` run decides before it starts: stages, rows and wishes, and whether they fit together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Discriminator, Field, Tag, model_validator

from lessen.depth.criteria import CRITERIA, criteria_for
from lessen.errors import InputError, PlanError
from lessen.plan import ExitShape
from lessen.promise.settle import Asked
from lessen.records import Seed, Strict, parse
from lessen.systems import SYSTEMS
from lessen.systems.binarizing import Binarizing
from lessen.systems.chopping import Chopping
from lessen.systems.pretraining import Pretraining
from lessen.systems.rounds import Rounds
from lessen.systems.selecting import selects
from lessen.systems.slimming import Slimming
from lessen.systems.system import System
from lessen.systems.target import Target
from lessen.systems.token_stages import TokenPlan
from lessen.train.fine_tuning import Recipe
from lessen.train.objectives import OBJECTIVES
from lessen.train.teaching import DISTILLATIONS

Share = Annotated[float, Field(gt=0, lt=0.5)]


class Columns(Strict):
    """Which columns of the data hold what; found by their usual names where None."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None
    task: Literal["classification", "multi-label", "regression"] | None = None


def _parts_of(stage: Any) -> str:
    return stage.get("parts", "none") if isinstance(stage, dict) else getattr(stage, "parts", "none")


Stage = Annotated[
    Annotated[Recipe, Tag("none")]
    | Annotated[Slimming, Tag("width")]
    | Annotated[Chopping, Tag("depth")]
    | Annotated[Binarizing, Tag("bits")]
    | Annotated[Pretraining, Tag("words")],
    Discriminator(_parts_of),
]
"""A training, or one in which parts are removed, or become binary, or without a task."""


class CompressionPlan(Strict):
    """Everything a `compress` run decides.

    With several `targets` one run makes a model of each size, a smaller one out of the one before. `shares`
    of the data are kept aside where no files are named: to make exit rules from (`tune`), to test promises on
    (`calibration`), and for the final figures (`test`); and, where there is a `selection_share`, to select
    the best step of a training on, of those where that is possible (`systems/selecting.py`).
    """

    version: Literal[1] = 1
    model: str
    data: str
    tune_data: str | None = None
    calibration_data: str | None = None
    test_data: str | None = None
    columns: Columns = Columns()
    system: str
    stages: tuple[Stage, ...]
    exits: tuple[ExitShape, ...] | None = None
    criteria: tuple[str, ...]
    tokens: TokenPlan = TokenPlan()
    targets: tuple[Target, ...] = ()
    promise: Asked = Asked()
    tune_share: Share = 0.1
    calibration_share: Share = 0.15
    test_share: Share = 0.1
    selection_share: Share | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _stages_fit(self) -> CompressionPlan:
        for number, stage in enumerate(self.stages, start=1):
            if stage.teacher is not None and stage.teacher >= number:
                raise ValueError(f"stage {number} learns from stage {stage.teacher}, which is not before it")
            if stage.objective in DISTILLATIONS and stage.teacher is None:
                raise ValueError(f"stage {number}: objective {stage.objective} needs a teacher")
            if isinstance(stage, Slimming):
                self._check_scores(number, stage)
        if sum(isinstance(stage, Rounds) for stage in self.stages) != bool(self.targets):
            raise ValueError("targets need one stage that removes parts, and such a stage needs targets")
        if any(isinstance(stage, Pretraining) for stage in self.stages) and len(self.stages) > 1:
            raise ValueError("masked words are a training of their own; train on from its folder")
        if self.selection_share is not None and not any(map(selects, self.stages)):
            raise ValueError(f"in {self.system} the last step of every stage is its result; none is selected")
        return self

    def _check_scores(self, number: int, stage: Slimming) -> None:
        if not stage.calibrated and stage.importance in ("magnitude", "random"):
            raise ValueError(
                f"stage {number}: {stage.importance} scores know no exit: leave --last-exit-only out"
            )
        if stage.budget == "uneven" and stage.equilibrium and self.exits is not None:
            layers = [exit.layer for exit in self.exits]
            if layers != list(range(1, max(layers) + 1)):
                raise ValueError(
                    f"stage {number}: layers compete for parts only where each has an exit; leave exits out, "
                    "or the budget even"
                )


def plan_for(
    system: System,
    *,
    seed: int,
    recipe: dict[str, Any],
    alone: bool = False,
    hidden_size: int = 0,
    **choices: Any,
) -> CompressionPlan:
    """The plan of a system with the user's choices; `recipe` changes every stage.

    Of it `speedup` and `rates` change only the stages in which tokens leave, and what belongs to a kind of
    stage only those of that kind. Epochs and learning rate are those of the first stage; the others change in
    proportion. With `alone` binary weights learn from the labels instead of a teacher. `hidden_size` is the
    model's, on which learning rates may depend.

    Raises:
        InputError: When the system has no such stage, or an option's value makes no sense.
        PlanError: When choices do not fit together.
    """
    choices = {"criteria": system.criteria} | choices
    if alone and not any(isinstance(stage, Binarizing) and stage.teacher for stage in system.stages):
        raise InputError(f"in {system.name} binary weights have no teacher anyway; --alone is for binarize")
    if system.name == "masked-words":
        _check_there_is_no_task(choices)
    of_tokens = {key: value for key, value in recipe.items() if key in ("speedup", "rates")}
    if not 1 < of_tokens.get("speedup", 2) < math.inf:
        raise InputError(
            f"--speedup {of_tokens['speedup']:g}: no token would leave; give a ratio above 1, or use "
            "--system early-exit"
        )
    if "speedup" in of_tokens:
        of_tokens["as_far_as_rows_allow"] = False
    if (of_tokens or "tokens" in choices) and not any(stage.speedup > 1 for stage in system.stages):
        raise InputError(f"in {system.name} no tokens leave; use the system latency-adjustable")
    removes = [stage for stage in system.stages if isinstance(stage, Rounds)]
    if choices.get("targets") and not removes:
        raise InputError(f"{system.name} leaves every part of a layer; use the system cost-eff or layer-chop")
    if removes and not choices.get("targets"):
        raise InputError(f"{system.name} needs a size to reach: --params 1/4, or --size 12MB")
    special = {key: value for key, value in recipe.items() if key not in Recipe.model_fields}
    for key, value in special.items():
        _check_choice(system, key, value)
    if "objective" in recipe and any(stage.teacher for stage in system.stages):
        raise InputError(f"every stage of {system.name} has an objective of its own; leave --objective out")
    of_all = {key: value for key, value in recipe.items() if key not in {**of_tokens, **special}}
    if "epochs" in of_all:
        of_all["rows"] = None
    first, *_ = usual = system.stages_for(hidden_size)
    stages: list[Recipe] = []
    for stage in usual:
        own = {
            field: value * getattr(stage, field) / getattr(first, field)
            for field, value in of_all.items()
            if field in ("epochs", "learning_rate")
        }
        if stage.speedup > 1:
            own |= of_tokens
        own |= {key: value for key, value in special.items() if key in type(stage).model_fields}
        if alone and isinstance(stage, Binarizing):
            own |= {"teacher": None, "objective": "depth_weighted"}
        fields = stage.model_dump() | {"seed": seed, **of_all} | own
        with naming_options(recipe | {"seed": seed}):
            stages.append(parse(type(stage), fields, f"plan: stages[{len(stages)}]"))
    with naming_options(choices):
        return parse(
            CompressionPlan, {"system": system.name, "stages": stages, "seed": seed, **choices}, "plan"
        )


OPTIONS = {
    "calibrated": "--last-exit-only",
    "budget": "--uneven",
    "layers": "--binary-layers",
    "embedding": "--float-embedding",
}
"""What sets a field, where it is not named like it."""


def option_of(field: str) -> str:
    """The option that sets a field of a stage."""
    return OPTIONS.get(field, f"--{field.replace('_', '-')}")


@contextmanager
def naming_options(given: Mapping[str, Any]) -> Iterator[None]:
    """Where a number or a word that the user gave by an option is refused, the message names the option.

    Args:
        given: Values by the fields they are for; what was made of one of them is not called by its option.

    Raises:
        InputError: In place of the PlanError.
    """
    try:
        yield
    except PlanError as error:
        asked = given.get(error.field)
        values = asked if isinstance(asked, tuple) else (asked,)
        plain = all(isinstance(value, int | float | str) for value in values)
        if not plain or not any(value == error.found or value != value for value in values):
            raise
        said = ",".join(f"{value:g}" if isinstance(value, float) else f"{value}" for value in values)
        raise InputError(f"{option_of(error.field)} {said}: {error.problem.removeprefix('Input ')}") from None


def _check_choice(system: System, key: str, value: Any) -> None:
    """Refuse what belongs to a kind of stage that the system has not, or that this kind does not know."""
    option = option_of(key)
    fields = [type(stage).model_fields[key] for stage in system.stages if key in type(stage).model_fields]
    if not fields:
        having = [s.name for s in SYSTEMS.values() if any(key in type(x).model_fields for x in s.stages)]
        raise InputError(f"{option}: {system.name} has no such choice; it belongs to {', '.join(having)}")
    known = get_args(fields[0].annotation)
    if get_origin(fields[0].annotation) is Literal and value not in known:
        raise InputError(f"{option} {value}: {system.name} knows {', '.join(map(str, known))}")


def _check_there_is_no_task(choices: dict[str, Any]) -> None:
    asked = choices.get("promise", Asked()) != Asked()
    names = ("exits", "tune_data", "calibration_data", "test_data")
    if asked or choices["criteria"] or any(choices.get(name) is not None for name in names):
        raise InputError(
            "masked-words reads plain text and has no task: no exits, promises, or rows to tune or test on"
        )


def check_names(plan: CompressionPlan) -> None:
    """Refuse a plan that names an objective or criterion there is not, before any work is done.

    Raises:
        InputError: Naming it and the known ones.
    """
    for stage in plan.stages:
        if not isinstance(stage, Pretraining) and stage.objective not in {**OBJECTIVES, **DISTILLATIONS}:
            known = ", ".join({**OBJECTIVES, **DISTILLATIONS})
            raise InputError(f"unknown objective {stage.objective!r}; one of {known}")
        if stage.objective == "self_supervised" and stage.train_backbone:
            raise InputError(
                "objective self_supervised teaches exits what a model that stays as it is answers; "
                "use the system self-exit"
            )
    for criterion in plan.criteria:
        if criterion not in CRITERIA:
            raise InputError(f"unknown exit criterion {criterion!r}; one of {', '.join(CRITERIA)}")


def check_task(plan: CompressionPlan, system: System, kind: str | None) -> None:
    """Refuse a plan that cannot work for the task, before any work is done.

    Raises:
        InputError: Naming what does not fit.
    """
    fitting = criteria_for(kind or "single_label_classification")
    if plan.criteria != system.criteria and kind is not None:
        for criterion in plan.criteria:
            if criterion not in fitting:
                raise InputError(
                    f"exit criterion {criterion!r} does not fit {kind}; use {', '.join(fitting)}"
                )
    if kind == "regression" and plan.promise.loss != "drop":
        raise InputError(f"loss {plan.promise.loss!r} does not fit regression; use drop")
    if plan.exits is not None and len(plan.exits) < 2 and not plan.stages[-1].train_backbone:
        raise InputError(f"{plan.system} trains exits before the last layer; name at least one with --exits")
