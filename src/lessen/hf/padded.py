"""transformers' own cache as the memory of a causal model: padded, as beam search and its kin expect it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import Cache

from lessen.model.causal import attend_causal, spread
from lessen.model.rows import Rows, scatter


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


class PaddedMemory:
    """One layer of a transformers `Cache`, for one call of the model.

    Args:
        cache: Keys and values are kept in it, `[batch, key heads, length, head_dim]` for each layer.
        layer: Which of its layers (0-based).
        padding: Of the call's batch.
    """

    def __init__(self, cache: Cache, layer: int, padding: Padding) -> None:
        self.cache, self.layer, self.padding = cache, layer, padding

    def room(self, rows: Rows) -> None:
        """There is none: transformers keeps its tensors itself."""

    def remember(self, key: Tensor, value: Tensor, rows: Rows) -> None:
        """As `model.causal.Memory`."""
        self._updated(key, value)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, rows: Rows) -> Tensor:
        """As `model.causal.Memory`; rows that begin here are attended to without padding."""
        keys, values = self._updated(key, value)
        if self.padding.before == 0:
            return attend_causal(query, key, value, rows)
        keys, values = (spread(part, query.shape[1]) for part in (keys, values))
        sees = self.padding.sees
        context = scaled_dot_product_attention(self.padding.padded(query), keys, values, attn_mask=sees)
        return context.transpose(1, 2).flatten(0, 1).index_select(0, self.padding.index)

    def _updated(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.update(self.padding.padded(key), self.padding.padded(value), self.layer)
