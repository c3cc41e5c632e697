"""Self-attention over a ragged batch: every row attends to itself.

In inference no padding is computed. With gradients one padded call replaces many small ones, because the
backward passes of small calls cost far more than the padding of length-grouped batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lessen.model.architecture import MATRICES, Architecture, MatrixName
from lessen.model.linear import mkl_packs
from lessen.model.matrices import REAL, Numbers, linear
from lessen.model.relative import PositionBias
from lessen.model.rows import Group, Rows
from lessen.model.written_out import attend_written_out
from lessen.native import native_for
from lessen.plan import Rank

Score = Callable[[Tensor, Tensor | None], Tensor]
"""`score(probabilities [rows, heads, queries, keys], real [rows, keys] or None)` to `[rows, keys]`."""

LONG = 192
"""Tokens from which on torch's fused attention of rows of equal length beats our own kernel with MKL."""


def is_long(rows: Rows) -> bool:
    """Whether torch attends to rows faster than our own kernel; where it has no MKL it never does."""
    return rows.lengths[-1] >= LONG and mkl_packs()


def attend_by_kernels(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Rows,
    score: Score | None = None,
    bias: PositionBias | None = None,
    heads: list[int] | None = None,
    stretch: float = 1.0,
    *,
    causal: bool = False,
) -> tuple[Tensor, Tensor | None] | None:
    """Attention of each row to itself in our own kernels, and a score of every token, if asked for.

    Args:
        query: `[tokens, heads, head_dim]`.
        key: `[tokens, key heads, head_dim]`; each is shared by as many neighbouring query heads.
        value: The same.
        rows: Layout of the batch.
        score: From probabilities to scores.
        bias: Of the stack.
        heads: Which of the bias's there are; all if None.
        stretch: Queries are multiplied by it.
        causal: Whether a token sees none after it.

    Returns:
        Context `[tokens, heads, head_dim]`, and `[tokens]` or None; None where they cannot compute it, or
        torch is faster.
    """
    counted = score if isinstance(score, Counted) else None
    if (score is not None and counted is None) or not query.dtype == key.dtype == value.dtype:
        return None
    kernels = native_for(query)
    if kernels is None or (score is None and is_long(rows)):
        return None
    near = None if bias is None else bias.for_kernels(rows, heads)
    listened = 0 if counted is None else counted.listened(rows)
    context, gets = kernels.attention(
        query, key, value, rows.lengths, causal=causal, stretch=stretch, bias=near, listened=listened
    )
    return context, gets if gets is None or counted is None else counted.spread(gets, rows)


def attend(qkv: Tensor, rows: Rows, bias: Tensor | None = None, *, dropout: float = 0.0) -> Tensor:
    """The same in torch, by whichever of its functions suits the device and the gradients.

    Args:
        qkv: Queries, keys and values side by side, `[tokens, 3, heads, head_dim]`.
        rows: Layout of the batch.
        bias: Added to the scores before the softmax, from position to position, `[heads, longest, longest]`.
        dropout: Probability of dropping an attention weight.

    Returns:
        Context `[tokens, heads, head_dim]`.
    """
    if torch.is_grad_enabled() or qkv.is_cuda or dropout:
        return _attend_padded(qkv, rows, bias, dropout)
    return _attend_by_length(qkv, rows, bias)


def attend_scored(
    qkv: Tensor, rows: Rows, score: Score, bias: Tensor | None = None, *, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The same, and a score of every token from the attention it got.

    Probabilities are written out in place of the fused kernel, before dropout, in float32 or wider.

    Args:
        qkv: As in `attend`.
        rows: Layout of the batch.
        score: From probabilities to scores.
        bias: As in `attend`.
        dropout: Probability of dropping an attention weight.

    Returns:
        Context `[tokens, heads, head_dim]` and scores `[tokens]`, float32 or wider, without gradient.
    """
    if torch.is_grad_enabled() or qkv.is_cuda or dropout:
        found: list[Tensor] = []

        def see(weights: Tensor, real: Tensor | None) -> None:
            found.append(score(weights, real))

        context = _attend_written_out(qkv, rows, bias, dropout, see)
        return context, rows.unpad(torch.cat(found))
    contexts, scores = [], []
    for group in rows.groups:
        query, key, value = group.view(qkv).permute(2, 0, 3, 1, 4).unbind(0)
        weights = _probabilities(query, key, _bias_of(group, rows, bias))
        scores.append(score(weights, None).flatten())
        contexts.append((weights.to(qkv.dtype) @ value).transpose(1, 2).flatten(0, 1))
    if len(contexts) == 1:
        return contexts[0], scores[0]
    return torch.cat(contexts), torch.cat(scores)


@dataclass(frozen=True)
class Counted:
    """A `Score` our kernels count on the way: what each token gets as a key, mean over heads and queries.

    Attributes:
        last: Only so many last real queries of a row count; None: all.
        by_readers: Whether the mean is over those queries only that can see a key in causal attention: its
            own and later ones.
    """

    last: int | None = None
    by_readers: bool = False

    def __call__(self, probabilities: Tensor, real: Tensor | None) -> Tensor:
        """The definition, in torch.

        Args:
            probabilities: Before dropout, `[rows, heads, queries, keys]`, float32 or wider.
            real: Which places hold a token, `[rows, keys]`; None: all.

        Returns:
            `[rows, keys]`, which sums to 1 but `by_readers`.
        """
        keys, device = probabilities.shape[-1], probabilities.device
        count = torch.full((1, 1), keys, device=device) if real is None else real.sum(-1, keepdim=True)
        place = torch.arange(keys, device=device)
        if self.last is None:
            gets = probabilities.mean((1, 2)) if real is None else over_queries(probabilities.mean(1), real)
        elif real is None:
            gets = probabilities[:, :, -self.last :].mean((1, 2))
        else:
            gets = over_queries(probabilities.mean(1), real & (place >= count - self.last))
        return gets * count / (count - place).clamp(min=1) if self.by_readers else gets

    def listened(self, rows: Rows) -> int:
        """How many last queries of a row the kernels are to count, at most."""
        return rows.lengths[-1] if self.last is None else self.last

    def spread(self, gets: Tensor, rows: Rows) -> Tensor:
        """The score `[tokens]`, from the mean over all queries that count."""
        if not self.by_readers:
            return gets
        readers = torch.cat([torch.arange(length, 0, -1) for length in rows.lengths])
        counts = torch.tensor(rows.lengths).repeat_interleave(torch.tensor(rows.lengths))
        return gets * (counts / readers)


received = Counted()
"""ACC: the mean over heads and all real queries."""


def over_queries(given: Tensor, real: Tensor | None) -> Tensor:
    """The mean over real queries of `[rows, ..., queries, keys]`."""
    if real is None:
        return given.mean(-2)
    weight = real.to(given.dtype) / real.sum(-1, keepdim=True)
    shape = (len(real), *(1,) * (given.dim() - 3), 1, real.shape[-1])
    return (weight.view(shape) @ given).squeeze(-2)


def _probabilities(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim) + mask), `[rows, heads, queries, keys]`, float32 or wider.

    Without gradients, and in one piece of memory: fresh memory costs more than the arithmetic.
    """
    scores = query @ key.transpose(-1, -2)
    if scores.dtype in (torch.bfloat16, torch.float16):
        scores = scores.float()
    scores *= 1 / math.sqrt(query.shape[-1])
    if mask is not None:
        scores += mask
    return torch.softmax(scores, -1, out=scores)


def _bias_of(group: Group, rows: Rows, bias: Tensor | None) -> Tensor | None:
    """The bias between the tokens of a group: a corner of it, or what is left where tokens have left."""
    if bias is None:
        return None
    if rows.kept is None:
        return bias[:, : group.length, : group.length]
    return _between(bias, group.view(rows.kept))


def padded_bias(rows: Rows, bias: Tensor) -> Tensor:
    """The bias between the tokens of a padded batch, `[heads, longest, longest]` or `[rows, ...]` of it."""
    if rows.kept is None:
        return bias[:, : rows.lengths[-1], : rows.lengths[-1]]
    return _between(bias, rows.pad(rows.kept))


def _between(bias: Tensor, places: Tensor) -> Tensor:
    """The bias between the places of each row, `[rows, length]` to `[rows, heads, length, length]`.

    Selected, not indexed: on a CPU the gradient goes back sooner.
    """
    pairs = places[:, :, None] * bias.shape[-1] + places[:, None, :]
    return bias.flatten(1).index_select(1, pairs.flatten()).unflatten(1, pairs.shape).transpose(0, 1)


def _attend_by_length(qkv: Tensor, rows: Rows, bias: Tensor | None) -> Tensor:
    """Fused attention, one call for each group of rows of equal length."""
    contexts = []
    for group in rows.groups:
        query, key, value = group.view(qkv).permute(2, 0, 3, 1, 4).unbind(0)
        mask = _bias_of(group, rows, bias)
        context = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        contexts.append(context.transpose(1, 2).flatten(0, 1))
    return contexts[0] if len(contexts) == 1 else torch.cat(contexts)


def _attend_padded(qkv: Tensor, rows: Rows, bias: Tensor | None, dropout: float) -> Tensor:
    """The whole batch, padded to its longest row; masked keys get no weight.

    On a CPU in bfloat16 the product is written out: the fused kernel's backward pass is far slower
    there.
    """
    if qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16:
        return _attend_written_out(qkv, rows, bias, dropout)
    query, key, value = rows.pad(qkv).permute(2, 0, 3, 1, 4).unbind(0)
    mask = _mask(qkv, rows, bias)
    context = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return rows.unpad(context.transpose(1, 2))


def _attend_written_out(
    qkv: Tensor,
    rows: Rows,
    bias: Tensor | None,
    dropout: float,
    see: Callable[[Tensor, Tensor | None], None] | None = None,
) -> Tensor:
    """The padded batch with its probabilities written out, for `see` in float32 or wider."""

    def shown(probabilities: Tensor, part: slice) -> None:
        if see is not None:
            see(probabilities, None if rows.even else rows.real[part])

    mask = None if rows.even else rows.key_mask
    added = None if bias is None else padded_bias(rows, bias)
    context = attend_written_out(rows.pad(qkv), mask, added, dropout, None if see is None else shown)
    return rows.unpad(context)


def _mask(qkv: Tensor, rows: Rows, bias: Tensor | None) -> Tensor | None:
    """Added to the scores of the padded batch, `[rows or 1, heads or 1, queries or 1, keys]`, or None."""
    if bias is None:
        return None if rows.even else rows.key_mask.to(qkv.dtype)
    return rows.key_mask.to(qkv.dtype) + padded_bias(rows, bias)


def attend_reference(qkv: Tensor, rows: Rows, bias: Tensor | None = None) -> Tensor:
    """The definition, row by row: softmax(q k^T / sqrt(head_dim) + bias) v. The oracle of `attend`."""
    contexts = []
    start = 0
    for length in rows.lengths:
        query, key, value = qkv[start : start + length].unbind(1)
        scores = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[-1])
        if bias is not None:
            places = rows.positions[start : start + length]
            scores = scores + bias[:, places[:, None], places]
        contexts.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value))
        start += length
    return torch.cat(contexts)


def stretch_of(architecture: Architecture) -> float:
    """What queries are multiplied by so that, divided by sqrt(head_dim) as here, scores have their scale."""
    scale = architecture.attention_scale
    return 1.0 if scale is None else scale * math.sqrt(architecture.head_dim)


def _stretched(qkv: Tensor, by: float) -> Tensor:
    """`[tokens, 3, ...]` with longer queries; without gradients in place."""
    if torch.is_grad_enabled():
        return torch.cat([qkv[:, :1] * by, qkv[:, 1:]], 1)
    qkv[:, 0] *= by
    return qkv


class Attention(nn.Module):
    """Multi-head self-attention with one matrix for queries, keys and values.

    The rows of `qkv` are ordered as [query heads, key heads, value heads], `head_dim` rows each, so removing
    a head removes one block of rows in each third and one block of columns of `output`. Without any head,
    all that is left is the bias of `output`.
    """

    def __init__(
        self,
        hidden_size: int,
        heads: int,
        head_dim: int,
        dropout: float,
        rank: Rank | None = None,
        numbers: Numbers = REAL,
        biases: Collection[MatrixName] = MATRICES,
        stretch: float = 1.0,
        of_bias: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.of_bias = of_bias
        self.head_dim = head_dim
        self.dropout = dropout
        self.stretch = stretch
        rank = rank or Rank()
        self.qkv = linear(hidden_size, 3 * heads * head_dim, rank.qkv, numbers, bias="qkv" in biases)
        self.output = linear(
            heads * head_dim, hidden_size, rank.attention_output, numbers, bias="attention_output" in biases
        )

    def forward(self, hidden: Tensor, rows: Rows, bias: PositionBias | None = None) -> Tensor:
        """`[tokens, hidden]` to `[tokens, hidden]`; `bias` of the stack."""
        return self.output(self.context(hidden, rows, bias)[0])

    def context(
        self, hidden: Tensor, rows: Rows, bias: PositionBias | None = None, score: Score | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What the heads found, `[tokens, heads * head_dim]`, before `output`; and scores, if asked for."""
        if self.heads == 0:
            wide = torch.promote_types(hidden.dtype, torch.float32)
            nothing = None if score is None else hidden.new_zeros(len(hidden), dtype=wide)
            return hidden.new_empty(len(hidden), 0), nothing
        qkv = self.qkv(hidden).unflatten(-1, (3, self.heads, self.head_dim))
        dropout = self.dropout if self.training else 0.0
        found, (query, key, value) = None, qkv.unbind(1)
        if not dropout:
            found = attend_by_kernels(query, key, value, rows, score, bias, self.of_bias, self.stretch)
        if found is not None:
            return found[0].flatten(1), found[1]
        if self.stretch != 1:
            qkv = _stretched(qkv, self.stretch)
        added = None if bias is None else bias.written_out(self.of_bias)
        if score is None:
            return attend(qkv, rows, added, dropout=dropout).flatten(1), None
        context, scores = attend_scored(qkv, rows, score, added, dropout=dropout)
        return context.flatten(1), scores
