"""The linear layer: one matrix, and in inference on a CPU the layout the processor wants it in.

`torch.nn.functional.linear` hands oneDNN or MKL a plain matrix, which is re-laid out at every call; for a
short input that is a large part of the time. Outside of training this layer keeps a copy in oneDNN's own
blocked layout.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

ENABLED = (
    os.environ.get("LESSEN_DISABLE_PACKING") != "1"
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
)
"""Whether blocked weights are used; they double the layers' memory, which LESSEN_DISABLE_PACKING=1 saves."""

FEWEST_TOKENS = 4
"""Below this, a float32 matrix-vector product on the plain layout is faster than a blocked one."""

FUSED: dict[str | None, tuple[str, str]] = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "relu": ("relu", ""),
}
"""Activations the blocked product applies itself, under oneDNN's names."""

BLOCKED_TYPES = (torch.float32, torch.bfloat16)


class Linear(nn.Linear):
    """`nn.Linear`, with blocked weights where gradients are off and the processor is a CPU."""

    _blocked: Tensor | None = None
    _blocked_of: tuple[int, int, int] | None = None

    def forward(self, values: Tensor, activation: str | None = None) -> Tensor:
        """`[tokens, in_features]` to `[tokens, out_features]`, through the activation of this name."""
        weight = self.weight
        if (
            torch.is_grad_enabled()
            or not ENABLED
            or weight.dtype not in BLOCKED_TYPES
            or values.dtype != weight.dtype
            or weight.device.type != "cpu"
            or (len(values) < FEWEST_TOKENS and weight.dtype == torch.float32)
            or weight.numel() == 0
        ):
            result = functional.linear(values, weight, self.bias)
            return result if activation is None else ACT2FN[activation](result)
        name, algorithm = FUSED.get(activation, FUSED[None])
        result = torch.ops.mkldnn._linear_pointwise(values, self._in_blocks(), self.bias, name, [], algorithm)
        return result if activation in FUSED else ACT2FN[activation](result)

    def _in_blocks(self) -> Tensor:
        """The blocked copy, made anew whenever the weights have changed."""
        weight = self.weight
        source = (id(weight), weight.data_ptr(), weight._version)
        if self._blocked is None or source != self._blocked_of:
            self._blocked = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
            self._blocked_of = source
        return self._blocked

    def _forget(self) -> None:
        self._blocked = self._blocked_of = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Linear:
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> Linear:
        """Switch the mode; training drops the blocked copy."""
        if mode:
            self._forget()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_blocked")}
