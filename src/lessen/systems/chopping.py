"""The stage in which whole layers leave: train a little, drop the layer that matters least, and again.

The depth-static neighbour of exits and of slimming, for comparison and for who needs one shape for all inputs
(Just CHOP in the COST-EFF page, 3a).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import mean
from typing import Any, Literal

import torch

from lessen.data.table import Table
from lessen.depth.exits import every_exit
from lessen.depth.losses import task_loss
from lessen.errors import PlanError
from lessen.plan import Shape
from lessen.progress import counting, watched
from lessen.reshaping import with_shape
from lessen.systems.rounds import Removal, Rounds, of_round, scored_batches
from lessen.width.removal import State, without_layers


class Chopping(Rounds):
    """How layers leave one by one.

    Attributes:
        parts: What is removed.
        importance: The layer that leaves is the one without which the last exit's task loss on training rows
            is lowest (`loss`), the deepest one, or a random one.
    """

    parts: Literal["depth"] = "depth"
    importance: Literal["loss", "deepest", "random"] = "loss"


def departures(
    model: Any,
    teacher: Any,
    train: Table,
    recipe: Chopping,
    targets: Sequence[Shape],
    *,
    quiet: bool = False,
) -> list[Removal]:
    """What leaves in each round, as in `Removals`: one layer. Of a target only their number is read.

    Raises:
        PlanError: When a target has more layers than the model.
    """
    count = len(model.config.form().layers) - len(targets[-1].layers)
    if count < 0:
        raise PlanError(f"the target has {-count} layers more than the model")
    return [
        partial(_without_one, train, of_round(recipe, number), quiet=quiet) for number in range(1, count + 1)
    ]


def _without_one(train: Table, recipe: Chopping, model: Any, *, quiet: bool) -> tuple[State, Shape]:
    state, shape = model.transformer.state_dict(), model.config.form()
    return without_layers(state, shape, {least_of(model, train, recipe, quiet=quiet)})


def least_of(model: Any, train: Table, recipe: Chopping, *, quiet: bool = False) -> int:
    """The place (0-based) of the layer that leaves in a round."""
    depth = len(model.config.form().layers)
    if recipe.importance == "deepest":
        return depth - 1
    if recipe.importance == "random":
        generator = torch.Generator().manual_seed(recipe.seed)
        return int(torch.randint(depth, (1,), generator=generator))
    losses = losses_without_each(model, train, recipe, quiet=quiet)
    return losses.index(min(losses))


@torch.no_grad()
def losses_without_each(model: Any, train: Table, recipe: Chopping, *, quiet: bool = False) -> list[float]:
    """The last exit's task loss on the scored rows without each of the layers.

    Raises:
        Interrupted: On Ctrl-C.
    """
    state, shape = model.transformer.state_dict(), model.config.form()
    loss = task_loss(model.problem_type)
    batches = list(scored_batches(model, train, recipe))
    losses = []
    with counting("scoring", "layers", quiet=quiet) as watch:
        for place in watched(range(len(shape.layers)), watch):
            rest, form = without_layers(state, shape, {place})
            shorter = with_shape(model, form, rest).eval()
            answers = [
                (every_exit(shorter.transformer, ids, rows, segments)[-1], labels)
                for ids, rows, segments, labels in batches
            ]
            losses.append(mean(float(loss(answer, labels)) for answer, labels in answers))
    return losses
