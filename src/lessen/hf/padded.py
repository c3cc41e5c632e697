"""transformers' own cache as the memory of a causal model: padded, as beam search and its kin expect it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import Cache, EncoderDecoderCache

from lessen.errors import PlanError
from lessen.model.causal import attend_causal, spread
from lessen.model.cross import CrossAttention, Source
from lessen.model.rows import Rows, rows_of_mask, scatter


@dataclass(frozen=True)
class Padding:
    """Where the tokens of a padded batch are.

    Attributes:
        mask: Which places hold a token, those before the batch included, `[batch, before + length]`, bool.
        index: Of the batch's tokens in the flattened `[batch * length]`, in ragged order.
        length: Of the batch.
    """

    mask: Tensor
    index: Tensor
    length: int

    @property
    def before(self) -> int:
        """Places that were there before the batch."""
        return self.mask.shape[1] - self.length

    def padded(self, heads: Tensor) -> Tensor:
        """`[tokens, heads, head_dim]` to `[batch, heads, length, head_dim]`, zero at padding."""
        return scatter(heads, self.index, (len(self.mask), self.length)).transpose(1, 2)

    @cached_property
    def sees(self) -> Tensor:
        """Which place each place of the batch attends to, `[batch, 1, length, before + length]`, bool.

        Padding attends to everything: what comes of it is dropped, but must not be undefined.
        """
        total = self.mask.shape[1]
        causal = torch.ones(self.length, total, dtype=torch.bool, device=self.mask.device).tril(self.before)
        return (self.mask[:, None] & causal | ~self.mask[:, self.before :, None]).unsqueeze(1)

    @cached_property
    def positions(self) -> Tensor:
        """Of each place's token in its row, `[batch, before + length]`; at padding some number or other."""
        return (self.mask.cumsum(1) - 1).clamp(min=0)

    def biased(self, bias: Tensor) -> Tensor:
        """A bias of positions between places, minus infinity where one does not attend to the other.

        Args:
            bias: `[heads, queries, keys]`, as `model.causal.Memory.attend` takes it.

        Returns:
            `[batch, heads, length, before + length]`.
        """
        first = bias.shape[2] - bias.shape[1]
        queries = (self.positions[:, self.before :] - first).clamp(min=0)
        between = bias[:, queries[:, :, None], self.positions[:, None, :]].transpose(0, 1)
        return between.masked_fill(~self.sees, float("-inf"))


@dataclass(frozen=True)
class PaddedSource:
    """What a decoder reads, as a padded batch.

    Attributes:
        states: Of an encoder, `[batch, length, hidden]`.
        stays: Nonzero at their tokens, `[batch, length]`.
    """

    states: Tensor
    stays: Tensor

    @cached_property
    def _places(self) -> tuple[Tensor, Rows]:
        return rows_of_mask(self.stays)

    @cached_property
    def ragged(self) -> Source:
        """The same without padding."""
        index, rows = self._places
        return Source(self.states.flatten(0, 1)[index], rows)

    def fill(self, cache: EncoderDecoderCache, layer: int, cross: CrossAttention) -> None:
        """Make a layer's keys and values, `[batch, heads, length, head_dim]`, if they are not there yet."""
        if cache.is_updated.get(layer):
            return
        shape = (self.states.shape[0], self.states.shape[1])
        made = cross.keys_values(self.ragged.hidden)
        keys, values = (scatter(part, self._places[0], shape).transpose(1, 2) for part in made)
        cache.cross_attention_cache.update(keys, values, layer)
        cache.is_updated[layer] = True

    @cached_property
    def sees(self) -> Tensor:
        """Which places hold a token, `[batch, 1, 1, length]`, bool."""
        return (self.stays != 0)[:, None, None]

    def of(self, cache: Cache, layer: int) -> PaddedRead:
        """A layer's keys and values as they are in a cache."""
        held = cache.layers[layer]
        return PaddedRead(held.keys, held.values, self.sees)


@dataclass(frozen=True)
class PaddedRead:
    """Keys and values of a source in one layer, `[batch, heads, length, head_dim]`.

    Attributes:
        keys: Of each place.
        values: The same.
        sees: As in `PaddedSource`.
    """

    keys: Tensor
    values: Tensor
    sees: Tensor


class PaddedMemory:
    """One layer of a transformers `Cache`, for one call of the model.

    Args:
        cache: Keys and values are kept in it, `[batch, key heads, length, head_dim]` for each layer.
        layer: Which of its layers (0-based).
        padding: Of the call's batch.
        source: What the layer reads of an encoder's output; None where it reads none.
    """

    def __init__(self, cache: Cache, layer: int, padding: Padding, source: PaddedRead | None = None) -> None:
        self.cache, self.layer, self.padding, self.source = cache, layer, padding, source

    def room(self, rows: Rows) -> None:
        """There is none: transformers keeps its tensors itself."""

    def remember(self, key: Tensor, value: Tensor, rows: Rows) -> None:
        """As `model.causal.Memory`."""
        self._updated(key, value)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, rows: Rows, bias: Tensor | None = None
    ) -> Tensor:
        """As `model.causal.Memory`; rows that begin here are attended to without padding."""
        keys, values = self._updated(key, value)
        if self.padding.before == 0:
            return attend_causal(query, key, value, rows, bias)
        keys, values = (spread(part, query.shape[1]) for part in (keys, values))
        mask = self.padding.sees if bias is None else self.padding.biased(bias)
        return self._found(query, keys, values, mask)

    def across(self, query: Tensor, rows: Rows) -> Tensor:
        """As `model.causal.Memory`."""
        assert self.source is not None
        return self._found(query, self.source.keys, self.source.values, self.source.sees)

    def _found(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Context `[tokens, heads, head_dim]` from padded keys and values."""
        context = scaled_dot_product_attention(self.padding.padded(query), keys, values, attn_mask=mask)
        return context.transpose(1, 2).flatten(0, 1).index_select(0, self.padding.index)

    def _updated(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.update(self.padding.padded(key), self.padding.padded(value), self.layer)


def check_positions(given: Tensor | None, mask: Tensor, before: int) -> None:
    """Refuse positions other than the mask's: tokens count from each row's first one.

    Args:
        given: `[batch or 1, length]`, or None.
        mask: Which places hold a token, `[batch, before + length]`, bool.
        before: Places that are cached.

    Raises:
        PlanError: When they differ at a token, as where several texts are packed into one row.
    """
    if given is None:
        return
    own, real = (mask.long().cumsum(1) - 1)[:, before:], mask[:, before:]
    if given.shape[-1] != own.shape[1] or bool(((given.expand_as(own) != own) & real).any()):
        raise PlanError(
            "position_ids are not those of attention_mask, by which each row is one text; leave them out, "
            "and give texts that are packed into one row a row each"
        )
