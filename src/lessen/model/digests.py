"""Hashes of weights: by them exits saved alone know the model they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from lessen.model.transformer import Transformer

HEADS = "language_exits."


def base_digest(model: Transformer) -> str:
    """SHA-256 of everything but the language exits."""
    return _digest({name: value for name, value in model.state_dict().items() if not name.startswith(HEADS)})


def heads_digest(model: Transformer) -> str:
    """SHA-256 of the language exits."""
    return _digest({name: value for name, value in model.state_dict().items() if name.startswith(HEADS)})


def _digest(state: Mapping[str, Tensor]) -> str:
    """Of names, sizes and values; real numbers as float32, so that bfloat16 equals what it was read into."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu()
        value = (value.to(torch.float32) if value.is_floating_point() else value).contiguous()
        digest.update(f"{name} {list(value.shape)} {value.dtype}\n".encode())
        digest.update(value.numpy().data if value.dim() else value.numpy().tobytes())
    return digest.hexdigest()
