"""Activations by the names Hugging Face has for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn.functional import gelu
from transformers.activations import ACT2FN

NEARLY_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
"""One function, GELU by a tanh; transformers writes the first and the last out in eight operations."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function of this name."""
    return partial(gelu, approximate="tanh") if name in NEARLY_GELU else ACT2FN[name]


def activate(values: Tensor, name: str | None) -> Tensor:
    """Through the activation of this name; None: unchanged."""
    return values if name is None else activation(name)(values)
