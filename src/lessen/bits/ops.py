"""The products as operators of torch, `torch.ops.lessen.linear_w1a1` and so on, for graphs that are compiled.

They take weights as stored. Outside of graphs `product` is called directly, without torch's dispatch.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lessen.bits.packing import words_for
from lessen.bits.products import arranged, product
from lessen.native import native
from lessen.native.matrix import LOW_BITS, MOST_COLUMNS, LowBits
from lessen.native.state import state_of

SCHEMA = "(Tensor values, Tensor weight, Tensor scales, Tensor? bias) -> Tensor"

_arranged: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Weights as the kernels want them, and for what, for as long as the stored ones live."""


def _computed(kind: LowBits, values: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    _check(kind, values, weight, scales, bias)
    real = [each for each in (values, scales, bias) if each is not None]
    suits = all(each.dtype == torch.float32 and each.device.type == "cpu" for each in real)
    suits = suits and weight.numel() > 0 and values.shape[1] <= MOST_COLUMNS
    kernels = native() if suits else None
    asked = kind, values.shape[1], kernels, state_of(weight)
    ready = _arranged.get(weight)
    if ready is None or ready[0] != asked:
        ready = asked, arranged(kind, weight, values.shape[1], kernels)
        _arranged[weight] = ready
    whole = None if bias is None else bias.contiguous()
    return product(kind, values, ready[1], scales.contiguous(), whole, kernels).to(values.dtype)


def _imagined(kind: LowBits, values: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    _check(kind, values, weight, scales, bias)
    return values.new_empty(values.shape[0], scales.shape[0])  # len would fix a number that may vary


def _check(kind: LowBits, values: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> None:
    """Refuse what does not go together: kernels read memory as they are told it is.

    Raises:
        RuntimeError: Naming it.
    """
    if values.dim() != 2 or scales.dim() != 1 or weight.dim() != 2:
        raise RuntimeError("values and weight have two dimensions, scales one")
    columns, rows = values.shape[1], len(scales)
    eight = kind in ("w8a8", "w8a32")
    wanted = torch.int8 if eight else torch.int64
    shape = (rows, columns if eight else words_for(columns))
    if weight.dtype != wanted or tuple(weight.shape) != shape:
        found = f"{weight.dtype}, {tuple(weight.shape)}"
        raise RuntimeError(f"{kind}: expected a weight of {wanted}, {shape}, not {found}")
    if bias is not None and tuple(bias.shape) != (rows,):
        raise RuntimeError(f"bias {tuple(bias.shape)}: one for each of {rows} rows")
    for name, tensor in (("values", values), ("scales", scales), ("bias", bias)):
        if tensor is not None and not tensor.is_floating_point():
            raise RuntimeError(f"{name}: expected real numbers, not {tensor.dtype}")


OPERATORS = {
    kind: torch.library.custom_op(
        f"lessen::linear_{kind}", partial(_computed, kind), mutates_args=(), schema=SCHEMA
    )
    for kind in LOW_BITS
}
for _kind, _operator in OPERATORS.items():
    _operator.register_fake(partial(_imagined, _kind))
