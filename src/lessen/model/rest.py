"""A layer of an encoder, or the rest of it after its attention, in one call of the kernels where they can.

It is a dozen small products and sums, and one call spares the overhead of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from lessen.model.attention import LONG, Attention
from lessen.model.linear import FEW_TOKENS, Linear
from lessen.model.prepared import Prepared, matrix_of
from lessen.native import EncoderLayer, LayerRest, Native
from lessen.native.matrix import ACTIVATIONS


class Parts(NamedTuple):
    """The modules of a layer that run after its attention.

    Attributes:
        half: The feed-forward half as a whole.
        output: Of the attention.
        up: Of the feed-forward half.
        down: The same; of SLFN, that of the gate.
        learned: Of SLFN's other branch, or None.
        norms: After each of the two sums.
        activation: Its name; of the gate where there is one.
        centre: What `down` takes off its inputs.
    """

    half: nn.Module
    output: nn.Module
    up: nn.Module
    down: nn.Module
    learned: nn.Module | None
    norms: tuple[nn.Module, nn.Module]
    activation: str
    centre: float = 0.0

    def matrices(self) -> list[nn.Module]:
        """Those there are."""
        return [part for part in (self.output, self.up, self.down, self.learned) if part is not None]


class Rest:
    """What was made ready of a layer.

    Args:
        parts: Of the layer.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        read = (*parts.matrices(), *parts.norms)
        self.prepared = Prepared(self._made, (parts.half,), read, (Linear, nn.LayerNorm))

    def ready(self, kernels: Native, tokens: int) -> LayerRest | None:
        """The layer for these kernels, or None where they cannot compute it, or torch would be faster.

        Args:
            kernels: Whose.
            tokens: To be computed.
        """
        if self.parts.activation not in ACTIVATIONS or (tokens > FEW_TOKENS and self.prepared.in_float):
            return None
        return self.prepared.ready(kernels)

    def _made(self, kernels: Native) -> LayerRest:
        return _rest(self.parts, kernels)


class Whole:
    """What was made ready of a whole layer whose tokens all stay.

    Args:
        attention: Of the layer.
        parts: Of the layer.
    """

    def __init__(self, attention: Attention, parts: Parts) -> None:
        self.attention, self.parts = attention, parts
        read = (attention.qkv, *parts.matrices(), *parts.norms)
        self.prepared = Prepared(self._made, (attention, parts.half), read, (Linear, nn.LayerNorm))

    def ready(self, kernels: Native, lengths: Sequence[int]) -> EncoderLayer | None:
        """As `Rest.ready`.

        Args:
            kernels: Whose.
            lengths: Tokens of each row, the longest last.
        """
        if self.parts.activation not in ACTIVATIONS or lengths[-1] >= LONG:
            return None
        if self.prepared.in_float and sum(lengths) > FEW_TOKENS:
            return None
        return self.prepared.ready(kernels)

    def _made(self, kernels: Native) -> EncoderLayer:
        attention = self.attention
        qkv = matrix_of(attention.qkv, kernels)
        return EncoderLayer(qkv, attention.heads, attention.head_dim, _rest(self.parts, kernels))


def _rest(parts: Parts, kernels: Native) -> LayerRest:
    return LayerRest(
        matrix_of(parts.output, kernels),
        matrix_of(parts.up, kernels),
        matrix_of(parts.down, kernels),
        None if parts.learned is None else matrix_of(parts.learned, kernels),
        [_norm(norm) for norm in parts.norms],
        parts.activation,
        parts.centre,
    )


def _norm(norm: nn.Module) -> tuple[Tensor, Tensor, float]:
    assert isinstance(norm, nn.LayerNorm)
    return norm.weight, norm.bias, norm.eps
