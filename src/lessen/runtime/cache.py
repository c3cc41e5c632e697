"""The memory of a batch that is being generated: keys and values of each layer, in place, with no padding.

Rows are of different lengths, and so may be the layers of one row: a token that leaves in a layer is not in
the cache of the next, and a layer that has not run for a token yet does not hold it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lessen.errors import PlanError
from lessen.model.causal import CausalAttention, Memory, attend_causal
from lessen.model.cross import Source
from lessen.model.rows import Rows
from lessen.model.transformer import Transformer
from lessen.native import Room
from lessen.runtime.source import SourceCache


class LayerCache:
    """Keys and values of one layer.

    Attributes:
        keys: `[rows, key heads, capacity, head_dim]`; turned, where positions are rotary.
        values: The same.
        lengths: How many tokens of each row are held.
        gone: How many earlier tokens of each row are not, because they had left before this layer.
        source: What the layer reads of an encoder's output; None where it reads none.
    """

    source: SourceCache | None = None
    _room: Room | None = None

    def __init__(
        self, rows: int, heads: int, capacity: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (rows, heads, capacity, head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.lengths = [0] * rows
        self.gone = [0] * rows

    def seen(self, row: int) -> int:
        """How many tokens of a row this layer has come to: the position of its next one."""
        return self.lengths[row] + self.gone[row]

    def truncate(self, row: int, position: int) -> None:
        """Forget the tokens of a row from a position on; not from within a prompt of which tokens left."""
        self.lengths[row] = max(0, min(self.lengths[row], position - self.gone[row]))

    def room(self, rows: Rows) -> Room | None:
        """As `model.causal.Memory`.

        Raises:
            PlanError: When a row outgrows the capacity, or its layout does not count what is held.
        """
        if self.keys.dtype != torch.float32 or self.keys.device.type != "cpu":
            return None
        if self._room is None or self._room.keys is not self.keys or self._room.values is not self.values:
            self._room = Room(self.keys, self.values)
        if self.source is not None:
            self._room.read([self.source.held[row] for row in rows.original])
        return self._room.hold(self._reserved(rows))

    def remember(self, key: Tensor, value: Tensor, rows: Rows) -> None:
        """As `model.causal.Memory`.

        Raises:
            PlanError: When a row outgrows the capacity, or its layout does not count what is held.
        """
        start = 0
        for row, length, held in self._reserved(rows):
            stop, end = held + length, start + length
            self.keys[row, :, held:stop] = key[start:end].transpose(0, 1)
            self.values[row, :, held:stop] = value[start:end].transpose(0, 1)
            start = end

    def _reserved(self, rows: Rows) -> list[tuple[int, int, int]]:
        """Count new tokens as held: for each row, which it is, how many are new, how many were held."""
        reserved = []
        for row, length, full in zip(rows.original, rows.lengths, rows.full_lengths, strict=True):
            held = self.lengths[row]
            stop = held + length
            if stop > self.keys.shape[2]:
                room = self.keys.shape[2]
                raise PlanError(f"the cache has room for {room} tokens of a row, not for {stop}")
            if full < stop:
                raise PlanError(
                    f"a layout counts {full} tokens of a row of which the cache would hold {stop}"
                )
            self.lengths[row], self.gone[row] = stop, full - stop
            reserved.append((row, length, held))
        return reserved

    def across(self, query: Tensor, rows: Rows) -> Tensor:
        """As `model.causal.Memory`.

        Raises:
            PlanError: When the cache was made without a source.
        """
        if self.source is None:
            raise PlanError("the cache knows no encoder's output for this layer to read")
        return self.source.attend(query, rows)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, rows: Rows, bias: Tensor | None = None
    ) -> Tensor:
        """As `model.causal.Memory`; a bias of positions is for rows all of whose tokens are held."""
        before = [self.lengths[row] for row in rows.original]
        self.remember(key, value, rows)
        if not any(before):
            return attend_causal(query, key, value, rows, bias)
        contexts = [
            self._of_row(part, row, held, bias)
            for part, row, held in zip(query.split(rows.lengths), rows.original, before, strict=True)
        ]
        return contexts[0] if len(contexts) == 1 else torch.cat(contexts)

    def _of_row(self, query: Tensor, row: int, before: int, bias: Tensor | None) -> Tensor:
        """Context of a row's new tokens, `[tokens, heads, head_dim]`.

        Query heads that share keys become queries of one head, so that nothing has to be repeated.
        """
        tokens, heads, dim = query.shape
        key_heads, stop = self.keys.shape[1], before + tokens
        keys, values = self.keys[row : row + 1, :, :stop], self.values[row : row + 1, :, :stop]
        kind, query = query.dtype, query.to(keys.dtype)
        if bias is not None:
            first = before - (bias.shape[2] - bias.shape[1])
            bias = bias[:, first : first + tokens, :stop].unflatten(0, (key_heads, -1)).flatten(1, 2)
        if tokens == 1:
            query = query.reshape(1, key_heads, -1, dim)
            if bias is not None:
                context = scaled_dot_product_attention(query, keys, values, attn_mask=bias.to(keys.dtype))
                return context.reshape(1, heads, dim).to(kind)
            return scaled_dot_product_attention(query, keys, values).reshape(1, heads, dim).to(kind)
        grouped = query.unflatten(1, (key_heads, -1)).permute(1, 2, 0, 3).flatten(1, 2)
        if bias is not None:
            sees = bias.to(keys.dtype)
        else:
            sees = torch.ones(tokens, stop, dtype=torch.bool, device=query.device).tril(before)
            sees = sees.repeat(heads // key_heads, 1)
        context = scaled_dot_product_attention(grouped[None], keys, values, attn_mask=sees)[0]
        return context.unflatten(1, (-1, tokens)).permute(2, 0, 1, 3).flatten(1, 2).to(kind)


class KeyValueCache:
    """The memory of what writes, a causal model or a decoder: a `LayerCache` for each layer.

    It is of the type of the weights, on a CPU at least float32: the kernels attend in that.

    Args:
        model: Whose.
        rows: Of the batch; layouts name them by `original`.
        capacity: Tokens of a row there is room for.
        source: What the decoder of an encoder-decoder model reads.
    """

    def __init__(self, model: Transformer, rows: int, capacity: int, source: Source | None = None) -> None:
        table = model.embeddings.token.weight
        narrow = table.dtype == torch.bfloat16 and table.device.type == "cpu"
        dtype = torch.float32 if narrow or not table.is_floating_point() else table.dtype
        self.layers = [
            LayerCache(rows, attention.key_heads, capacity, attention.head_dim, dtype, table.device)
            for attention in (block.attention for block in model.writer.layers)
            if isinstance(attention, CausalAttention)
        ]
        if len(self.layers) < len(model.writer.layers):
            raise PlanError("only causal models have a cache")
        if source is not None and model.decoder is not None:
            for layer, cross in zip(self.layers, model.decoder.cross_attentions, strict=True):
                layer.source = SourceCache(cross, source, dtype)

    @property
    def memory(self) -> list[Memory]:
        """As `Transformer.forward` takes it."""
        return list(self.layers)

    def next_position(self, row: int) -> int:
        """Where the next token of a row stands."""
        return self.layers[0].seen(row)

    def truncate(self, row: int, position: int) -> None:
        """Forget the tokens of a row from a position on, in all layers."""
        for layer in self.layers:
            layer.truncate(row, position)

    def layout(self, counts: Mapping[int, int], layer: int = 0) -> Rows:
        """The layout of so many more tokens of each of these rows, shortest first.

        Args:
            counts: By row.
            layer: Where they go on (0-based): positions follow those it has come to.
        """
        device, cache = self.layers[0].keys.device, self.layers[layer]
        order = sorted(counts, key=counts.__getitem__)
        places = [cache.seen(row) for row in order]
        lengths = tuple(counts[row] for row in order)
        full = tuple(place + length for place, length in zip(places, lengths, strict=True))
        positions = [position for ends in zip(places, full, strict=True) for position in range(*ends)]
        return Rows(lengths, tuple(order), device, full, torch.tensor(positions, device=device))
