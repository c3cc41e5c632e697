"""Training and removing in turns: train a little, take something out for good, and again.

Each round has a folder with what it left, so that a run that was stopped goes on from the last one, with the
same parts.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from lessen.data.table import Table
from lessen.model.rows import Rows
from lessen.plan import Shape, Size
from lessen.runtime.text import batches, collate, encode
from lessen.systems.milestone import Milestone
from lessen.systems.working import Say
from lessen.train.fine_tuning import Recipe, fine_tune
from lessen.width.removal import State

Removal = Callable[[Any], tuple[State, Shape]]
"""Takes a trained model; returns the tensors that stay and their Shape."""


class Removals(Protocol):
    """What each round takes out of a model with the recipe `of_round`, so that it passes through the targets.

    Of these each is smaller than the one before. With `quiet` nothing shows how far scoring is.
    """

    def __call__(
        self,
        model: Any,
        teacher: Any,
        train: Table,
        recipe: Any,
        targets: Sequence[Shape],
        *,
        quiet: bool = False,
    ) -> list[Removal]: ...


SEEDS_APART = 1_000
"""From one round to the next, so that runs of neighbouring seeds share none."""

Batch = tuple[Tensor, Rows, Tensor | None, Tensor]
"""Token ids, layout, segments and labels of some rows, the labels in their order."""


class Rounds(Recipe):
    """How to train and remove in turns; `epochs` are those before each removal.

    Attributes:
        growth: Of the learning rate from one round to the next.
        scored_rows: Training rows parts are scored on.
    """

    growth: Annotated[float, Field(ge=0)] = 0.12
    scored_rows: Size = 2048


AnyRounds = TypeVar("AnyRounds", bound=Rounds)


def of_round(recipe: AnyRounds, number: int) -> AnyRounds:
    """The recipe of a round, from 1: with its learning rate, and a seed of its own.

    A round trains on a part of an epoch and scores on a sample: with one seed all would see the same rows.
    """
    rate = recipe.learning_rate * (1 + recipe.growth) ** (number - 1)
    return recipe.model_copy(update={"learning_rate": rate, "seed": recipe.seed + SEEDS_APART * number})


def in_rounds(
    model: Any,
    teacher: Any,
    train: Table,
    recipe: Rounds,
    removals: Sequence[Removal],
    folder: Path,
    say: Say,
    *,
    quiet: bool = False,
) -> tuple[Any, list[dict[str, Any]]]:
    """Train, remove, and again.

    Args:
        model: A classifier with exits; trained in place until the first removal.
        teacher: What it learns from on the way.
        train: Labelled rows.
        recipe: How to train.
        removals: One for each round.
        folder: Where work in progress is kept, `round-1` and so on.
        say: Told of every round.
        quiet: No progress bars.

    Returns:
        What is left of the model, and a record of each round's training.
    """
    places = [Milestone(folder / f"round-{number}") for number in range(1, len(removals) + 1)]
    done = len(list(itertools.takewhile(Milestone.reached, places)))
    if done:
        model = places[done - 1].model(model)
        say(f"{done} of {len(removals)} rounds are done already: {model.config.form().in_words()}")
    for number in range(done + 1, len(removals) + 1):
        place = places[number - 1]
        now = of_round(recipe, number)
        period = Recipe.model_validate({name: getattr(now, name) for name in Recipe.model_fields})
        work = place.folder / "checkpoints"
        trained = fine_tune(model, train, period, work, teacher=teacher, quiet=quiet)
        place.leave(*removals[number - 1](model), trained)
        shutil.rmtree(work, ignore_errors=True)
        model = place.model(model)
        say(f"round {number} of {len(removals)}: {model.config.form().in_words()}")
    return model, [place.training() for place in places]


def scored_batches(model: Any, train: Table, recipe: Rounds) -> Iterator[Batch]:
    """Training rows in batches, cut as in training; full batches only, if there are so many rows.

    Which ones is drawn by the recipe's seed: of a round others than of the one before.
    """
    count = min(recipe.scored_rows, len(train))
    if count > recipe.batch_size:
        count -= count % recipe.batch_size
    rows = random.Random(recipe.seed).sample(range(len(train)), count)
    limit = min(recipe.max_tokens, model.config.facts().max_tokens)
    encoded = encode(model.tokenizer, train.take(rows).texts, limit)
    assert train.labels is not None
    labels = torch.tensor([train.labels[row] for row in rows])
    for batch in batches(encoded, recipe.batch_size):
        ids, layout, segments = collate([encoded[i] for i in batch], model.device)
        yield ids, layout, segments, labels[batch].to(model.device)
