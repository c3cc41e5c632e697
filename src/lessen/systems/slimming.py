"""The stage in which a model gets narrower: train a little, score, remove, and again (COST-EFF page, 1.8).

Each event has a folder with what it left, so that a run that was stopped goes on from the last one, with the
same heads and neurons.
"""

from __future__ import annotations

import json
import random as chance
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from lessen.artefact import write_json
from lessen.data.table import Table
from lessen.depth.exits import every_exit
from lessen.errors import PlanError
from lessen.loading import with_shape
from lessen.model.architecture import Architecture
from lessen.model.rows import Rows
from lessen.model.transformer import Transformer
from lessen.plan import Shape, Size, parse
from lessen.runtime.text import batches, collate, encode
from lessen.train.fine_tuning import Recipe, fine_tune
from lessen.train.teaching import Teacher, scoring
from lessen.width.budget import even, rank_saves, uneven
from lessen.width.importance import AbsWeight, Scorer, SignedGroup, Worth, magnitude, random
from lessen.width.removal import Kept, State, narrowed, with_embedding_rank

Say = Callable[[str], None]

SCORERS: dict[str, Callable[[Transformer], Scorer]] = {"abs_weight": AbsWeight, "signed_group": SignedGroup}


class Slimming(Recipe):
    """How to train and remove in turns; `epochs` are those before each event.

    Attributes:
        importance: What parts are worth: first-order Taylor scores in the authors' form (`abs_weight`) or per
            row (`signed_group`), or a control.
        calibrated: Scores know all exits; off, only the last one.
        budget: As many parts in every layer (`even`), or layers compete (`uneven`).
        growth: Of the learning rate from one event to the next.
        events: How often to remove; as often as heads leave a layer if None.
        scored_rows: Training rows parts are scored on.
    """

    importance: Literal["abs_weight", "signed_group", "magnitude", "random"] = "abs_weight"
    calibrated: bool = True
    budget: Literal["even", "uneven"] = "even"
    growth: Annotated[float, Field(ge=0)] = 0.12
    events: Size | None = None
    scored_rows: Size = 2048


def slim(
    model: Any,
    teacher: Any,
    train: Table,
    recipe: Slimming,
    target: Shape,
    folder: Path,
    say: Say,
    *,
    quiet: bool = False,
) -> tuple[Any, list[dict[str, Any]]]:
    """Make a model as narrow as a target shape says.

    Args:
        model: A classifier with exits; trained in place until the first event.
        teacher: What it learns from on the way; with the same layers and exits.
        train: Labelled rows.
        recipe: How to train and what to remove.
        target: How much each layer keeps, and the rank of the token table. Which heads is not read from it.
        folder: Where work in progress is kept.
        say: Told of every event.
        quiet: No progress bars.

    Returns:
        The narrow model, and a record of each event.

    Raises:
        PlanError: When the target has other layers than the model, or more of anything.
    """
    start = model.config.form()
    _check(start, target)
    records = []
    steps = shapes_between(model.config.facts(), start, target, recipe.events)
    for number, shape in enumerate(steps, start=1):
        place = folder / f"event-{number}"
        if not (place / "done.json").exists():
            rate = recipe.learning_rate * (1 + recipe.growth) ** (number - 1)
            period = Recipe.model_validate(
                {name: getattr(recipe, name) for name in Recipe.model_fields} | {"learning_rate": rate}
            )
            torch.manual_seed(recipe.seed + number)
            trained = fine_tune(model, train, period, place / "checkpoints", teacher=teacher, quiet=quiet)
            kept = chosen(worth_of(model, teacher, train, recipe), recipe, shape, start)
            state, form = _narrowed(model, kept, shape)
            save_file(
                {name: value.contiguous() for name, value in state.items()}, place / "weights.safetensors"
            )
            write_json(place / "done.json", {"shape": form.model_dump(mode="json"), "training": trained})
            shutil.rmtree(place / "checkpoints", ignore_errors=True)
        done = json.loads((place / "done.json").read_text())
        form = parse(Shape, done["shape"], str(place / "done.json"))
        model = with_shape(model, form, load_file(place / "weights.safetensors"))
        say(f"event {number} of {len(steps)}: {describe_width(form)}")
        records.append(done)
    return model, records


def shapes_between(
    architecture: Architecture, start: Shape, target: Shape, events: int | None = None
) -> list[Shape]:
    """The shapes after each event: parts leave in equal steps, and the last shape is the target's.

    The token table is stored as a product once that makes it smaller.

    Args:
        architecture: Family facts.
        start: Before the first event.
        target: After the last one.
        events: How many; as many as heads leave the layer that loses most if None, at least one.
    """
    lost = [len(a.heads) - len(b.heads) for a, b in zip(start.layers, target.layers, strict=True)]
    count = events or max(1, *lost)

    def between(a: int, b: int, number: int) -> int:
        return b if number == count else a - (a - b) * number // count

    shapes = []
    for number in range(1, count + 1):
        layers = tuple(
            a.model_copy(
                update={
                    "heads": a.heads[: between(len(a.heads), len(b.heads), number)],
                    "intermediate_size": between(a.intermediate_size, b.intermediate_size, number),
                }
            )
            for a, b in zip(start.layers, target.layers, strict=True)
        )
        rank = start.embedding_rank
        if target.embedding_rank is not None:
            cut = between(rank or architecture.embedding_size, target.embedding_rank, number)
            rank = cut if rank_saves(architecture, cut) else rank
        shapes.append(start.model_copy(update={"layers": layers, "embedding_rank": rank}))
    return shapes


def worth_of(model: Any, teacher: Any, train: Table, recipe: Slimming) -> list[Worth]:
    """What the parts of a model are worth, as the recipe asks."""
    if recipe.importance == "magnitude":
        return magnitude(model.transformer)
    if recipe.importance == "random":
        return random(model.transformer, recipe.seed)
    count = min(recipe.scored_rows, len(train))
    if count > recipe.batch_size:
        count -= count % recipe.batch_size
    rows = chance.Random(recipe.seed).sample(range(len(train)), count)
    limit = min(recipe.max_tokens, model.config.facts().max_tokens)
    encoded = encode(model.tokenizer, train.take(rows).texts, limit)
    assert train.labels is not None
    labels = torch.tensor([train.labels[row] for row in rows])
    model.eval()
    scorer = SCORERS[recipe.importance](model.transformer)
    guide = Teacher(teacher, model.config.form())
    for batch in batches(encoded, recipe.batch_size):
        ids, layout, segments = collate([encoded[i] for i in batch], model.device)
        truth = labels[batch].to(model.device)
        scorer.add(layout, partial(_scored, model, guide, recipe, ids, layout, segments, truth))
    return scorer.worth()


def _scored(
    model: Any,
    guide: Teacher,
    recipe: Slimming,
    ids: Tensor,
    rows: Rows,
    segments: Tensor | None,
    labels: Tensor,
) -> Tensor:
    """The loss parts are scored by, of one batch: of all exits, or of the last one alone.

    With one exit left, gradient equilibrium would only shrink what shallow layers get (page, 1.12: 4).
    """
    states: list[Tensor] = []
    even_gradients = recipe.equilibrium and recipe.calibrated
    answers = every_exit(model.transformer, ids, rows, segments, equilibrium=even_gradients, states=states)
    lesson = guide.lesson(ids, rows, segments, answers, states, labels)
    if not recipe.calibrated:
        last = {name: getattr(lesson, name)[-1:] for name in ("answers", "taught", "states", "shown")}
        lesson = replace(lesson, **last)
    return scoring(lesson)


def chosen(worth: list[Worth], recipe: Slimming, shape: Shape, start: Shape) -> list[Kept]:
    """What stays of each layer so that there is as much as in `shape`."""
    heads = [len(layer.heads) for layer in shape.layers]
    neurons = [layer.intermediate_size for layer in shape.layers]
    if recipe.budget == "uneven":
        above = [sum(depth > place for depth in start.exit_layers) for place in range(len(shape.layers))]
        undo = recipe.equilibrium and recipe.calibrated and recipe.importance in SCORERS
        return uneven(worth, sum(heads), sum(neurons), above if undo else None)
    return [even([layer], count, width)[0] for layer, count, width in zip(worth, heads, neurons, strict=True)]


def _narrowed(model: Any, kept: list[Kept], shape: Shape) -> tuple[State, Shape]:
    state, form = narrowed(
        model.transformer.state_dict(), model.config.form(), kept, model.config.facts().head_dim
    )
    if shape.embedding_rank is not None and shape.embedding_rank != form.embedding_rank:
        state, form = with_embedding_rank(state, form, shape.embedding_rank)
    return state, form


def _check(start: Shape, target: Shape) -> None:
    if [layer.layer for layer in start.layers] != [layer.layer for layer in target.layers]:
        raise PlanError("the target shape has other layers than the model")
    for a, b in zip(start.layers, target.layers, strict=True):
        if len(b.heads) > len(a.heads) or b.intermediate_size > a.intermediate_size:
            raise PlanError(f"layer {a.layer} of the target shape is wider than the model's")


def describe_width(shape: Shape) -> str:
    """Heads and neurons a layer, and the embedding's rank, in words."""
    heads = sorted({len(layer.heads) for layer in shape.layers})
    neurons = sorted({layer.intermediate_size for layer in shape.layers})
    rank = "" if shape.embedding_rank is None else f", embedding rank {shape.embedding_rank}"
    return f"{_span(heads)} heads and {_span(neurons)} neurons a layer{rank}"


def _span(values: list[int]) -> str:
    return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"
