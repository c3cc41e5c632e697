"""Weights of 8 bits made from float ones: tensors and Shape in, tensors and Shape out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lessen.bits.products import quantized
from lessen.plan import Shape


def with_int8(state: Mapping[str, Tensor], shape: Shape) -> tuple[dict[str, Tensor], Shape]:
    """Matrices of all layers in 8 bits, one scale for each output; everything else as it is.

    Args:
        state: Tensors of a transformer, its layers in float.
        shape: What exists of it; layers that have fewer bits already are left alone.
    """
    fresh = dict(state)
    for number, layer in enumerate(shape.layers):
        if layer.bits != 32:
            continue
        prefix = f"layers.{number}."
        for name, tensor in state.items():
            if name.startswith(prefix) and name.endswith(".weight") and tensor.dim() == 2:
                whole, steps = quantized(tensor)
                fresh[name] = whole.to(torch.int8)
                fresh[name.removesuffix("weight") + "scales"] = steps.squeeze(1)
    layers = tuple(
        layer.model_copy(update={"bits": 8, "activation_bits": 8}) if layer.bits == 32 else layer
        for layer in shape.layers
    )
    return fresh, shape.model_copy(update={"layers": layers})
