"""`lessen compress` of a model that classifies: options to a plan, and its outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lessen.cli.compress_results import results_of, show_results, sizes_of
from lessen.cli.output import emit, percent, say, show_promises, table
from lessen.errors import InputError


def classifier_plan(
    *,
    model: str,
    system: str,
    alone: bool,
    exits: Any,
    criterion: list[str] | None,
    tokens: dict[str, Any],
    targets: Any,
    recipe: dict[str, Any],
    promise: Any,
    seed: int,
    **sources: Any,
) -> Any:
    """The plan of a run.

    Args:
        model: What is compressed.
        system: By name.
        alone: Whether its second stage has no teacher.
        exits: An `ExitShape` for each layer with one, or None for the system's own.
        criterion: To choose among, or None for the system's own.
        tokens: Of a `TokenPlan`.
        targets: Sizes to reach.
        recipe: Options by field, None where not given; what is not said of signs stays as a model has it that
            was binary already.
        promise: What is asked of the result.
        seed: Of the split and the order of rows.
        sources: Data and columns.

    Raises:
        InputError: Naming the option that does not fit.
    """
    from lessen.loading import facts_of, latent_form_of
    from lessen.systems import system_of
    from lessen.systems.binarizing import Binarizing, as_before
    from lessen.systems.planning import plan_for

    given = {key: value for key, value in recipe.items() if value is not None}
    binarizes = any(isinstance(stage, Binarizing) for stage in system_of(system).stages)
    if binarizes and given.get("weight_bits") != 32 and (form := latent_form_of(model)) is not None:
        given = as_before(form) | given
    choices: dict[str, Any] = {"criteria": tuple(criterion or ()), "tokens": tokens, "targets": targets}
    return plan_for(
        system_of(system),
        seed=seed,
        alone=alone,
        hidden_size=facts_of(model).hidden_size,
        recipe=given,
        model=model,
        exits=exits,
        promise=promise,
        **sources,
        **{name: choice for name, choice in choices.items() if choice},
    )


def exits_of(model: str, system: str, layers: str | None, pool: str | None, hidden: int | None) -> Any:
    """An `ExitShape` for each layer named, and for the last; None where nothing is said.

    What is not said of them is as the system has it: mean pooling and one linear layer where it has no form
    of its own.

    Raises:
        InputError: Naming the option that does not fit.
    """
    if layers is None and pool is None and hidden is None:
        return None
    from lessen.loading import depth_of
    from lessen.plan import ExitShape
    from lessen.systems import system_of

    depth = depth_of(model)
    try:
        places = sorted({int(part) for part in layers.split(",")}) if layers else list(range(1, depth + 1))
    except ValueError:
        raise InputError(f"--exits {layers}: expected layer numbers such as 2,4,6") from None
    if places[0] < 1 or places[-1] > depth:
        raise InputError(f"--exits {layers}: the model has layers 1 to {depth}")
    if pool not in (None, "cls", "mean"):
        raise InputError(f"--pool {pool}: choose cls or mean")
    said = {key: value for key, value in (("pool", pool), ("hidden_size", hidden)) if value is not None}
    shape = (system_of(system).exit or ExitShape(layer=1, pool="mean")).model_copy(update=said)
    return tuple(shape.model_copy(update={"layer": place}) for place in sorted({*places, depth}))


def carry_out(plan: Any, out: Path, as_json: bool) -> None:
    """Run a plan and print what came out."""
    from lessen.systems import system_of
    from lessen.systems.pipeline import compress
    from lessen.systems.pretraining import Pretraining

    if any(isinstance(stage, Pretraining) for stage in plan.stages):
        _pretrain(plan, out, as_json)
        return
    outcomes = compress(plan, system_of(plan.system), out, say)
    places = [out] if len(outcomes) == 1 else [out / outcome.folder.name for outcome in outcomes]
    if as_json:
        facts = [results_of(outcome, place) for outcome, place in zip(outcomes, places, strict=True)]
        emit((facts[0] if len(facts) == 1 else {"sizes": facts}) | {"plan": plan.model_dump(mode="json")})
        return
    for outcome, place in zip(outcomes, places, strict=True):
        name = "" if len(outcomes) == 1 else f"{place.name}, "
        rows = f"on {outcome.rows['test']:,} rows kept aside"
        show_results(outcome.results, f"{name}{sizes_of(outcome)}; {rows}")
        show_promises(outcome.calibration)
        say(f"saved {place}; it answers at point {outcome.model.config.point!r}")


def _pretrain(plan: Any, out: Path, as_json: bool) -> None:
    """Carry out a plan without a task, and say how words are guessed."""
    from lessen.systems.pretraining import pretrain
    from lessen.systems.working import working_folder

    made = pretrain(plan, working_folder(plan, out.resolve()), out.resolve(), say)
    if as_json:
        facts = {"before": made.before, "after": made.after, "rows": made.rows, "training": made.training}
        emit({"out": str(out), **facts, "plan": plan.model_dump(mode="json")})
        return
    table(
        ["", "loss, nats a word", "guessed"],
        [
            [name, f"{found['loss']:.3f}", percent(found["accuracy"])]
            for name, found in (("before", made.before), ("after", made.after))
        ],
        f"on {made.after['words']:,} masked words of {made.rows['test']:,} texts kept aside",
    )
    say(f"saved {out}; train on with: lessen compress {out} --system beexformer --data ...")
