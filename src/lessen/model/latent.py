"""Layers that learn binary weights: real numbers are stored, their signs are used (BEExformer page, 1.1).

While a training turns them gradually, what is used lies between: (1 - share) of the real number, and share of
the binary one. Outside of it the share is 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lessen.bits.binarizer import Centre, binarize, middle, rounded_activations, scales
from lessen.model.activations import activate
from lessen.model.linear import Linear, dense
from lessen.plan import Bits, Latent


class LatentLinear(Linear):
    """A linear layer that computes with the signs of its weights, and learns through a surrogate of them.

    Attributes:
        scales: `[out_features]` if they are learned, else None.
        centre: As in `BinaryLinear`.
        share: How far weights, and what they multiply, have turned from real to few bits, 0 to 1.
    """

    share = 1.0

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_bits: Bits = 32,
        centre: Centre = 0.0,
        latent: Latent | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.latent = latent or Latent()
        self.activation_bits: Bits = activation_bits
        self.centre = centre
        self.scales = _learned_scales(self.weight, self.latent)

    def activated(self, values: Tensor, activation: str | None) -> Tensor:
        """`[tokens, in_features]` to `[tokens, out_features]`, through the activation of this name."""
        weight = _turned(self.weight, _binary(self.weight, self.scales, self.latent), self.share)
        bias: Tensor | None = self.bias
        around: Tensor | float = middle(values) if self.centre == "rectified" else self.centre
        values = values - around
        few = rounded_activations(values, self.activation_bits)
        result = dense(_turned(values, few, self.share), weight, bias)
        if self.centre:
            result = result + around * weight.sum(1)
        return activate(result, activation)


class LatentEmbedding(nn.Embedding):
    """A table that answers with the signs of its rows.

    Attributes:
        scales: `[rows]` if they are learned, else None.
        share: As in `LatentLinear`.
    """

    share = 1.0

    def __init__(self, rows: int, width: int, latent: Latent) -> None:
        super().__init__(rows, width)
        self.latent = latent
        self.scales = _learned_scales(self.weight, latent)

    def forward(self, ids: Tensor) -> Tensor:
        """`[tokens]` to `[tokens, width]`."""
        if self.latent.scale == "tensor_mean":
            return self.whole().index_select(0, ids)
        chosen = None if self.scales is None else self.scales.index_select(0, ids)
        rows = self.weight.index_select(0, ids)
        return _turned(rows, _binary(rows, chosen, self.latent), self.share)

    def whole(self) -> Tensor:
        """What it answers for every row, `[rows, width]`."""
        return _turned(self.weight, _binary(self.weight, self.scales, self.latent), self.share)


@torch.no_grad()
def start_scales(layer: LatentLinear | LatentEmbedding) -> None:
    """Scales that are learned start at the mean |w| of their row."""
    if layer.scales is not None:
        layer.scales.copy_(scales(layer.weight).squeeze(1))


def latents_of(model: nn.Module) -> list[Tensor]:
    """The real numbers behind binary weights."""
    return [part.weight for part in model.modules() if isinstance(part, LatentLinear | LatentEmbedding)]


def turn(model: nn.Module, share: float) -> None:
    """Set how far binary weights have turned from real ones, 0 to 1."""
    for part in model.modules():
        if isinstance(part, LatentLinear | LatentEmbedding):
            part.share = share


def _turned(real: Tensor, binary: Tensor, share: float) -> Tensor:
    return binary if share >= 1 else torch.lerp(real, binary, share)


def _learned_scales(weight: Tensor, latent: Latent) -> nn.Parameter | None:
    return nn.Parameter(weight.new_ones(len(weight))) if latent.scale == "learned" else None


def _binary(weight: Tensor, learned: Tensor | None, latent: Latent) -> Tensor:
    return binarize(weight, latent.scale if learned is None else learned[:, None], latent.gradient)
