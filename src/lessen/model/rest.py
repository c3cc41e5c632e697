"""A layer of an encoder, or the rest of it after its attention, in one call of the kernels where they can.

It is a dozen small products and sums, and one call spares the overhead of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from lessen.model.attention import Attention
from lessen.model.linear import Linear, few_in_a_layer
from lessen.model.prepared import Prepared, can_read, matrix_of
from lessen.model.watch import Watch
from lessen.native import EncoderLayer, LayerRest, Native
from lessen.native.matrix import ACTIVATIONS

Settings = tuple[object, ...]
"""What a layer goes by besides modules and tensors."""


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
        self.few = _few(read)

    def ready(self, kernels: Native, tokens: int) -> LayerRest | None:
        """The layer for these kernels, or None where they cannot compute it, or torch would be faster.

        Args:
            kernels: Whose.
            tokens: To be computed.
        """
        if self.parts.activation not in ACTIVATIONS or tokens > self.few:
            return None
        return self.prepared.ready(kernels)

    def _made(self, kernels: Native) -> LayerRest:
        return _rest(self.parts, kernels)


class Whole:
    """What was made ready of a whole layer of an encoder, whose tokens all stay.

    Args:
        block: The layer as it is now.
        attention: Its attention.
        parts: The rest of it.
        settings: What it goes by besides modules and tensors.
        kernels: That will compute it.
    """

    def __init__(
        self, block: nn.Module, attention: Attention, parts: Parts, settings: Settings, kernels: Native
    ) -> None:
        read = (attention.qkv, *parts.matrices(), *parts.norms)
        self.kernels, self.settings = kernels, settings
        self._few = _few(read)
        self._layer: EncoderLayer | None = None
        if attention.heads and parts.activation in ACTIVATIONS and can_read(read, (Linear, nn.LayerNorm)):
            qkv = matrix_of(attention.qkv, kernels)
            self._layer = EncoderLayer(qkv, attention.heads, attention.head_dim, _rest(parts, kernels))
        self._watch = Watch(block.modules())

    def stands(self, kernels: Native, settings: Settings) -> bool:
        """Whether it was made for these kernels of the layer as it is now."""
        return self.kernels is kernels and self.settings == settings and self._watch.unchanged()

    def ready(self, tokens: int) -> EncoderLayer | None:
        """The layer, or None where the kernels cannot compute it, torch would be faster, or somebody watches.

        Args:
            tokens: To be computed.
        """
        if self._watch.observed or tokens > self._few:
            return None
        return self._layer


def _few(parts: Iterable[nn.Module]) -> int:
    """Up to how many tokens the kernels are faster than torch: always, but in float32."""
    matrices = [part.weight.numel() for part in parts if type(part) is Linear]
    return few_in_a_layer(max(matrices)) if matrices else sys.maxsize


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
