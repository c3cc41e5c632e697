"""The products as operators of torch, `torch.ops.lessen.linear_w1a1` and so on, for graphs that are compiled.

They take weights as stored. Outside of graphs `product` is called directly, without torch's dispatch.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lessen.bits.products import arranged, product
from lessen.native import native
from lessen.native.matrix import LOW_BITS, LowBits
from lessen.native.state import state_of

SCHEMA = "(Tensor values, Tensor weight, Tensor scales, Tensor? bias) -> Tensor"

_arranged: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Weights as the kernels want them, for as long as the stored ones live."""


def _computed(kind: LowBits, values: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    suits = values.dtype == torch.float32 and values.device.type == "cpu" and weight.numel() > 0
    kernels = native() if suits else None
    ready, state = _arranged.get(weight), state_of(weight)
    if ready is None or ready[0] is not kernels or ready[1] != state:
        ready = kernels, state, arranged(kind, weight, values.shape[1], kernels)
        _arranged[weight] = ready
    return product(kind, values, ready[2], scales, bias, kernels)


def _imagined(values: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    return values.new_empty(len(values), len(scales))


OPERATORS = {
    kind: torch.library.custom_op(
        f"lessen::linear_{kind}", partial(_computed, kind), mutates_args=(), schema=SCHEMA
    )
    for kind in LOW_BITS
}
for _operator in OPERATORS.values():
    _operator.register_fake(_imagined)
