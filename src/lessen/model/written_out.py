"""Attention over a padded batch with its probabilities written out, and its gradients.

On a CPU in bfloat16 torch's fused kernel has a far slower backward pass, and autograd's of the written-out
product copies every part of it several times over. So both passes are written down here, a few rows at a
time, whose probabilities stay in the processor's caches from one operation to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lessen.model.dropout import mask as dropout_mask

AT_ONCE = 1 << 20
"""Probabilities written out together, of whole rows; on a GPU all are."""

See = Callable[[Tensor, slice], None]
"""Takes the probabilities of some rows, `[rows, heads, queries, keys]`, float32 or wider."""


def attend_written_out(
    qkv: Tensor, mask: Tensor | None, bias: Tensor | None, dropout: float = 0.0, see: See | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(head_dim) + bias + mask) v.

    Args:
        qkv: Queries, keys and values of a padded batch, `[rows, longest, 3, heads, head_dim]`.
        mask: 0 where a key is a token and minus infinity where it is padding, `[rows, 1, 1, longest]`.
        bias: Added to the scores, `[heads or 1, longest, longest]`, or with rows before that.
        dropout: Probability of dropping a weight.
        see: Shown the probabilities before dropout, without gradient; they are then rounded to the type of
            the values only after.

    Returns:
        Context `[rows, longest, heads, head_dim]`.
    """
    made: Tensor = _WrittenOut.apply(qkv, mask, bias, dropout, see)
    return made


class _WrittenOut(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, mask: Tensor | None, bias: Tensor | None, dropout: float, see: See | None
    ) -> Tensor:
        heads, scale = qkv.shape[3], 1 / math.sqrt(qkv.shape[4])
        laid = qkv.permute(2, 0, 3, 1, 4).contiguous()  # [3, rows, heads, longest, head_dim]
        context = torch.empty_like(laid[0])
        wide = torch.promote_types(qkv.dtype, torch.float32)
        kind = qkv.dtype if bias is None and see is None else wide  # of what is added up
        added = [each.to(kind) for each in (bias, mask) if each is not None]
        weights, kept = [], []
        with torch.autocast(qkv.device.type, enabled=False):
            for part in _parts(laid[0]):
                query, key, value = (each.flatten(0, 1) for each in laid[:, part])
                scores = _product(query, key.transpose(1, 2), scale).to(kind).unflatten(0, (-1, heads))
                for each in added:
                    scores += _of_rows(each, part)
                probabilities = torch.softmax(scores, -1)
                if see is not None:
                    see(probabilities, part)
                probabilities = probabilities.to(qkv.dtype)
                weights.append(probabilities)
                if dropout:
                    kept.append(dropout_mask(probabilities, dropout))
                    probabilities = probabilities * kept[-1]
                torch.bmm(probabilities.flatten(0, 1), value, out=context[part].flatten(0, 1))
        ctx.save_for_backward(laid, *weights, *kept)
        ctx.count = len(weights)
        ctx.bias = bias.detach() if bias is not None and ctx.needs_input_grad[2] else None
        return context.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        laid, *rest = ctx.saved_tensors
        weights, kept = rest[: ctx.count], rest[ctx.count :]
        heads, scale = laid.shape[2], 1 / math.sqrt(laid.shape[4])
        upstream = upstream.transpose(1, 2).contiguous()  # [rows, heads, longest, head_dim]
        found = torch.empty_like(laid)
        of_bias = None if ctx.bias is None else torch.zeros_like(ctx.bias)
        for index, part in enumerate(_parts(upstream)):
            probabilities = weights[index]
            query, key, value = (each.flatten(0, 1) for each in laid[:, part])
            of_query, of_key, of_value = (each.flatten(0, 1) for each in found[:, part])
            given = upstream[part].flatten(0, 1)
            used = probabilities if not kept else probabilities * kept[index]
            torch.bmm(used.flatten(0, 1).transpose(1, 2), given, out=of_value)
            slope = torch.bmm(given, value.transpose(1, 2)).unflatten(0, (-1, heads))
            if kept:
                slope = slope.mul_(kept[index])
            slope = torch._softmax_backward_data(slope, probabilities, -1, probabilities.dtype)
            if of_bias is not None:
                _add_up(of_bias, slope, part)
            slope = slope.flatten(0, 1)
            _product(slope, key, scale, of_query)
            _product(slope.transpose(1, 2), query, scale, of_key)
        return found.permute(1, 3, 0, 2, 4), None, of_bias, None, None


def _product(one: Tensor, other: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """`scale` times the product of batches of matrices, rounded once."""
    nothing = one.new_empty(())
    if out is None:
        return torch.baddbmm(nothing, one, other, beta=0, alpha=scale)
    return torch.baddbmm(nothing, one, other, beta=0, alpha=scale, out=out)


def _parts(values: Tensor) -> Iterator[slice]:
    """`[rows, heads, longest, head_dim]` in parts of a few rows."""
    rows, heads, longest, _ = values.shape
    step = max(rows, 1) if values.is_cuda else max(1, AT_ONCE // max(1, heads * longest * longest))
    return (slice(start, min(rows, start + step)) for start in range(0, rows, step))


def _of_rows(bias: Tensor, part: slice) -> Tensor:
    """Of some rows, where rows have their own."""
    return bias[part] if bias.dim() == 4 and len(bias) > 1 else bias


def _add_up(total: Tensor, slope: Tensor, part: slice) -> None:
    """Add the gradient of some rows' scores to that of what was added to them."""
    into = _of_rows(total, part)
    into += slope.sum_to_size(into.shape)
