"""Run layers one after another: the loop that encoders, decoders, and decoders that read an encoder share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from torch import Tensor, nn

from lessen.model.architecture import Architecture
from lessen.model.attention import is_long
from lessen.model.block import Block, Keep, is_plain
from lessen.model.causal import Memory
from lessen.model.cross import CrossAttention, Source
from lessen.model.norms import norm
from lessen.model.relative import PositionBias, RelativeBias
from lessen.model.rotary import rotation
from lessen.model.rows import Rows
from lessen.native import native_for
from lessen.plan import Latent, LayerShape

AfterLayer = Callable[[int, Tensor, Rows], tuple[Tensor, Rows]]
"""`after_layer(layer, hidden, rows)`, with the number of layers run (1-based), returns what goes on."""

InLayer = Callable[[int, Rows], Keep | None]
"""`in_layer(layer, rows)`, with the number of the layer about to run (1-based): what decides who stays."""


class Stack(Protocol):
    """What runs layers: an encoder, a decoder, or a decoder that reads an encoder.

    Attributes:
        architecture: Facts of its own, causal or not.
        depth: Layers an input goes through; there are fewer blocks where they are shared.
        layers: The blocks.
        relative_bias: That all of them share, if there is one.
        final_norm: After the last, if there is one.
    """

    @property
    def architecture(self) -> Architecture: ...
    @property
    def depth(self) -> int: ...
    @property
    def layers(self) -> nn.ModuleList: ...
    @property
    def relative_bias(self) -> RelativeBias | None: ...
    @property
    def final_norm(self) -> nn.Module | None: ...


def relative_bias(architecture: Architecture) -> RelativeBias | None:
    """The bias all layers of a stack share, where the architecture has one."""
    if "relative" not in architecture.position:
        return None
    return RelativeBias(
        architecture.relative_buckets,
        architecture.relative_max_distance,
        architecture.num_attention_heads,
        causal=architecture.causal,
    )


def run_layers(
    stack: Stack,
    hidden: Tensor,
    rows: Rows,
    after_layer: AfterLayer | None = None,
    in_layer: InLayer | None = None,
    memory: Sequence[Memory] | None = None,
    layers: range | None = None,
    source: Source | None = None,
    asked: Collection[int] | None = None,
) -> tuple[Tensor, Rows]:
    """Run layers of a stack; arguments and result as in `Transformer.stack`.

    Args:
        stack: Whose layers.
        hidden: `[tokens, hidden]`.
        rows: Layout of the batch.
        after_layer: As in `Transformer.forward`.
        in_layer: As in `Transformer.forward`.
        memory: As in `Transformer.forward`.
        layers: Which (0-based) to run, neighbours; all if None.
        source: What the layers of a decoder read, where `memory` does not hold it.
        asked: As in `Transformer.forward`.
    """
    facts, last = stack.architecture, stack.depth
    bias = None
    if stack.relative_bias is not None:
        bias = PositionBias(stack.relative_bias, rows, hidden.dtype)
    if after_layer is None:
        asked = ()
    plain = memory is None and source is None and not facts.causal
    blocks = [*stack.layers]
    placed, turning = None, None
    places = range(last) if layers is None else layers
    place = places.start
    while place < places.stop:
        keep = None if in_layer is None else in_layer(place + 1, rows)
        ran = 0
        if plain and keep is None:
            stop = _next_question(asked if in_layer is None else None, place, places.stop)
            free = [blocks[min(each, len(blocks) - 1)] for each in range(place, stop)]
            hidden, ran = _together(free, hidden, rows, bias)
        if not ran:
            if facts.rotary is not None and placed is not rows:
                placed, turning = rows, rotation(facts.rotary, rows.positions, hidden.dtype)
            before = None if memory is None else memory[place]
            block = blocks[min(place, len(blocks) - 1)]
            hidden, rows = block(hidden, rows, bias, keep, turning, before, source)
            ran = 1
        place += ran
        if place == last and stack.final_norm is not None:
            hidden = stack.final_norm(hidden)
        if after_layer is not None and (asked is None or place in asked):
            hidden, rows = after_layer(place, hidden, rows)
            if len(rows) == 0:
                break
    return hidden, rows


def _next_question(asked: Collection[int] | None, place: int, stop: int) -> int:
    """Up to which layer those from `place` on may run at once."""
    if asked is None:
        return place + 1
    return min([stop, *(layer for layer in asked if layer > place)])


def _together(
    blocks: Sequence[nn.Module], hidden: Tensor, rows: Rows, bias: PositionBias | None
) -> tuple[Tensor, int]:
    """What the first of these layers make of it in one call of the kernels, and how many they were."""
    kernels = native_for(hidden) if len(rows) > 0 and len(hidden) == rows.tokens > 0 else None
    if kernels is None or is_long(rows):
        return hidden, 0
    tokens, made = len(hidden), []
    for block in blocks:
        layer = block.fused.whole(block, kernels, tokens) if is_plain(block) else None
        if layer is None:
            break
        made.append(layer)
    if not made:
        return hidden, 0
    near = None if bias is None else bias.for_kernels(rows)
    return kernels.encoder_layers(made, hidden, rows.lengths, near), len(made)


class Decoder(nn.Module):
    """The layers of an encoder-decoder model that write: causal, and each reads the encoder's output.

    Tokens are embedded, and next ones named, by the `Transformer` it is part of.

    Args:
        architecture: Of the decoder.
        layers: Which exist.
        latent: As in `Shape`.
    """

    def __init__(
        self, architecture: Architecture, layers: Sequence[LayerShape], latent: Latent | None = None
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.relative_bias = relative_bias(architecture)
        self.layers = nn.ModuleList(Block(architecture, layer, latent, reads=True) for layer in layers)
        self.final_norm = norm(architecture)

    @property
    def depth(self) -> int:
        """Layers a token goes through."""
        return len(self.layers)

    @property
    def cross_attentions(self) -> list[CrossAttention]:
        """What reads the encoder's output, of each layer."""
        found = (block.cross for block in self.layers)
        return [each for each in found if isinstance(each, CrossAttention)]

    def forward(
        self,
        hidden: Tensor,
        rows: Rows,
        memory: Sequence[Memory] | None = None,
        source: Source | None = None,
        after_layer: AfterLayer | None = None,
    ) -> tuple[Tensor, Rows]:
        """Embedded tokens to last states.

        Args:
            hidden: `[tokens, hidden]`.
            rows: Their layout; rows of the same `original` as the source's read it.
            memory: Of earlier tokens, and then of the source too; None: the rows begin here.
            source: What they read, where there is no memory.
            after_layer: As in `Transformer.forward`.

        Returns:
            `[tokens, hidden]`, and the layout.
        """
        return run_layers(self, hidden, rows, after_layer, memory=memory, source=source)
