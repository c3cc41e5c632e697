"""Cross-attention: tokens a decoder writes attend to what an encoder made of its rows (Vaswani et al. 2017).

Both sides are ragged, each row with its own length on either side. How many tokens an encoder passes on does
not matter here: what has left on the way is not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lessen.model.architecture import Architecture
from lessen.model.attention import stretch_of
from lessen.model.matrices import Numbers, linear
from lessen.model.rows import Rows
from lessen.plan import LayerShape


class Source(NamedTuple):
    """What an encoder made of its rows.

    Attributes:
        hidden: Last states of the tokens that are left, `[tokens, hidden]`.
        rows: Their layout; `original` says which rows of a decoder's batch read which.
    """

    hidden: Tensor
    rows: Rows


class Across(Protocol):
    """Keys and values of one layer that were made of an encoder's output before."""

    def across(self, query: Tensor, rows: Rows) -> Tensor:
        """Let tokens attend to all their row's source holds.

        Args:
            query: `[tokens, heads, head_dim]`.
            rows: Layout of the decoder's tokens; `original` says whose they are.

        Returns:
            Context `[tokens, heads, head_dim]`.
        """
        ...


def attend_across(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, source: Rows, *, dropout: float = 0.0
) -> Tensor:
    """Attention of each row to its source: with gradients padded in one call, else row by row.

    Args:
        query: `[tokens, heads, head_dim]`.
        key: Of the source, `[source tokens, heads, head_dim]`.
        value: The same.
        rows: Layout of the queries. Each of its rows has a source.
        source: Layout of the keys.
        dropout: Probability of dropping an attention weight.

    Returns:
        Context `[tokens, heads, head_dim]`.
    """
    places = [source.original.index(row) for row in rows.original]
    if torch.is_grad_enabled() or query.is_cuda or dropout:
        order = torch.tensor(places, device=query.device)
        padded = [part.transpose(1, 2) for part in (rows.pad(query), source.pad(key), source.pad(value))]
        mask = None if source.even else source.key_mask[order].to(query.dtype)
        context = scaled_dot_product_attention(
            padded[0], padded[1][order], padded[2][order], attn_mask=mask, dropout_p=dropout
        )
        return rows.unpad(context.transpose(1, 2))
    parts = (states.split(source.lengths) for states in (key, value))
    sources = [tuple(part.transpose(0, 1)[None] for part in pair) for pair in zip(*parts, strict=True)]
    return attend_row_by_row(query, [sources[place] for place in places], rows)


def attend_row_by_row(query: Tensor, sources: Sequence[tuple[Tensor, ...]], rows: Rows) -> Tensor:
    """The same without gradients, in the type keys and values have.

    Args:
        query: `[tokens, heads, head_dim]`.
        sources: Keys and values of each row, `[1, heads, source tokens, head_dim]`.
        rows: Layout of the queries.

    Returns:
        Context `[tokens, heads, head_dim]`, in the type of the queries.
    """
    contexts = []
    for part, (keys, values) in zip(query.split(rows.lengths), sources, strict=True):
        asked = part.to(keys.dtype).transpose(0, 1)[None]
        contexts.append(scaled_dot_product_attention(asked, keys, values)[0].transpose(0, 1))
    context = contexts[0] if len(contexts) == 1 else torch.cat(contexts)
    return context.to(query.dtype)


def attend_across_reference(query: Tensor, key: Tensor, value: Tensor, rows: Rows, source: Rows) -> Tensor:
    """The definition, token by token. The oracle of `attend_across`."""
    contexts, start = [], 0
    for row, length in zip(rows.original, rows.lengths, strict=True):
        place = source.original.index(row)
        begin = sum(source.lengths[:place])
        keys, values = (part[begin : begin + source.lengths[place]] for part in (key, value))
        for token in range(start, start + length):
            scores = torch.einsum("hd,khd->hk", query[token], keys) / math.sqrt(query.shape[-1])
            contexts.append(torch.einsum("hk,khd->hd", scores.softmax(-1), values))
        start += length
    return torch.stack(contexts)


class CrossAttention(nn.Module):
    """Multi-head attention to an encoder's output, without positions.

    The rows of `key_value` are ordered as [key heads, value heads], `head_dim` rows each.
    """

    def __init__(self, architecture: Architecture, shape: LayerShape, numbers: Numbers) -> None:
        super().__init__()
        self.heads, self.head_dim = len(shape.heads), architecture.head_dim
        self.dropout = architecture.attention_dropout
        self.stretch = stretch_of(architecture)
        width, inner = architecture.hidden_size, self.heads * self.head_dim
        biases = architecture.biases
        self.query = linear(width, inner, None, numbers, bias="qkv" in biases)
        self.key_value = linear(width, 2 * inner, None, numbers, bias="qkv" in biases)
        self.output = linear(inner, width, None, numbers, bias="attention_output" in biases)

    def keys_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of an encoder's last states `[tokens, hidden]`, `[tokens, heads, head_dim]`."""
        made = self.key_value(hidden).unflatten(-1, (2, self.heads, self.head_dim))
        return made[:, 0], made[:, 1]

    def forward(
        self, hidden: Tensor, rows: Rows, source: Source | None = None, memory: Across | None = None
    ) -> Tensor:
        """What a decoder's tokens find in their source.

        Args:
            hidden: Of the decoder, `[tokens, hidden]`.
            rows: Their layout.
            source: What they read, where nothing was made of it before.
            memory: What was made of it before; goes first.

        Returns:
            `[tokens, hidden]`.

        Raises:
            ValueError: When there is neither.
        """
        if self.heads == 0:
            return self.output(hidden.new_empty(len(hidden), 0))
        query = self.query(hidden).unflatten(-1, (self.heads, self.head_dim))
        if self.stretch != 1:
            query = query * self.stretch
        if memory is not None:
            return self.output(memory.across(query, rows).flatten(1))
        if source is None:
            raise ValueError("a decoder's layer needs the output of its encoder, or a memory of it")
        key, value = self.keys_values(source.hidden)
        dropout = self.dropout if self.training else 0.0
        return self.output(attend_across(query, key, value, rows, source.rows, dropout=dropout).flatten(1))
