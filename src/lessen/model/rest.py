"""A layer of an encoder, or the rest of it after its attention, in one call of the kernels where they can.

It is a dozen small products and sums, and one call spares the overhead of the others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from lessen.model.attention import Attention
from lessen.model.linear import Linear, few_in_a_layer
from lessen.model.norms import NORMS, norm_of
from lessen.model.prepared import Prepared, Settings, can_read, matrix_of
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
        norms: Of both halves.
        activation: Its name; of the gate where there is one.
        centre: What `down` takes off its inputs.
        before: Whether norms stand before the branches, not after the sums.
        gated: Whether `up` makes a gate first, which is multiplied by the rest of what it makes.
    """

    half: nn.Module
    output: nn.Module
    up: nn.Module
    down: nn.Module
    learned: nn.Module | None
    norms: tuple[nn.Module, nn.Module]
    activation: str
    centre: float = 0.0
    before: bool = False
    gated: bool = False

    def read(self) -> list[nn.Module]:
        """Those whose tensors the kernels read."""
        parts = (self.output, self.up, self.down, self.learned, *self.norms)
        return [part for part in parts if part is not None]


class Rest:
    """The rest of a layer after its attention.

    Args:
        parts: Of the layer.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.prepared = Prepared(self._made, lambda: (parts.half, *parts.read()))
        self.few = _few(parts.read())

    def ready(self, kernels: Native, tokens: int, settings: Settings) -> LayerRest | None:
        """It for these kernels, or None where they cannot compute it, or torch would be faster.

        Args:
            kernels: Whose.
            tokens: To be computed.
            settings: Of the layer, as in `Prepared`.
        """
        return None if tokens > self.few else self.prepared.ready(kernels, settings)

    def _made(self, kernels: Native) -> LayerRest | None:
        return rest_of(self.parts, kernels) if _can_compute(self.parts) else None


class Whole(NamedTuple):
    """A whole layer of an encoder, whose tokens all stay.

    Attributes:
        layer: For the kernels.
        few: Up to how many tokens they are faster than torch.
    """

    layer: EncoderLayer
    few: int


def whole_layer(attention: Attention, parts: Parts, kernels: Native) -> Whole | None:
    """A layer as it is now, or None where the kernels cannot compute it.

    Args:
        attention: Its attention.
        parts: The rest of it.
        kernels: Whose.
    """
    if not attention.heads or not _can_compute(parts, attention.qkv):
        return None
    qkv = matrix_of(attention.qkv, kernels)
    heads, dim = attention.heads, attention.head_dim
    scale = attention.stretch / math.sqrt(dim)
    layer = EncoderLayer(qkv, heads, dim, scale, rest_of(parts, kernels), attention.of_bias)
    return Whole(layer, _few((attention.qkv, *parts.read())))


def _can_compute(parts: Parts, *besides: nn.Module) -> bool:
    kinds = (Linear, *NORMS) if parts.before else (Linear, nn.LayerNorm)
    return parts.activation in ACTIVATIONS and can_read((*besides, *parts.read()), kinds)


def _few(parts: Iterable[nn.Module]) -> int:
    """Up to how many tokens the kernels are faster than torch: always, but in float32."""
    matrices = [part.weight.numel() for part in parts if type(part) is Linear]
    return few_in_a_layer(max(matrices)) if matrices else sys.maxsize


def rest_of(parts: Parts, kernels: Native) -> LayerRest:
    """The rest of a layer as the kernels take it."""
    first, second = parts.norms
    return LayerRest(
        matrix_of(parts.output, kernels),
        matrix_of(parts.up, kernels),
        matrix_of(parts.down, kernels),
        None if parts.learned is None else matrix_of(parts.learned, kernels),
        (norm_of(first), norm_of(second)),
        parts.activation,
        parts.centre,
        before=parts.before,
        rms=isinstance(second, nn.RMSNorm),
        gated=parts.gated,
    )
