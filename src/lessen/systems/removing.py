"""The stage in which parts leave for good: rounds of training and removing, then low rank.

The only place that knows how each kind of such stages removes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessen.data.table import Table
from lessen.errors import PlanError
from lessen.plan import Shape
from lessen.systems.chopping import Chopping, departures
from lessen.systems.rounds import Removals, Rounds, in_rounds
from lessen.systems.slimming import Slimming, factorized, narrowings
from lessen.systems.target import Target, narrow_shape, shallow_shape
from lessen.systems.working import Say


@dataclass(frozen=True)
class Kind:
    """How one kind of stage makes a model smaller.

    Attributes:
        shape: The largest one within a target, of a model and by a recipe; raises PlanError if there is none.
        removals: What leaves in each round.
        finish: What becomes of the model that is left, by training rows, a recipe and the last target.
    """

    shape: Callable[[Any, Target, Any], Shape]
    removals: Removals
    finish: Callable[..., Any] | None = None


KINDS: dict[type[Rounds], Kind] = {
    Slimming: Kind(
        lambda model, target, recipe: narrow_shape(model, target, recipe.rank), narrowings, factorized
    ),
    Chopping: Kind(lambda model, target, _: shallow_shape(model, target), departures),
}


def shape_within(model: Any, target: Target, recipe: Rounds) -> Shape:
    """The largest shape within a target that a stage can make of a model.

    Raises:
        PlanError: When there is none; the message names the target, and what is within reach.
    """
    try:
        return KINDS[type(recipe)].shape(model, target, recipe)
    except PlanError as error:
        raise PlanError(f"target {target}: {error}") from None


def remove(
    model: Any,
    teacher: Any,
    train: Table,
    recipe: Rounds,
    targets: Sequence[Shape],
    folder: Path,
    say: Say,
    *,
    quiet: bool = False,
) -> tuple[Any, list[dict[str, Any]]]:
    """Make a model as small as the last target says, by way of the others.

    Args:
        model: A classifier with exits; trained in place until the first removal.
        teacher: What it learns from on the way; with at least the same layers and exits.
        train: Labelled rows.
        recipe: How to train, and what to remove.
        targets: How much is to be left, each smaller than the one before.
        folder: Where work in progress is kept; what rounds left there for a larger target is used.
        say: Told of every round.
        quiet: No progress bars.

    Returns:
        What is left of the model, and a record of each round's training.

    Raises:
        PlanError: When a target is not smaller than what is there then.
    """
    kind = KINDS[type(recipe)]
    removals = kind.removals(model, teacher, train, recipe, targets, quiet=quiet)
    model, records = in_rounds(model, teacher, train, recipe, removals, folder, say, quiet=quiet)
    if kind.finish is not None:
        model = kind.finish(model, train, recipe, targets[-1], quiet=quiet)
    return model, records
