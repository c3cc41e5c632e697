"""The stage in which parts leave for good: rounds of training and removing, then low rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lessen.data.table import Table
from lessen.plan import Shape
from lessen.systems.chopping import Chopping, departures
from lessen.systems.rounds import Removals, Rounds, in_rounds
from lessen.systems.slimming import Slimming, factorized, narrowings
from lessen.systems.working import Say

REMOVALS: dict[type[Rounds], Removals] = {Slimming: narrowings, Chopping: departures}
"""What says which parts leave, by the kind of stage."""


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
    removals = REMOVALS[type(recipe)](model, teacher, train, recipe, targets, quiet=quiet)
    model, records = in_rounds(model, teacher, train, recipe, removals, folder, say, quiet=quiet)
    if isinstance(recipe, Slimming):
        model = factorized(model, train, recipe, targets[-1], quiet=quiet)
    return model, records
