"""Linear layers whose weights have few bits; for inference only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from lessen.bits.products import arranged, product
from lessen.errors import PlanError
from lessen.native import Native, native_for


class Int8Linear(nn.Module):
    """Weights of 8 bits with a scale for each output; inputs get 8 bits and a scale for each token.

    Attributes:
        weight: Whole numbers from -127 to 127, `[out_features, in_features]`, int8.
        scales: `[out_features]`.
        bias: `[out_features]`, or None.
    """

    _ready: tuple[Native | None, Tensor, Tensor] | None = None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        whole = torch.empty(out_features, in_features, dtype=torch.int8)
        self.weight = nn.Parameter(whole, requires_grad=False)
        self.scales = nn.Parameter(torch.empty(out_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        """`[tokens, in_features]` to `[tokens, out_features]`.

        Raises:
            PlanError: When gradients are wanted.
        """
        return self.activated(values, None)

    def activated(self, values: Tensor, activation: str | None) -> Tensor:
        """The same through the activation of this name."""
        if torch.is_grad_enabled() and values.requires_grad:
            raise PlanError("weights of 8 bits cannot be trained; load the model in float32")
        kernels = native_for(values) if self.weight.numel() else None
        result = product("w8a8", values, self._arranged(kernels), self.scales, self.bias, kernels)
        return result if activation is None else ACT2FN[activation](result)

    def _arranged(self, kernels: Native | None) -> Tensor:
        """The weights as these kernels want them, made once."""
        if self._ready is None or self._ready[0] is not kernels or self._ready[1] is not self.weight:
            ready = arranged("w8a8", self.weight, self.in_features, kernels)
            self._ready = kernels, self.weight, ready
        return self._ready[2]
