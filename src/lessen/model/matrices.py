"""Which kind of matrix a Shape asks for: whole or a product, in 32 bits or few, learning or at rest."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lessen.bits.binarizer import Centre
from lessen.model.few_bits import (
    BinaryEmbedding,
    BinaryLinear,
    FewBits,
    Int4Linear,
    Int8Embedding,
    Int8Linear,
    Int8Weights,
)
from lessen.model.latent import LatentEmbedding, LatentLinear
from lessen.model.linear import Linear
from lessen.plan import Bits, Latent, LayerShape


@dataclass(frozen=True)
class Numbers:
    """What the weights of a layer's matrices are, and what they multiply.

    Attributes:
        bits: Of a weight.
        activation_bits: Of what it is multiplied by.
        latent: How binary weights learn; None: they are packed and do not.
    """

    bits: Bits = 32
    activation_bits: Bits = 32
    latent: Latent | None = None

    @classmethod
    def of(cls, layer: LayerShape, latent: Latent | None) -> Numbers:
        """Those of a layer."""
        return cls(layer.bits, layer.activation_bits, latent)


REAL = Numbers()


class LowRank(nn.Module):
    """A matrix stored as the product of two: `outer @ inner`, and maybe a bias."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        numbers: Numbers = REAL,
        centre: Centre = 0.0,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.inner = _whole(in_features, rank, numbers, centre, bias=False)
        self.outer = _whole(rank, out_features, numbers, bias=bias)

    def forward(self, values: Tensor) -> Tensor:
        """`[tokens, in_features]` to `[tokens, out_features]`."""
        return self.activated(values, None)

    def activated(self, values: Tensor, activation: str | None) -> Tensor:
        """The same through the activation of this name."""
        return self.outer.activated(self.inner(values), activation)


Matrix = Linear | FewBits | LowRank

OURS = (Linear, LatentLinear, Int8Linear, Int8Weights, Int4Linear, BinaryLinear, LowRank)
"""Layers that apply an activation themselves; what somebody put in their place may not."""


def linear(
    in_features: int,
    out_features: int,
    rank: int | None = None,
    numbers: Numbers = REAL,
    centre: Centre = 0.0,
    *,
    bias: bool = True,
) -> Matrix:
    """One full matrix, or two of a rank.

    Args:
        in_features: Columns.
        out_features: Rows.
        rank: None: one full matrix.
        numbers: What its weights are.
        centre: What the inputs of binary weights vary around; see `BinaryLinear`.
        bias: Whether it has one.
    """
    if rank is None:
        return _whole(in_features, out_features, numbers, centre, bias=bias)
    return LowRank(in_features, out_features, rank, numbers, centre, bias=bias)


def table(
    rows: int, width: int, bits: Bits = 32, latent: Latent | None = None
) -> nn.Embedding | BinaryEmbedding | Int8Embedding:
    """An embedding table."""
    if bits == 32:
        return nn.Embedding(rows, width)
    if bits == 8:
        return Int8Embedding(rows, width)
    return BinaryEmbedding(rows, width) if latent is None else LatentEmbedding(rows, width, latent)


def weights_of(module: nn.Module) -> int:
    """Number of weights and biases, whatever they are stored in; scales and seals are not counted."""
    total = 0
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if isinstance(part, FewBits) and name == "weight":
                total += part.in_features * part.out_features
            elif isinstance(part, BinaryEmbedding) and name == "weight":
                total += part.num_embeddings * part.embedding_dim
            elif name not in ("scales", "seal"):
                total += parameter.numel()
    return total


def _whole(
    in_features: int, out_features: int, numbers: Numbers, centre: Centre = 0.0, *, bias: bool = True
) -> Linear | FewBits:
    if numbers.bits == 32:
        return Linear(in_features, out_features, bias=bias)
    if numbers.bits == 8:
        kind = Int8Linear if numbers.activation_bits == 8 else Int8Weights
        return kind(in_features, out_features, bias=bias)
    if numbers.bits == 4:
        return Int4Linear(in_features, out_features, bias=bias)
    if numbers.latent is None:
        return BinaryLinear(in_features, out_features, bias, numbers.activation_bits, centre)
    return LatentLinear(in_features, out_features, bias, numbers.activation_bits, centre, numbers.latent)
