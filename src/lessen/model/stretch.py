"""Layers of a decoder that follow one another, in one call of the kernels: nothing is decided in between."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch import Tensor, nn

from lessen.model.block import Block, is_plain
from lessen.model.causal import Memory
from lessen.model.linear import FEW_TOKENS
from lessen.model.norms import NORMS, norm_of
from lessen.model.prepared import can_read
from lessen.model.rotary import Turns
from lessen.model.rows import Rows
from lessen.model.stack import Stack
from lessen.native import Bias, DecoderLayer, LastNorm, Native, native_for


class Stretch:
    """A run of layers, for as long as a text is being written.

    Blocks are looked at once, at the first call, and not at every token, where that would take longer than a
    small layer: while this object is in use, weights are not to be changed, nor modules watched or replaced.

    Args:
        stack: Whose layers.
        layers: Which (0-based).
        turns: Of positions, where they are rotary.
    """

    def __init__(self, stack: Stack, layers: range, turns: Turns | None) -> None:
        self.stack, self.layers, self.turns = stack, layers, turns
        self._kernels: Native | None = None
        self._made: list[DecoderLayer] = []
        self._last: LastNorm | None = None
        self._most = 0

    def run(self, hidden: Tensor, rows: Rows, memory: Sequence[Memory]) -> Tensor | None:
        """What `run_layers` makes of it; None, with nothing remembered, where layers go one by one.

        Args:
            hidden: `[tokens, hidden]`.
            rows: Layout of the tokens.
            memory: Of earlier tokens, of all layers of the stack.
        """
        kernels = native_for(hidden, narrow=True)
        if kernels is None:
            return None
        if self._kernels is not kernels:
            self._look(kernels)
        if len(hidden) > self._most:
            return None
        first = memory[self.layers.start].room(rows)
        if first is None:
            return None
        rooms = [first]
        for place in self.layers[1:]:
            room = memory[place].room(rows)
            assert room is not None, "memories of a model are of one kind"
            rooms.append(room)
        turning = None if self.turns is None else self.turns.at(rows, hidden.dtype)
        bias = self.stack.relative_bias
        near = None if bias is None else Bias(bias.by_distance(max(rows.full_lengths)))
        return kernels.decoder_layers(self._made, rooms, turning, hidden, self._last, near)

    def _look(self, kernels: Native) -> None:
        """Make the layers ready, and note for how many tokens the kernels are faster than torch."""
        found = self.stack.layers
        asked = (found[min(place, len(found) - 1)] for place in self.layers)
        blocks = [block for block in asked if is_plain(block)]
        self._kernels, self._most = kernels, 0
        if len(blocks) < len(self.layers):
            return
        last = self.stack.final_norm if self.layers.stop == self.stack.depth else None
        if last is not None and not _may_be_last(last, blocks[-1]):
            return
        few, many = (
            [block.fused.step(block, kernels, tokens) for block in blocks] for tokens in (1, FEW_TOKENS + 1)
        )
        made = [layer for layer in few if layer is not None]
        if len(made) == len(blocks):
            self._made, self._last = made, None if last is None else LastNorm(norm_of(last))
            self._most = FEW_TOKENS if None in many else sys.maxsize


def _may_be_last(norm: nn.Module, layer: Block) -> bool:
    """Whether the kernels can do a norm after a layer: one of the kind of its own that nobody watches."""
    if type(norm) is not type(layer.feed_forward_norm) or not can_read([norm], NORMS, narrow=True):
        return False
    return "forward" not in vars(norm) and not norm._forward_hooks and not norm._forward_pre_hooks
