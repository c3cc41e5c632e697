"""What enters each matrix of the layers: the second moments that low rank is weighed by."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lessen.model.rows import Rows
from lessen.model.transformer import Transformer
from lessen.width.removal import MATRICES

READ_BY = MATRICES | {"up": "feed_forward"}
"""The module that is called with what enters a matrix; `up` is not called itself but with its activation."""


@torch.no_grad()
def second_moments(
    model: Transformer, batches: Iterable[tuple[Tensor, Rows, Tensor | None]]
) -> dict[str, Tensor]:
    """Mean over tokens of `x x^T` for the input `x` of each matrix of attention and feed-forward.

    Args:
        model: In evaluation mode.
        batches: Token ids `[tokens]`, layout and segments of each.

    Returns:
        `[in_features, in_features]` in float64 by the matrix's name, such as `layers.0.attention.qkv`, as
        `with_ranks` takes them.

    Raises:
        ValueError: When there is no batch.
    """
    sums: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(f"layers.{layer}.{READ_BY[field]}").register_forward_pre_hook(
            _adds_to(sums, f"layers.{layer}.{MATRICES[field]}")
        )
        for layer in range(model.depth)
        for field in MATRICES
    ]
    tokens = 0
    try:
        for ids, rows, segments in batches:
            model(ids, rows, segments)
            tokens += len(ids)
    finally:
        for hook in hooks:
            hook.remove()
    if not tokens:
        raise ValueError("no batch was seen")
    return {name: total / tokens for name, total in sums.items()}


def _adds_to(sums: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = given[0].to(torch.promote_types(given[0].dtype, torch.float32))
        moment = (values.T @ values).double()
        sums[name] = moment if name not in sums else sums[name] + moment

    return add
