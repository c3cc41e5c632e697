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
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from lessen.bits.binarizer import Centre
from lessen.model.architecture import Architecture
from lessen.model.attention import Attention
from lessen.model.causal import CausalAttention
from lessen.model.cross import CrossAttention
from lessen.model.feed_forward import FeedForward, GatedFeedForward, SelectiveFeedForward
from lessen.model.few_bits import BinaryLinear
from lessen.model.linear import FEW_TOKENS, Linear, few_in_a_layer
from lessen.model.norms import NORMS, norm_of
from lessen.model.prepared import Prepared, Settings, can_read, matrix_of, size_of
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
        architecture: Family facts.
    """

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self._whole: Prepared[Made[EncoderLayer]] = Prepared()
        self._rest: Prepared[Made[LayerRest]] = Prepared()
        self._step: Prepared[Made[DecoderLayer]] = Prepared()
        self._rest_of: Parts | None = None
        self._step_of: StepParts | None = None

    def __reduce__(self) -> tuple[type[Fused], tuple[Architecture]]:
        return Fused, (self.architecture,)

    def whole(self, layer: Block, kernels: Native, tokens: int) -> EncoderLayer | None:
        """All of an encoder's layer, none of whose tokens leave; None where something else is to compute it.

        Args:
            layer: The layer this is of.
            kernels: That would compute it.
            tokens: To be computed.
        """
        if _trains(layer):
            return None
        make = partial(_made_whole, layer)
        return _for(tokens, self._whole.ready(kernels, make, layer.modules, _settings(layer), layer))

    def rest(self, layer: Block, kernels: Native, tokens: int) -> LayerRest | None:
        """What follows the attention; arguments and result as in `whole`."""
        parts = None if _trains(layer) else parts_in_turn(layer)
        if parts is None:
            return None
        if self._rest_of != parts:
            self._rest_of, self._rest = parts, Prepared()
        make = partial(_made_rest, parts)
        return _for(tokens, self._rest.ready(kernels, make, parts.modules, _settings(layer)))

    def step(self, layer: Block, kernels: Native, tokens: int) -> DecoderLayer | None:
        """All of a decoder's layer for new tokens; arguments and result as in `whole`."""
        parts = None if _trains(layer) else step_parts(layer)
        if parts is None:
            return None
        if self._step_of != parts:
            self._step_of, self._step = parts, Prepared()
        make = partial(_made_step, parts, self.architecture)
        return _for(tokens, self._step.ready(kernels, make, parts.modules, _settings(layer)))


class Parts(NamedTuple):
    """The modules of a layer that run after its attention.

    Attributes:
        half: The feed-forward half as a whole.
        output: Of the attention.
        up: Of the feed-forward half.
        down: The same; of SLFN, that of the gate.
        learned: Of SLFN's other branch, or None.
        norms: Of both halves.
        width: Of what the attention found: all of its heads.
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
    width: int
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
    half, attention = layer.feed_forward, layer.attention
    if type(attention) not in (Attention, CausalAttention):
        return None
    norms = layer.attention_norm, layer.feed_forward_norm
    output, width = attention.output, attention.heads * attention.head_dim
    if type(half) is FeedForward or type(half) is GatedFeedForward:
        gated = type(half) is GatedFeedForward
        if (gated and not layer.pre) or _centre_of(half.down):
            return None
        of_half = half.activation, 0.0, layer.pre, gated
        return Parts(half, output, half.up, half.down, None, norms, width, *of_half)
    if type(half) is not SelectiveFeedForward or layer.pre:
        return None
    gate, centre = half.gate_down, _centre_of(half.gate_down)
    if centre == "rectified":
        return None
    return Parts(half, output, half.up, gate, half.learn_down, norms, width, "sigmoid", centre)


def _centre_of(layer: nn.Module) -> Centre:
    return layer.centre if isinstance(layer, BinaryLinear) else 0.0


def parts_in_turn(layer: Block) -> Parts | None:
    """The same of a layer of nothing but attention and feed-forward, one after the other."""
    return None if layer.parallel or layer.cross is not None else parts_after_attention(layer)


def step_parts(layer: Block) -> StepParts | None:
    """Those of a decoder's layer; None where the kernels know no such layer."""
    attention, cross, rest = layer.attention, layer.cross, parts_after_attention(layer)
    if not isinstance(attention, CausalAttention) or not attention.heads:
        return None
    if rest is None or not rest.before:
        return None
    if cross is not None:
        if type(cross) is not CrossAttention or layer.parallel or cross.stretch != attention.stretch:
            return None
        if (cross.heads, cross.head_dim) != (attention.heads, attention.head_dim):
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
    assert attention is not None
    gate = half._modules.get("gate_down")
    centre = None if gate is None else vars(gate).get("centre")
    of_heads = (attention._modules.get(name) for name in ("query_norm", "key_norm"))
    epsilons = [vars(each).get("eps") for each in (first, second, cross, *of_heads) if each is not None]
    return vars(half).get("activation"), centre, vars(attention).get("stretch"), *epsilons


def _trains(layer: Block) -> bool:
    """Whether any of what drops something out in training does."""
    parts = layer._modules
    dropping = (layer, parts["dropout"], parts["attention"], parts.get("cross"))
    return any(each is not None and each.training for each in dropping)


def _for(tokens: int, made: Made[Call] | None) -> Call | None:
    """The call, unless torch is faster for so many tokens."""
    return None if made is None or tokens > made.few else made.call


def _can_compute(parts: Parts, *besides: nn.Module, narrow: bool = False) -> bool:
    """Whether the kernels can read all parts, know what is between them, and one takes what another gives."""
    kinds = (Linear, *NORMS) if parts.before else (Linear, nn.LayerNorm)
    if parts.activation not in ACTIVATIONS:
        return False
    return can_read((*besides, *parts.read()), kinds, narrow=narrow) and _go_together(parts)


def _go_together(parts: Parts) -> bool:
    first, second = parts.norms
    width = _width(first)
    inner = size_of(parts.down)[1]
    made = inner * (2 if parts.gated or parts.learned is not None else 1)
    sizes = [size_of(parts.output), size_of(parts.up), size_of(parts.down)]
    sizes += [] if parts.learned is None else [size_of(parts.learned)]
    wanted = [(width, parts.width), (made, width), (width, inner), (width, inner)]
    return type(first) is type(second) and _width(second) == width and sizes == wanted[: len(sizes)]


def _width(norm: nn.Module) -> int:
    """Of what a norm norms."""
    weight = norm.weight
    assert isinstance(weight, Tensor)
    return len(weight)


def _made_whole(layer: Block, kernels: Native) -> Made[EncoderLayer] | None:
    parts, attention = parts_in_turn(layer), layer.attention
    if parts is None or not isinstance(attention, Attention) or not attention.heads:
        return None
    if not _can_compute(parts, attention.qkv):
        return None
    if size_of(attention.qkv) != (3 * parts.width, _width(parts.norms[0])):
        return None
    call = EncoderLayer(
        matrix_of(attention.qkv, kernels),
        attention.heads,
        attention.head_dim,
        attention.stretch / math.sqrt(attention.head_dim),
        rest_of(parts, kernels),
        attention.of_bias,
    )
    return Made(call, _few((attention.qkv, *parts.read())))


def _few(parts: Iterable[nn.Module]) -> int:
    """Up to how many tokens the kernels are faster than torch: always, but in float32."""
    matrices = [part.weight.numel() for part in parts if type(part) is Linear]
    return few_in_a_layer(max(matrices)) if matrices else sys.maxsize


def _made_rest(parts: Parts, kernels: Native) -> Made[LayerRest] | None:
    return Made(rest_of(parts, kernels), _few(parts.read())) if _can_compute(parts) else None


def _made_step(parts: StepParts, architecture: Architecture, kernels: Native) -> Made[DecoderLayer] | None:
    attention, rotary = parts.attention, architecture.rotary
    besides = (*parts.head_norms, *(parts.reading or ()))
    if not _can_compute(parts.rest, parts.qkv, *besides, narrow=True):
        return None
    width = _width(parts.rest.norms[0])
    if size_of(parts.qkv) != (parts.rest.width + 2 * attention.key_heads * attention.head_dim, width):
        return None
    if any(type(each) is not nn.RMSNorm or _width(each) != attention.head_dim for each in parts.head_norms):
        return None
    of_heads = [norm_of(part) for part in parts.head_norms]
    reading = None
    if parts.reading is not None:
        query, output, norm = parts.reading
        if type(norm) is not type(parts.rest.norms[0]) or _width(norm) != width:
            return None
        if (size_of(query), size_of(output)) != ((parts.rest.width, width), (width, parts.rest.width)):
            return None
        reading = Reading(matrix_of(query, kernels), matrix_of(output, kernels), norm_of(norm))
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
