"""The stage in which a model gets narrower: train a little, score, remove, and again (COST-EFF page, 1.8)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from lessen.data.table import Table
from lessen.depth.exits import every_exit
from lessen.errors import PlanError
from lessen.model.architecture import Architecture
from lessen.model.transformer import Transformer
from lessen.plan import LayerShape, Shape, Size
from lessen.progress import counting, watched
from lessen.reshaping import with_shape
from lessen.systems.rounds import Batch, Removal, Rounds, of_round, scored_batches
from lessen.train.fine_tuning import in_training_precision
from lessen.train.teaching import Teacher, scoring
from lessen.width.budget import encoder_of, even, in_products, products_within, rank_saves, uneven
from lessen.width.importance import AbsWeight, Scorer, SignedGroup, Worth, magnitude, random
from lessen.width.moments import second_moments
from lessen.width.removal import State, Units, narrowed, with_embedding_rank, with_ranks

SCORERS: dict[str, Callable[[Transformer], Scorer]] = {"abs_weight": AbsWeight, "signed_group": SignedGroup}


class Slimming(Rounds):
    """How heads and neurons leave every layer in turns.

    Attributes:
        parts: What is removed.
        importance: What parts are worth: first-order Taylor scores in the authors' form (`abs_weight`) or per
            row (`signed_group`), or a control.
        calibrated: Scores know all exits; off, only the last one.
        budget: As many parts in every layer (`even`), or layers compete (`uneven`).
        rounds: How often to remove; if None, `rounds_for_a_head` times for each head that leaves a layer, or
            for neurons of a head's share.
        rounds_for_a_head: Where `rounds` does not say how many there are.
        rank: In the end matrices of attention and feed-forward become products of this share of their rank,
            where that is smaller; None: they stay whole.
    """

    parts: Literal["width"] = "width"
    importance: Literal["abs_weight", "signed_group", "magnitude", "random"] = "abs_weight"
    calibrated: bool = True
    budget: Literal["even", "uneven"] = "even"
    rounds: Size | None = None
    rounds_for_a_head: Size = 1
    rank: Annotated[float | None, Field(gt=0, lt=1)] = None


def narrowings(
    model: Any,
    teacher: Any,
    train: Table,
    recipe: Slimming,
    targets: Sequence[Shape],
    *,
    quiet: bool = False,
) -> list[Removal]:
    """What leaves in each round, as in `Removals`: heads and neurons, and ranks of the token table.

    Of a target only counts are read, not which heads.

    Raises:
        PlanError: When a target has other layers than the model, or more of anything than what is there then.
    """
    here, steps = model.config.form(), []
    for target in targets:
        _check(here, target)
        steps += shapes_between(
            model.config.facts(), here, target, recipe.rounds, for_a_head=recipe.rounds_for_a_head
        )
        here = target
    return [
        partial(_narrowed, teacher, train, of_round(recipe, number), shape, quiet=quiet)
        for number, shape in enumerate(steps, 1)
    ]


def _narrowed(
    teacher: Any, train: Table, recipe: Slimming, shape: Shape, model: Any, *, quiet: bool
) -> tuple[State, Shape]:
    facts = model.config.facts()
    worth = worth_of(model, teacher, train, recipe, quiet=quiet)
    kept = chosen(worth, recipe, shape, facts.shared_heads)
    state, form = narrowed(facts, model.transformer.state_dict(), model.config.form(), kept)
    if shape.embedding_rank is not None and shape.embedding_rank != form.embedding_rank:
        state, form = with_embedding_rank(state, form, shape.embedding_rank)
    return state, form


def factorized(model: Any, train: Table, recipe: Slimming, target: Shape, *, quiet: bool = False) -> Any:
    """The model with matrices as products, nearest in what they put out on training rows.

    Ranks are of what each layer kept, with as many weights in all as the target has at most. Where the recipe
    asks for none, products it came with that save nothing any more are multiplied out.
    """
    facts, outputs, form = model.config.facts(), model.config.num_labels, model.config.form()
    if recipe.rank is None:
        ranks = [in_products(facts, layer, 1.0).rank for layer in form.layers]
        if ranks == [layer.rank for layer in form.layers]:
            return model
        state, form = with_ranks(model.transformer.state_dict(), form, ranks)
        return with_shape(model, form, state)
    limit = encoder_of(facts, target, outputs)
    ranks = products_within(facts, form, outputs, recipe.rank, limit)
    model.eval()
    sample = [batch[:3] for batch in scored_batches(model, train, recipe)]
    with counting("ranks", "batches", quiet=quiet) as watch:
        moments = second_moments(model.transformer, watched(sample, watch))
    state, form = with_ranks(model.transformer.state_dict(), form, ranks, moments)
    return with_shape(model, form, state)


def shapes_between(
    architecture: Architecture,
    start: Shape,
    target: Shape,
    rounds: int | None = None,
    *,
    for_a_head: int = 1,
) -> list[Shape]:
    """The shapes after each round: parts leave in equal steps, and the last shape is the target's.

    The token table is stored as a product once that makes it smaller.

    Args:
        architecture: Family facts.
        start: Before the first round.
        target: After the last one.
        rounds: How many; if None, as many as heads leave the layer that loses most, or shares of neurons
            as large as go with a head, times `for_a_head`, at least one.
        for_a_head: Rounds for each.
    """
    count = rounds or max(1, for_a_head * max(map(_heads_worth, start.layers, target.layers)))

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


def _heads_worth(start: LayerShape, target: LayerShape) -> int:
    """Heads that leave a layer, or neurons in shares of as many as each head has, whichever are more."""
    share = start.intermediate_size / max(1, len(start.heads))
    shares = (start.intermediate_size - target.intermediate_size) / share if share else 0
    return max(len(start.heads) - len(target.heads), math.ceil(shares - 0.5))


def worth_of(model: Any, teacher: Any, train: Table, recipe: Slimming, *, quiet: bool = False) -> list[Worth]:
    """What the parts of a model are worth, as the recipe asks.

    Raises:
        Interrupted: On Ctrl-C.
    """
    if recipe.importance == "magnitude":
        return magnitude(model.transformer)
    if recipe.importance == "random":
        return random(model.transformer, recipe.seed)
    model.eval()
    scorer = SCORERS[recipe.importance](model.transformer)
    guide = Teacher(teacher, model.config.form())
    sample = list(scored_batches(model, train, recipe))
    with counting("scoring", "batches", quiet=quiet) as watch:
        for batch in watched(sample, watch):
            scorer.add(batch[1], partial(_scored, model, guide, recipe, batch))
    return scorer.worth()


def _scored(model: Any, guide: Teacher, recipe: Slimming, batch: Batch) -> Tensor:
    """The loss parts are scored by, of one batch: of all exits, or of the last one alone.

    With one exit left, gradient equilibrium would only shrink what shallow layers get (page, 1.12: 4).
    Computed as a training step is: in bfloat16 scores take half the time and rank parts the same but for
    ties.
    """
    ids, rows, segments, labels = batch
    states: list[Tensor] = []
    equilibrium = recipe.equilibrium and recipe.calibrated
    with in_training_precision(model.device):
        answers = every_exit(model.transformer, ids, rows, segments, equilibrium=equilibrium, states=states)
        matched = guide.matched(ids, rows, segments, answers, states, labels)
        if not recipe.calibrated:
            last = {name: getattr(matched, name)[-1:] for name in ("answers", "taught", "states", "shown")}
            matched = replace(matched, **last)
        return scoring(matched)


def chosen(worth: list[Worth], recipe: Slimming, shape: Shape, shared: int = 1) -> list[Units]:
    """What stays of each layer so that there is as much as in `shape`; `shared` heads stay or go together."""
    heads = [len(layer.heads) for layer in shape.layers]
    neurons = [layer.intermediate_size for layer in shape.layers]
    if recipe.budget == "uneven":
        above = [sum(depth > place for depth in shape.exit_layers) for place in range(len(shape.layers))]
        undo = recipe.equilibrium and recipe.calibrated and recipe.importance in SCORERS
        return uneven(worth, sum(heads), sum(neurons), above if undo else None, shared=shared)
    return [
        even([layer], count, width, shared)[0]
        for layer, count, width in zip(worth, heads, neurons, strict=True)
    ]


def _check(start: Shape, target: Shape) -> None:
    if [layer.layer for layer in start.layers] != [layer.layer for layer in target.layers]:
        raise PlanError("the target shape has other layers than the model")
    for a, b in zip(start.layers, target.layers, strict=True):
        if len(b.heads) > len(a.heads) or b.intermediate_size > a.intermediate_size:
            raise PlanError(f"layer {a.layer} of the target shape is wider than the model's")
    if start.embedding_rank is not None and (target.embedding_rank or math.inf) > start.embedding_rank:
        raise PlanError("the target shape's embedding has a larger rank than the model's")
