"""Weights that are binary in the forward pass and real in the backward pass (BEExformer page, 1.1).

Forward, each row r of a matrix becomes `a_r * b(w)` with b(w) = +1 for w >= 0 and -1 otherwise, never 0, and
a_r = mean |w| of the row, which is the best scale in least squares. Backward, b is replaced by a second-order
polynomial whose derivative max(0, 2 - 2|w|) knows sign and size of the weight. The paper names such a
polynomial but its text is not public: this one, and the row scale, are our reconstruction, and the other
readings are options.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Scale = Literal["row_mean", "tensor_mean", "none"]
"""What the signs are multiplied by: the mean |w| of each row or of the matrix, or nothing."""

Gradient = Literal["poly", "poly_unscaled", "ste", "ste_clip"]
"""The derivative of a binary weight by the real one.

`poly`: the scale times the polynomial's; `poly_unscaled`: the polynomial's alone; `ste`: 1; `ste_clip`: 1
up to |w| = 1, then 0.
"""

EDGE = 1e-3
"""Real weights are kept this far from -1 and 1, where the polynomial's derivative vanishes for good."""


def signs(weight: Tensor) -> Tensor:
    """+1 where a weight is not negative, else -1, in its type."""
    return torch.where(weight < 0, -1.0, 1.0).to(weight.dtype)


def scales(weight: Tensor, scale: Scale = "row_mean") -> Tensor:
    """What each row's signs are multiplied by, `[rows, 1]`, without gradient.

    Args:
        weight: `[rows, columns]`.
        scale: How.
    """
    weight = weight.detach()
    if scale == "row_mean":
        return weight.abs().mean(1, keepdim=True)
    if scale == "tensor_mean":
        return weight.abs().mean().expand(len(weight), 1)
    if scale == "none":
        return weight.new_ones(len(weight), 1)
    raise ValueError(f"unknown scale {scale!r}; one of {', '.join(get_args(Scale))}")


def surrogate(weight: Tensor) -> Tensor:
    """What stands for the sign in the backward pass: 2w + w^2 below 0, 2w - w^2 above, -1 and 1 outside."""
    inside = weight.clamp(-1, 1)
    return 2 * inside - inside * inside.abs()


def surrogate_slope(weight: Tensor) -> Tensor:
    """Its derivative, max(0, 2 - 2|w|)."""
    return (2 - 2 * weight.abs()).clamp(min=0)


def binarize(weight: Tensor, scale: Scale = "row_mean", gradient: Gradient = "poly") -> Tensor:
    """The binary weights times their scale, `[rows, columns]`.

    Args:
        weight: Real weights, `[rows, columns]`.
        scale: What the signs are multiplied by.
        gradient: What reaches the real weights.

    Raises:
        ValueError: For a scale or gradient there is not.
    """
    if gradient not in get_args(Gradient):
        raise ValueError(f"unknown gradient {gradient!r}; one of {', '.join(get_args(Gradient))}")
    binary: Tensor = _Binarize.apply(weight, scales(weight, scale), gradient)
    return binary


@torch.no_grad()
def clip(weights: Iterable[Tensor], edge: float = EDGE) -> None:
    """Keep real weights within -(1 - edge) and 1 - edge, in place; after every step."""
    for weight in weights:
        weight.clamp_(-(1 - edge), 1 - edge)


class _Binarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, gradient: Gradient) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.gradient = gradient
        return signs(weight) * scale

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        if ctx.gradient == "ste":
            return upstream, None, None
        if ctx.gradient == "ste_clip":
            return upstream * (weight.abs() <= 1), None, None
        slope = upstream * surrogate_slope(weight)
        return (slope * scale if ctx.gradient == "poly" else slope), None, None
