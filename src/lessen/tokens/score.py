"""How much of the attention each token gets: what decides which tokens may leave.

Attention Context Contribution (ACC), here `mean`: the mean over heads and real queries of the probabilities a
token gets as a key. It is computed where attention is (`model/attention.py`, `received`). The name is the
paper's, the formula our reconstruction (latency-adjustable page, 1.2). Scores of a row depend on that row
alone; under `mean`, `last_query` and `window` they sum to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lessen.model.attention import Counted, Score, over_queries, received

WINDOW = 8
"""Queries that `window` listens to, the last ones of a row."""


def offdiag(probabilities: Tensor, real: Tensor | None) -> Tensor:
    """What a token gets without what it gives itself (PoWER-BERT).

    Args:
        probabilities: Before dropout, `[rows, heads, queries, keys]`, float32 or wider.
        real: Which places hold a token, `[rows, keys]`; None: all.

    Returns:
        `[rows, keys]`.
    """
    given = probabilities.mean(1)
    return over_queries(given - torch.diag_embed(given.diagonal(dim1=-2, dim2=-1)), real)


def max_head(probabilities: Tensor, real: Tensor | None) -> Tensor:
    """The mean over real queries of the head that gives most."""
    return over_queries(probabilities, real).amax(1)


last_query = Counted(last=1)
"""What the last token of the row gives, mean over heads."""

window = Counted(last=WINDOW)
"""What the last `WINDOW` tokens of the row give, mean over heads and them."""

causal_norm = Counted(by_readers=True)
"""The mean over heads and those real queries that can see the key: itself and later ones."""

SCORES: dict[str, Score] = {
    "mean": received,
    "offdiag": offdiag,
    "max_head": max_head,
    "last_query": last_query,
    "window": window,
    "causal_norm": causal_norm,
}
"""From attention. `cumulative`, `random`, `first_k` and `last_k` need no function here (`elimination.py`)."""

NAMES = (*SCORES, "cumulative", "random", "first_k", "last_k")
