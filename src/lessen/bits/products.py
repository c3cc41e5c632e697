"""Products with weights of 1 or 8 bits: what the kernels compute, written plainly, and the choice of either.

Activations of 8 bits are whole numbers from -127 to 127 times a scale of their row, its largest becoming 127;
of one bit, signs times the mean absolute value of their row. A row's result depends on it alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lessen.bits.binarizer import signs
from lessen.bits.packing import unpack
from lessen.bits.quantized import quantized
from lessen.native import Native
from lessen.native.matrix import LowBits


def reference(
    kind: LowBits, values: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None = None
) -> Tensor:
    """`(values @ weight.T) * scales + bias`, by torch.

    Args:
        kind: Bits of weights and activations.
        values: `[tokens, in_features]`.
        weight: Of 8 bits `[out_features, in_features]`, of one bit packed `[out_features, words]`.
        scales: `[out_features]`.
        bias: `[out_features]`, or None.

    Returns:
        `[tokens, out_features]`, of the type of `values`.
    """
    return _by_torch(kind, values, arranged(kind, weight, values.shape[1], None), scales, bias)


def _by_torch(kind: LowBits, values: Tensor, factors: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    dtype = values.dtype
    factors = factors.to(dtype)
    if kind in ("w8a8", "w1a8"):
        values, steps = quantized(values)
    elif kind == "w1a1":
        means = values.abs().mean(1, keepdim=True)
        values, steps = signs(values), means if values.shape[1] else torch.zeros_like(means)
    else:
        steps = values.new_ones(len(values), 1)
    result = (values @ factors.T) * (steps * scales)
    return (result if bias is None else result + bias).to(dtype)


def arranged(kind: LowBits, weight: Tensor, columns: int, kernels: Native | None) -> Tensor:
    """Weights as `product` takes them with these kernels; without any, as float32, or for `w8a32` int8."""
    if kind == "w8a32":  # read as it lies
        return weight.to(torch.int8).contiguous()
    if kernels is None:
        return unpack(weight, columns) if kind != "w8a8" else weight.float()
    if kind == "w8a8":
        return kernels.arranged_whole(weight.to(torch.int8))
    return kernels.arranged(weight, columns)


def product(
    kind: LowBits,
    values: Tensor,
    weight: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    kernels: Native | None,
) -> Tensor:
    """The same as `reference`, by the kernels if there are any; `weight` as `arranged` returns it."""
    if kernels is None:
        return _by_torch(kind, values, weight, scales, bias)
    return kernels.low_bit_linear(kind, values, weight, scales, bias)
