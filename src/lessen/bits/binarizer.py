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

from lessen.bits.quantized import quantized
from lessen.plan import Bits, SignGradient, WeightScale

EDGE = 1e-3
"""Real weights are kept this far from -1 and 1, where the polynomial's derivative vanishes for good."""


Centre = float | Literal["rectified"]
"""What numbers that become signs vary around: a number, or of those that are never negative `middle`."""


def signs(weight: Tensor) -> Tensor:
    """+1 where a weight is not negative, else -1, in its type."""
    weight = weight.detach()
    negative = torch.lt(weight, 0, out=torch.empty_like(weight))  # `where` is far slower on a CPU
    return negative.mul_(-2).add_(1)


def scales(weight: Tensor, scale: WeightScale = "row_mean") -> Tensor:
    """What each row's signs are multiplied by, `[rows, 1]`, without gradient; 0 where there are none.

    Args:
        weight: `[rows, columns]`.
        scale: How; what is learned starts at the row's mean.
    """
    weight = weight.detach()
    if not weight.numel():
        return weight.new_zeros(len(weight), 1)
    if scale in ("row_mean", "learned"):
        return weight.abs().mean(1, keepdim=True)
    if scale == "tensor_mean":
        return weight.abs().mean().expand(len(weight), 1)
    if scale == "none":
        return weight.new_ones(len(weight), 1)
    raise ValueError(f"unknown scale {scale!r}; one of {', '.join(get_args(WeightScale))}")


def surrogate(weight: Tensor) -> Tensor:
    """What stands for the sign in the backward pass: 2w + w^2 below 0, 2w - w^2 above, -1 and 1 outside."""
    inside = weight.clamp(-1, 1)
    return 2 * inside - inside * inside.abs()


def surrogate_slope(weight: Tensor) -> Tensor:
    """Its derivative, max(0, 2 - 2|w|)."""
    return weight.abs().mul_(-2).add_(2).clamp_(min=0)


def binarize(
    weight: Tensor, scale: WeightScale | Tensor = "row_mean", gradient: SignGradient = "poly"
) -> Tensor:
    """The binary weights times their scale, `[rows, columns]`.

    Args:
        weight: Real weights, `[rows, columns]`.
        scale: What the signs are multiplied by: how it is made of the weights, or `[rows, 1]`, which gets its
            own gradient.
        gradient: What reaches the real weights.

    Raises:
        ValueError: For a scale or gradient there is not.
    """
    if gradient not in get_args(SignGradient):
        raise ValueError(f"unknown gradient {gradient!r}; one of {', '.join(get_args(SignGradient))}")
    factors = scale if isinstance(scale, Tensor) else scales(weight, scale)
    binary: Tensor = _Binarize.apply(weight, factors, gradient)
    return binary


def rounded_activations(values: Tensor, bits: Bits) -> Tensor:
    """What a matrix of few bits multiplies, with a gradient.

    Of 8 bits, whole numbers times a scale of their row, and the gradient passes unchanged. Of one, signs
    times the mean |x| of their row, a; the gradient is that of the polynomial stretched to 2a, which is
    max(0, 1 - |x| / 2a). That is ours: the paper says nothing of activations.

    Args:
        values: `[tokens, features]`.
        bits: 32 leaves them as they are.
    """
    if bits == 32:
        return values
    if bits == 8:
        whole, steps = quantized(values.detach().float())
        return values + ((whole * steps).to(values.dtype) - values).detach()
    binary: Tensor = _Signs.apply(values)
    return binary


def middle(values: Tensor) -> Tensor:
    """Half the mean of each row's positive numbers, `[rows, columns]` to `[rows, 1]`, without gradient.

    Numbers that are never negative have one sign. Around it, those that are all 0 or a become 0 and a again:
    the levels {0, 1} the page wants there (1.2), with a scale.
    """
    values = values.detach()
    positive = (values > 0).sum(1, keepdim=True).clamp(min=1)
    return values.clamp(min=0).sum(1, keepdim=True) / (2 * positive)


@torch.no_grad()
def clip(weights: Iterable[Tensor], edge: float = EDGE) -> None:
    """Keep real weights within -(1 - edge) and 1 - edge, in place; after every step."""
    for weight in weights:
        weight.clamp_(-(1 - edge), 1 - edge)


class _Binarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, gradient: SignGradient) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.gradient = gradient
        return signs(weight) * scale

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None, None]:
        weight, scale = ctx.saved_tensors
        of_scale = (upstream * signs(weight)).sum(1, keepdim=True) if ctx.needs_input_grad[1] else None
        if ctx.gradient == "ste":
            return upstream, of_scale, None
        if ctx.gradient == "ste_clip":
            return upstream * (weight.abs() <= 1), of_scale, None
        slope = upstream * surrogate_slope(weight)
        return (slope * scale if ctx.gradient == "poly" else slope), of_scale, None


class _Signs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        size = values.abs().mean(-1, keepdim=True)
        ctx.save_for_backward(values, size)
        return signs(values) * size

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        values, size = ctx.saved_tensors
        stretched = values / (2 * size).clamp(min=1e-12)
        return surrogate_slope(stretched).mul_(upstream).div_(2)
