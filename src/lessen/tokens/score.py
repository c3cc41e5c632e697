"""How much of the attention each token gets: what decides which tokens may leave.

Attention Context Contribution (ACC): the mean over heads and real queries of the probabilities a token gets
as a key. The name is the paper's, the formula our reconstruction (latency-adjustable page, 1.2). Scores of a
row depend on that row alone; under `mean`, `last_query` and `window` they sum to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lessen.model.attention import Score

WINDOW = 8
"""Queries that `window` listens to, the last ones of a row."""


def mean(probabilities: Tensor, real: Tensor | None) -> Tensor:
    """ACC: the mean over heads and real queries.

    Args:
        probabilities: Before dropout, `[rows, heads, queries, keys]`, float32 or wider.
        real: Which places hold a token, `[rows, keys]`; None: all.

    Returns:
        `[rows, keys]`; as is that of the functions below.
    """
    if real is None:
        return probabilities.mean((1, 2))
    return _over_queries(probabilities.mean(1), real)


def offdiag(probabilities: Tensor, real: Tensor | None) -> Tensor:
    """The same without what a token gives itself (PoWER-BERT)."""
    given = probabilities.mean(1)
    return _over_queries(given - torch.diag_embed(given.diagonal(dim1=-2, dim2=-1)), real)


def max_head(probabilities: Tensor, real: Tensor | None) -> Tensor:
    """The mean over real queries of the head that gives most."""
    return _over_queries(probabilities, real).amax(1)


def last_query(probabilities: Tensor, real: Tensor | None) -> Tensor:
    """What the last token of the row gives, mean over heads."""
    return _last_queries(probabilities, real, 1)


def window(probabilities: Tensor, real: Tensor | None) -> Tensor:
    """What the last `WINDOW` tokens of the row give, mean over heads and them."""
    return _last_queries(probabilities, real, WINDOW)


def causal_norm(probabilities: Tensor, real: Tensor | None) -> Tensor:
    """The mean over heads and those real queries that can see the key: itself and later ones."""
    queries = probabilities.shape[-2]
    count = torch.full((1,), queries, device=probabilities.device) if real is None else real.sum(-1)
    seen_by = (count[:, None] - torch.arange(queries, device=probabilities.device)).clamp(min=1)
    return mean(probabilities, real) * count[:, None] / seen_by


def _over_queries(given: Tensor, real: Tensor | None) -> Tensor:
    """The mean over real queries of `[rows, ..., queries, keys]`."""
    if real is None:
        return given.mean(-2)
    weight = real.to(given.dtype) / real.sum(-1, keepdim=True)
    shape = (len(real), *(1,) * (given.dim() - 3), 1, real.shape[-1])
    return (weight.view(shape) @ given).squeeze(-2)


def _last_queries(probabilities: Tensor, real: Tensor | None, count: int) -> Tensor:
    given = probabilities.mean(1)
    if real is None:
        return given[:, -count:].mean(1)
    length = real.sum(-1, keepdim=True)
    place = torch.arange(real.shape[-1], device=real.device)
    return _over_queries(given, real & (place >= length - count))


SCORES: dict[str, Score] = {
    "mean": mean,
    "offdiag": offdiag,
    "max_head": max_head,
    "last_query": last_query,
    "window": window,
    "causal_norm": causal_norm,
}
"""From attention. `cumulative`, `random` and `first_k` need no function here (`elimination.py`)."""

NAMES = (*SCORES, "cumulative", "random", "first_k")
