"""Which layers the kernels compute in one call, and when: the only place that says so.

A layer is two dozen small products and sums, and one call spares the overhead of most of them. An encoder's
layer may be one call where all its tokens stay, a decoder's for a few new tokens, and the rest of either once
its attention is done, whoever did that.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from torch import nn

from lessen.model.architecture import Architecture
from lessen.model.attention import Attention
from lessen.model.causal import CausalAttention
from lessen.model.cross import CrossAttention
from lessen.model.feed_forward import FeedForward, GatedFeedForward, SelectiveFeedForward
from lessen.model.few_bits import BinaryLinear
from lessen.model.linear import FEW_TOKENS, Linear, few_in_a_layer
from lessen.model.norms import NORMS, norm_of
from lessen.model.prepared import Prepared, Settings, can_read, matrix_of
from lessen.native import DecoderLayer, EncoderLayer, Form, LayerRest, Native, Reading
from lessen.native.matrix import ACTIVATIONS

if TYPE_CHECKING:
    from lessen.model.block import Block

Call = TypeVar("Call")


@dataclass(frozen=True)
class Made(Generic[Call]):
    """A call made ready.

    Attributes:
        call: For the kernels.
        few: Up to how many tokens they are faster than torch.
    """

    call: Call
    few: int


class Fused:
    """The calls a layer can be, made ready when they are first asked for, and anew when it has changed.

    Args:
        layer: Whose.
        architecture: Family facts.
    """

    def __init__(self, layer: Block, architecture: Architecture) -> None:
        self.layer, self.architecture = layer, architecture
        self._whole: Prepared[Made[EncoderLayer]] | None = None
        self._rest: Prepared[Made[LayerRest]] | None = None
        self._step: Prepared[Made[DecoderLayer]] | None = None
        self._rest_of: Parts | None = None
        self._step_of: StepParts | None = None

    def __getstate__(self) -> dict[str, Any]:
        return dict.fromkeys(self.__dict__) | {"layer": self.layer, "architecture": self.architecture}

    def whole(self, kernels: Native, tokens: int) -> EncoderLayer | None:
        """All of an encoder's layer, none of whose tokens leave; None where something else is to compute it.

        Args:
            kernels: That would compute it.
            tokens: To be computed.
        """
        if self._whole is None:
            self._whole = Prepared(self._made_whole, self.layer.modules)
        return self._for(self._whole, kernels, tokens)

    def rest(self, kernels: Native, tokens: int) -> LayerRest | None:
        """What follows the attention; arguments and result as in `whole`."""
        parts = encoder_parts(self.layer)
        if parts is None:
            return None
        if self._rest is None or self._rest_of != parts:
            self._rest_of, self._rest = parts, Prepared(partial(_made_rest, parts), parts.modules)
        return self._for(self._rest, kernels, tokens)

    def step(self, kernels: Native, tokens: int) -> DecoderLayer | None:
        """All of a decoder's layer for new tokens; arguments and result as in `whole`."""
        parts = step_parts(self.layer)
        if parts is None:
            return None
        if self._step is None or self._step_of != parts:
            make = partial(_made_step, parts, self.architecture)
            self._step_of, self._step = parts, Prepared(make, parts.modules)
        return self._for(self._step, kernels, tokens)

    def _for(self, prepared: Prepared[Made[Call]], kernels: Native, tokens: int) -> Call | None:
        """The call, unless the layer trains, or torch is faster for so many tokens."""
        if self.layer.training or self.layer.dropout.training:
            return None
        made = prepared.ready(kernels, _settings(self.layer))
        return None if made is None or tokens > made.few else made.call

    def _made_whole(self, kernels: Native) -> Made[EncoderLayer] | None:
        parts, attention = encoder_parts(self.layer), self.layer.attention
        if parts is None or not isinstance(attention, Attention):
            return None
        if not attention.heads or not _can_compute(parts, attention.qkv):
            return None
        layer = EncoderLayer(
            matrix_of(attention.qkv, kernels),
            attention.heads,
            attention.head_dim,
            attention.stretch / math.sqrt(attention.head_dim),
            rest_of(parts, kernels),
            attention.of_bias,
        )
        return Made(layer, _few((attention.qkv, *parts.read())))


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

    def modules(self) -> list[nn.Module]:
        """These, and those that are passed over."""
        return [self.half, *self.read()]


class StepParts(NamedTuple):
    """The modules of a decoder's layer.

    Attributes:
        attention: As a whole.
        qkv: For its queries, keys and values.
        head_norms: Of queries and keys, or none.
        rest: What comes after it.
        cross: What reads a source, if the layer does.
        reading: The parts of that, and the norm before it.
    """

    attention: CausalAttention
    qkv: nn.Module
    head_norms: tuple[nn.Module, ...]
    rest: Parts
    cross: CrossAttention | None = None
    reading: tuple[nn.Module, nn.Module, nn.Module] | None = None

    def read(self) -> list[nn.Module]:
        """Those whose tensors the kernels read."""
        return [self.qkv, *self.head_norms, *self.rest.read(), *(self.reading or ())]

    def modules(self) -> list[nn.Module]:
        """These, and those that are passed over."""
        wholes = (self.attention, self.rest.half, self.cross)
        return [*(each for each in wholes if each is not None), *self.read()]


def parts_after_attention(layer: Block) -> Parts | None:
    """What comes after the attention; None where the kernels know no such layer."""
    half, output = layer.feed_forward, layer.attention.output
    norms = layer.attention_norm, layer.feed_forward_norm
    if isinstance(half, FeedForward | GatedFeedForward):
        gated = isinstance(half, GatedFeedForward)
        if gated and not layer.pre:
            return None
        return Parts(half, output, half.up, half.down, None, norms, half.activation, 0.0, layer.pre, gated)
    if not isinstance(half, SelectiveFeedForward) or layer.pre:
        return None
    gate = half.gate_down
    centre = gate.centre if isinstance(gate, BinaryLinear) else 0.0
    return Parts(half, output, half.up, gate, half.learn_down, norms, "sigmoid", centre)


def encoder_parts(layer: Block) -> Parts | None:
    """The same of a layer of nothing but attention and feed-forward, one after the other."""
    return None if layer.parallel or layer.cross is not None else parts_after_attention(layer)


def step_parts(layer: Block) -> StepParts | None:
    """Those of a decoder's layer; None where the kernels know no such layer."""
    attention, cross, rest = layer.attention, layer.cross, parts_after_attention(layer)
    if not isinstance(attention, CausalAttention) or not attention.heads:
        return None
    if rest is None or not rest.before:
        return None
    if cross is not None and (layer.parallel or cross.stretch != attention.stretch):
        return None
    norms, reading = (attention.query_norm, attention.key_norm), None
    if cross is not None and layer.cross_norm is not None:
        reading = cross.query, cross.output, layer.cross_norm
    of_heads = tuple(each for each in norms if each is not None)
    return StepParts(attention, attention.qkv, of_heads, rest, cross, reading)


def _settings(layer: Block) -> Settings:
    """What a layer goes by besides modules and tensors, where these can be changed.

    It is asked at every call, so it does without `nn.Module`'s own way to attributes.
    """
    parts = layer._modules
    half, attention, cross = parts["feed_forward"], parts["attention"], parts.get("cross_norm")
    first, second = parts["attention_norm"], parts["feed_forward_norm"]
    assert half is not None
    gate = half._modules.get("gate_down")
    centre = None if gate is None else vars(gate).get("centre")
    third = None if cross is None else vars(cross).get("eps")
    epsilons = vars(first).get("eps"), vars(second).get("eps"), third
    return vars(half).get("activation"), centre, vars(attention).get("stretch"), *epsilons


def _can_compute(parts: Parts, *besides: nn.Module) -> bool:
    kinds = (Linear, *NORMS) if parts.before else (Linear, nn.LayerNorm)
    return parts.activation in ACTIVATIONS and can_read((*besides, *parts.read()), kinds)


def _few(parts: Iterable[nn.Module]) -> int:
    """Up to how many tokens the kernels are faster than torch: always, but in float32."""
    matrices = [part.weight.numel() for part in parts if type(part) is Linear]
    return few_in_a_layer(max(matrices)) if matrices else sys.maxsize


def _made_rest(parts: Parts, kernels: Native) -> Made[LayerRest] | None:
    return Made(rest_of(parts, kernels), _few(parts.read())) if _can_compute(parts) else None


def _made_step(parts: StepParts, architecture: Architecture, kernels: Native) -> Made[DecoderLayer] | None:
    known = parts.rest.activation in ACTIVATIONS
    if not known or not can_read(parts.read(), (Linear, *NORMS), narrow=True):
        return None
    of_heads = [norm_of(part) for part in parts.head_norms]
    reading = None
    if parts.reading is not None:
        query, output, norm = parts.reading
        reading = Reading(matrix_of(query, kernels), matrix_of(output, kernels), norm_of(norm))
    attention, rotary = parts.attention, architecture.rotary
    form = Form(
        heads=attention.heads,
        key_heads=attention.key_heads,
        dim=attention.head_dim,
        turned=0 if rotary is None else 2 * len(rotary.inverse_frequencies),
        parallel=architecture.parallel,
        scale=attention.stretch / math.sqrt(attention.head_dim),
        of_bias=None if attention.of_bias is None else tuple(attention.of_bias),
    )
    layer = DecoderLayer(
        form,
        matrix_of(parts.qkv, kernels),
        rest_of(parts.rest, kernels),
        (of_heads[0], of_heads[1]) if of_heads else None,
        reading,
    )
    in_float = any(type(part) is Linear for part in parts.read())
    return Made(layer, FEW_TOKENS if in_float else sys.maxsize)


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
