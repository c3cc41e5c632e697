"""Run a ragged batch in which tokens leave on the way, and rows at the first exit that is sure of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lessen.depth.criteria import Memory, criterion_of, may_leave
from lessen.model.rows import Rows
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point
from lessen.tokens.elimination import Elimination, elimination_for, seeds_of


@dataclass(frozen=True)
class Answers:
    """What the model said, in the caller's row order.

    Attributes:
        logits: `[rows, outputs]`, float32 or wider.
        layers: Layers each row went through, `[rows]`.
        kept: For each layer in which tokens left, its number and the layout of those that stayed.
    """

    logits: Tensor
    layers: Tensor
    kept: Sequence[tuple[int, Rows]] = ()


def elimination_of(point: Point, model: Transformer, ids: Tensor, rows: Rows) -> Elimination | None:
    """What takes tokens away in one pass at a Point; None where none is taken.

    Args:
        point: Says how many leave, and by what score.
        model: That will run.
        ids: Token ids `[tokens]` of the pass; `random` draws by them.
        rows: Their layout.
    """
    if point.retention is None:
        return None
    score = point.token_score or "mean"
    return elimination_for(
        model.shape,
        point.retention,
        score,
        row_seeds=seeds_of(ids, rows) if score == "random" else None,
        architecture=model.architecture,
    )


@torch.no_grad()
def run(
    model: Transformer, ids: Tensor, rows: Rows, segments: Tensor | None = None, point: Point = FULL
) -> Answers:
    """Answer every row of a ragged batch at a Point.

    An exit head is evaluated only where a row may leave or the criterion needs its answer later, so a Point
    without an exit rule costs nothing beyond the stack and the last head.

    Args:
        model: In evaluation mode, with at least the last exit.
        ids: Token ids `[tokens]`.
        rows: Layout of the batch.
        segments: Segment ids `[tokens]`, or None.
        point: How much of the model to use.

    Raises:
        PlanError: When the Point's criterion is unknown or does not fit the task.
    """
    last = model.depth
    depth = len(rows)
    collected: list[tuple[Rows, Tensor, int]] = []
    rule = point.exits
    criterion = None
    if rule is not None:
        criterion = criterion_of(rule, outputs=model.outputs)
    memory: Memory = None

    def after_layer(layer: int, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        nonlocal memory
        if layer == last:
            collected.append((rows, model.exits[str(last)](hidden, rows), last))
            return hidden, rows
        assert criterion is not None
        assert rule is not None
        logits = model.exits[str(layer)](hidden, rows)
        leaving, memory = may_leave(criterion, rule, layer, logits, memory)
        if leaving is None:
            return hidden, rows
        gone = leaving.tolist()
        if not any(gone):
            return hidden, rows
        if all(gone):
            collected.append((rows, logits, layer))
            return hidden[:0], rows.select([False] * len(rows))
        stay = [not g for g in gone]
        collected.append((rows.select(gone), logits[leaving], layer))
        if memory is not None:
            memory = memory[~leaving]
        return rows.gather(hidden, stay), rows.select(stay)

    asked = [last]
    if criterion is not None and rule is not None:
        early = [layer for layer in model.shape.exit_layers if layer < last]
        asked += [layer for layer in early if criterion.remembers or rule.at(layer) is not None]
    elimination = elimination_of(point, model, ids, rows)
    model(ids, rows, segments, after_layer, elimination, asked=asked)
    kept = () if elimination is None else elimination.kept
    if len(collected) == 1 and len(collected[0][0]) == 1:
        _, logits, layer = collected[0]
        return Answers(logits, torch.tensor([layer]), kept)
    order = [index for group, _, _ in collected for index in group.original]
    layers = torch.empty(depth, dtype=torch.long)
    layers[order] = torch.tensor([layer for group, _, layer in collected for _ in range(len(group))])
    stacked = torch.cat([logits for _, logits, _ in collected])
    logits = torch.empty_like(stacked).index_copy_(0, torch.tensor(order, device=stacked.device), stacked)
    return Answers(logits, layers, kept)
