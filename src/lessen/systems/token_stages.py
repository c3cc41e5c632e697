"""Stages in which tokens leave: measure a retention profile, solve it for a speed-up, train at it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from lessen.artefact import read_json, write_json
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.plan import Fraction, ProfileFamily, RetentionProfile, TokenScore
from lessen.records import Strict, parse
from lessen.runtime.retention import MASS, alpha_for, measured_profile, most_reached, speedup_at, typical
from lessen.runtime.text import Encoded, encode
from lessen.tokens.passes import WAYS, Passes
from lessen.train.fine_tuning import Recipe

ROWS = 1000
"""Training rows a profile is measured on."""

PROFILE = "profile.json"

NEARLY = 0.9
"""Of the most that short rows can reach: to train as far as that, and no further."""


class TokenPlan(Strict):
    """How tokens are to leave.

    Attributes:
        score: What those that stay are chosen by.
        family: Of the retention profile. `acc` measures it, shares compounding twice over layers;
            `envelope` measures it and takes shares as they are; the others need no rows.
        mass: Share of the attention whose holders stay at alpha 1, where it is measured.
        base: `explicit`: share of tokens that leaves each layer, as it is if no speed-up was asked for.
    """

    score: TokenScore = "mean"
    family: ProfileFamily = "acc"
    mass: Annotated[float, Field(gt=0, lt=1)] = MASS
    base: tuple[Fraction, ...] | None = None

    @model_validator(mode="after")
    def _base_where_needed(self) -> TokenPlan:
        if (self.base is not None) != (self.family == "explicit"):
            raise ValueError("base belongs to the family explicit, and to that one only")
        return self


def check_tokens(model: Any, train: Table, recipe: Recipe, plan: TokenPlan) -> None:
    """Refuse what a stage in which tokens leave could not do, before anything is trained.

    Raises:
        InputError: When an explicit retention has not a share for each layer.
        PlanError: When the speed-up is beyond what rows of these lengths allow; the message names what is.
    """
    layers = model.transformer.depth
    if plan.base is not None and len(plan.base) != layers:
        raise InputError(f"--retention: {len(plan.base)} shares for a model of {layers} layers")
    lengths = typical([len(row.ids) for row in _sample(model, train, recipe)])
    family = "geometric" if plan.base is None else "explicit"  # any will do where shares are measured
    given = {"family": family, "base": plan.base or (0.5,) * layers, "lengths": lengths}
    profile = parse(RetentionProfile, given, "--retention")
    speedup = speedup_for(model, profile, recipe)
    if speedup <= 1:
        raise InputError(f"no token would leave: {_why_none_leaves(plan, lengths)}")
    alpha_for(model.transformer, profile, speedup)


def _why_none_leaves(plan: TokenPlan, lengths: Sequence[int]) -> str:
    if plan.base is not None:
        return "give shares below 1 to --retention"
    return f"rows have {max(lengths)} tokens at most, and of these too many always stay; give longer texts"


def speedup_for(model: Any, profile: RetentionProfile, recipe: Recipe) -> float:
    """The speed-up a stage trains for: the one asked for; else what shares that were given come to, or what
    the recipe says, or nearly what rows allow if that is less."""
    if not recipe.as_far_as_rows_allow:
        return recipe.speedup
    if profile.family == "explicit":
        return speedup_at(model.transformer, profile, 1.0)
    return min(recipe.speedup, max(1.0, NEARLY * most_reached(model.transformer, profile)))


def give_profile(model: Any, train: Table, recipe: Recipe, plan: TokenPlan, folder: Path) -> None:
    """Put a retention profile on a model; the one of an earlier run of the same stage if there is one.

    Args:
        model: A classifier, or what writes; it gets `config.profile`.
        train: The training rows.
        recipe: Of the stage.
        plan: How tokens are to leave.
        folder: Of the stage; the profile is noted there, so that a resumed run goes on with the same one.
    """
    place = folder / PROFILE
    if place.exists():
        raw = read_json(place, "delete it, and it is measured again")
        profile = parse(RetentionProfile, raw, str(place))
    else:
        profile = _made(model, train, recipe, plan)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(place, profile.model_dump(mode="json"))
    model.config.profile = profile.model_dump(mode="json")


def leaving(model: Any, recipe: Recipe) -> str:
    """How tokens leave in a stage, in words."""
    profile = model.config.retention_profile()
    most = most_reached(model.transformer, profile)
    ways = {"one": "always at", "drawn": "at a ratio drawn up to", "sandwich": "at several ratios up to"}
    return (
        f"tokens leave by {profile.score}, profile {profile.family}, {ways[recipe.rates]} "
        f"{profile.trained_at:.3g}x fewer MACs (rows as long as these allow {most:.2f}x)"
    )


def passes_of(model: Any, recipe: Recipe) -> Passes:
    """What takes tokens away while a stage trains: as far as the model's profile says.

    Raises:
        PlanError: When the speed-up cannot be reached.
    """
    profile = model.config.retention_profile()
    speedup = profile.trained_at or speedup_for(model, profile, recipe)
    alpha = alpha_for(model.transformer, profile, speedup)
    inner = model.transformer
    return WAYS[recipe.rates](profile, alpha, inner.shape, inner.architecture)


def _sample(model: Any, train: Table, recipe: Recipe) -> list[Encoded]:
    rows = random.Random(recipe.seed).sample(range(len(train)), min(ROWS, len(train)))
    limit = min(recipe.max_tokens, model.config.facts().max_tokens)
    return encode(model.tokenizer, train.take(rows).texts, limit)


def _made(model: Any, train: Table, recipe: Recipe, plan: TokenPlan) -> RetentionProfile:
    """Measured where the family is; of the others the base is given, or only its length counts."""
    encoded = _sample(model, train, recipe)
    if plan.family in ("acc", "envelope"):
        made = measured_profile(
            model.transformer.eval(),
            encoded,
            score=plan.score,
            mass=plan.mass,
            envelope=plan.family == "envelope",
        )
    else:
        given = {
            "family": plan.family,
            "base": plan.base or (1.0,) * model.transformer.depth,
            "score": plan.score,
            "lengths": typical([len(row.ids) for row in encoded]),
        }
        made = parse(RetentionProfile, given, "--retention")
    return made.model_copy(update={"trained_at": speedup_for(model, made, recipe)})
