"""Heads: what turns a row's hidden states into an answer, at an exit or at the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from lessen.model.dropout import Dropout
from lessen.model.rows import Rows
from lessen.plan import ExitShape


def pool(hidden: Tensor, rows: Rows, how: str) -> Tensor:
    """One vector per row, `[rows, hidden]`: its first token (`cls`), its last, or the mean of its tokens.

    A token that has left on the way counts in the mean with its last state, where the layout brings it.
    """
    if how == "cls":
        return hidden.index_select(0, rows.first) if len(rows) > 1 else hidden[:1]
    if how == "last":
        return hidden.index_select(0, rows.last)
    groups = rows.split(hidden)
    if rows.gone is None:
        return torch.cat([group.mean(1) for group in groups])
    sums = torch.cat([group.sum(1) for group in groups])
    count = torch.tensor(rows.full_lengths, device=rows.device, dtype=rows.gone.dtype)
    return ((sums + rows.gone) / count[:, None]).to(hidden.dtype)


class Head(nn.Module):
    """Pool, an optional dense layer with activation, and the output layer.

    The classification heads of all supported families have this form; an exit is the same thing, earlier.
    """

    def __init__(self, hidden_size: int, outputs: int, shape: ExitShape, dropout: float) -> None:
        super().__init__()
        self.pool = shape.pool
        self.dropout = Dropout(dropout)
        self.dense = nn.Linear(hidden_size, shape.hidden_size) if shape.hidden_size else None
        self.activation = ACT2FN[shape.activation]
        self.output = nn.Linear(shape.hidden_size or hidden_size, outputs)

    def forward(self, hidden: Tensor, rows: Rows) -> Tensor:
        """`[tokens, hidden]` to logits `[rows, outputs]`, always float32 or wider."""
        pooled = pool(hidden, rows, self.pool)
        if self.dense is not None:
            pooled = self.activation(self.dense(self.dropout(pooled)))
        logits = self.output(self.dropout(pooled))
        return logits.float() if logits.dtype.itemsize < 4 else logits
