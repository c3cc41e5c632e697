"""The training form of early exits: full depth, every exit answers, gradients flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lessen.model.rows import Rows
from lessen.model.transformer import InLayer, Transformer


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """The same values; their gradient is multiplied by `factor` on the way back."""
    scaled: Tensor = _ScaleGradient.apply(values, factor)
    return scaled


def every_exit(
    model: Transformer,
    ids: Tensor,
    rows: Rows,
    segments: Tensor | None = None,
    *,
    equilibrium: bool = False,
    in_layer: InLayer | None = None,
    states: list[Tensor] | None = None,
) -> list[Tensor]:
    """Logits of every exit for every row, shallowest exit first, in the caller's row order.

    Args:
        model: With at least one exit.
        ids: Token ids `[tokens]`.
        rows: Layout of the batch.
        segments: Segment ids `[tokens]`, or None.
        equilibrium: Gradient equilibrium (COST-EFF page, 1.4): a layer's gradient becomes the mean over the
            exits at or above it instead of their sum. Forward values and the heads' own gradients do not
            change. Only exits that answer are counted; what reads `states` counts as much as the exits above.
        in_layer: Takes tokens away on the way, as in `Transformer.forward`.
        states: If given, gets the embeddings and what each layer put out, `[tokens, hidden]` each.

    Returns:
        One `[rows, outputs]` tensor for each exit.
    """
    answers: list[Tensor] = []
    places = model.shape.exit_layers

    def after_layer(layer: int, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        answers_here = layer in places
        above = len(places) - len(answers)
        if equilibrium and answers_here:
            hidden = scale_gradient(hidden, 1 / above)
        if states is not None:
            alone = equilibrium and not answers_here
            states.append(scale_gradient(hidden, 1 / above) if alone else hidden)
        if answers_here:
            answers.append(rows.restore(model.exits[str(layer)](hidden, rows)))
            if equilibrium:
                hidden = scale_gradient(hidden, above - 1)
        return hidden, rows

    hidden = model.embeddings(ids, rows, segments)
    if states is not None:
        states.append(hidden)
    model.stack(hidden, rows, after_layer, in_layer)
    return answers
