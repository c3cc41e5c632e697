"""Causal self-attention: a token attends to itself and to what stood before it in its row.

Heads of keys and values may each be shared by several query heads (Ainslie et al. 2023). Where tokens come
one after the other, a memory keeps the keys and values of those before; of what kind is not known here.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lessen.model.architecture import Architecture
from lessen.model.attention import Score, attend, attend_by_kernels, attend_scored, stretch_of
from lessen.model.linear import Linear, multiply
from lessen.model.matrices import Numbers, linear
from lessen.model.relative import PositionBias, heads_left
from lessen.model.rotary import Rotation, turn
from lessen.model.rows import Rows
from lessen.native import Room
from lessen.plan import LayerShape


class Memory(Protocol):
    """Keys and values of one layer, of all tokens that came before."""

    def room(self, rows: Rows) -> Room | None:
        """Where the kernels may write those of new tokens, which then count as kept; None: they may not."""
        ...

    def remember(self, key: Tensor, value: Tensor, rows: Rows) -> None:
        """Keep those of new tokens, `[tokens, key heads, head_dim]`, at the end of their rows."""
        ...

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, rows: Rows, bias: Tensor | None = None
    ) -> Tensor:
        """Remember new tokens, and let each attend to all before it.

        Args:
            query: `[tokens, heads, head_dim]`.
            key: `[tokens, key heads, head_dim]`.
            value: The same.
            rows: Layout of the new tokens; `original` says whose they are.
            bias: Added to the scores, `[heads, queries, keys]`: from the last `queries` of `keys` positions
                to all of them, minus infinity to later ones.

        Returns:
            Context `[tokens, heads, head_dim]`.
        """
        ...

    def across(self, query: Tensor, rows: Rows) -> Tensor:
        """As `model.cross.Across`, where the layer reads an encoder's output."""
        ...


def attend_causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Rows,
    bias: Tensor | None = None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of each token to itself and to those before it in its row.

    In a batch padded at the end no token sees padding, so it needs no mask of its own.

    Args:
        query: `[tokens, heads, head_dim]`.
        key: `[tokens, key heads, head_dim]`; each is shared by as many neighbouring query heads.
        value: The same.
        rows: Layout of the batch.
        bias: Added to the scores, `[heads, longest, longest]`, minus infinity to later tokens.
        dropout: Probability of dropping an attention weight.

    Returns:
        Context `[tokens, heads, head_dim]`.
    """
    written_out = torch.is_grad_enabled() and query.device.type == "cpu" and query.dtype == torch.bfloat16
    if bias is not None or written_out:
        return attend(*_bidirectional(query, key, value, rows, bias), dropout=dropout)
    found = None if dropout else attend_by_kernels(query, key, value, rows, causal=True)
    if found is not None:
        return found[0]
    heads = query.shape[1]
    key, value = spread(key, heads), spread(value, heads)
    if torch.is_grad_enabled() or query.is_cuda or dropout:
        query, key, value = (rows.pad(part).transpose(1, 2) for part in (query, key, value))
        context = scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return rows.unpad(context.transpose(1, 2))
    contexts = []
    for group in rows.groups:
        q, k, v = (group.view(part).transpose(1, 2) for part in (query, key, value))
        context = scaled_dot_product_attention(q, k, v, is_causal=True)
        contexts.append(context.transpose(1, 2).flatten(0, 1))
    return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


def attend_causal_reference(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, bias: Tensor | None = None
) -> Tensor:
    """The definition, token by token and head by head. The oracle of `attend_causal`."""
    context = torch.empty_like(query)
    shared = query.shape[1] // key.shape[1]
    start = 0
    for length in rows.lengths:
        for token in range(start, start + length):
            for head in range(query.shape[1]):
                keys, values = (part[start : token + 1, head // shared] for part in (key, value))
                scores = keys @ query[token, head] / math.sqrt(query.shape[-1])
                if bias is not None:
                    scores = scores + bias[head, token - start, : token - start + 1]
                context[token, head] = scores.softmax(0) @ values
        start += length
    return context


def spread(heads: Tensor, count: int) -> Tensor:
    """`[..., key heads, ..., head_dim]`, heads second, to `count` heads: each as often as it is shared."""
    return heads if heads.shape[1] == count else heads.repeat_interleave(count // heads.shape[1], 1)


def _bidirectional(
    query: Tensor, key: Tensor, value: Tensor, rows: Rows, bias: Tensor | None = None
) -> tuple[Tensor, Rows, Tensor]:
    """The same as attention in both directions takes it, with a bias that forbids one of them.

    What is left of a row keeps its order, so without a bias of positions those are not asked for.
    """
    heads = query.shape[1]
    qkv = torch.stack([query, spread(key, heads), spread(value, heads)], 1)
    if bias is not None:
        return qkv, rows, bias
    never = qkv.new_full((1, rows.lengths[-1], rows.lengths[-1]), float("-inf"))
    return qkv, Rows(rows.lengths, rows.original, rows.device), never.triu_(1)


class CausalAttention(nn.Module):
    """Multi-head causal self-attention with one matrix for queries, keys and values.

    The rows of `qkv` are ordered as [query heads, key heads, value heads], `head_dim` rows each. Query heads
    that share a head of keys and values are neighbours.
    """

    def __init__(self, architecture: Architecture, shape: LayerShape, numbers: Numbers) -> None:
        super().__init__()
        self.head_dim = dim = architecture.head_dim
        self.heads = heads = len(shape.heads)
        self.of_bias = heads_left(architecture, shape)
        self.key_heads = heads // architecture.shared_heads
        self.stretch = stretch_of(architecture)
        self.dropout = architecture.attention_dropout
        width, inner, biases = architecture.hidden_size, heads * dim, architecture.biases
        outputs = inner + 2 * self.key_heads * dim
        self.qkv = linear(width, outputs, shape.rank.qkv, numbers, bias="qkv" in biases)
        rank = shape.rank.attention_output
        self.output = linear(inner, width, rank, numbers, bias="attention_output" in biases)
        self.query_norm = nn.RMSNorm(dim, eps=architecture.norm_eps) if architecture.qk_norm else None
        self.key_norm = nn.RMSNorm(dim, eps=architecture.norm_eps) if architecture.qk_norm else None

    def context(
        self,
        hidden: Tensor,
        rows: Rows,
        rotation: Rotation | None = None,
        score: Score | None = None,
        memory: Memory | None = None,
        bias: PositionBias | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What the heads found, before `output`; and scores, if asked for.

        Args:
            hidden: `[tokens, hidden]`.
            rows: Layout of the batch.
            rotation: Of each token, where positions are rotary.
            score: From attention to scores; the rows then have to be whole, with nothing remembered before.
            memory: Of earlier tokens; None: there are none.
            bias: Of the stack.

        Returns:
            `[tokens, heads * head_dim]`, and `[tokens]` or None.
        """
        if self.heads == 0:
            wide = torch.promote_types(hidden.dtype, torch.float32)
            nothing = None if score is None else hidden.new_zeros(len(hidden), dtype=wide)
            return hidden.new_empty(len(hidden), 0), nothing
        query, key, value = self._projected(hidden, rotation)
        added = None if bias is None else bias.written_out(self.of_bias)
        dropout = self.dropout if self.training else 0.0
        if score is None:
            if memory is not None:
                return memory.attend(query, key, value, rows, added).flatten(1), None
            return attend_causal(query, key, value, rows, added, dropout=dropout).flatten(1), None
        if memory is not None:
            memory.remember(key, value, rows)
        found = None
        if bias is None and not dropout:
            found = attend_by_kernels(query, key, value, rows, score, causal=True)
        if found is not None:
            return found[0].flatten(1), found[1]
        qkv, rows, added = _bidirectional(query, key, value, rows, added)
        context, scores = attend_scored(qkv, rows, score, added, dropout=dropout)
        return context.flatten(1), scores

    def remember(self, hidden: Tensor, rows: Rows, rotation: Rotation | None, memory: Memory) -> None:
        """Keep keys and values of tokens that go through no more of the layer than this.

        Args:
            hidden: `[tokens, hidden]`, normed.
            rows: Layout of the tokens.
            rotation: As in `context`.
            memory: Where they are kept.
        """
        if self.heads == 0:
            return
        inner = self.heads * self.head_dim
        if type(self.qkv) is Linear:
            found = multiply(hidden, self.qkv.weight[inner:]).to(hidden.dtype)
            if self.qkv.bias is not None:
                found = found + self.qkv.bias[inner:]
        else:
            found = self.qkv(hidden)[:, inner:]
        key, value = found.unflatten(-1, (2 * self.key_heads, self.head_dim)).chunk(2, 1)
        if self.key_norm is not None:
            key = self.key_norm(key)
        if rotation is not None:
            key = turn(key.contiguous(), rotation)
        memory.remember(key, value, rows)

    def _projected(self, hidden: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, `[tokens, their heads, head_dim]`, normed and turned."""
        turning = self.heads + self.key_heads
        qkv = self.qkv(hidden).unflatten(-1, (turning + self.key_heads, self.head_dim))
        queries_keys, value = qkv.split((turning, self.key_heads), 1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = queries_keys.split((self.heads, self.key_heads), 1)
            queries_keys = torch.cat([self.query_norm(query), self.key_norm(key)], 1)
        if rotation is not None:
            queries_keys = turn(queries_keys, rotation)
        query, key = queries_keys.split((self.heads, self.key_heads), 1)
        return query if self.stretch == 1 else query * self.stretch, key, value
