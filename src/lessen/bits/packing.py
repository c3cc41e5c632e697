"""Signs in 64-bit words, on disk and in memory: row by row, bit i of word j for column 64 j + i.

A bit is 1 where a weight is negative. Bits beyond the last column are 0. Words are little-endian on disk
whatever the machine (docs/format.md); the kernels arrange them for themselves when they load them.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 64


def words_for(columns: int) -> int:
    """Words of a row."""
    return -(-columns // WORD)


def pack(weight: Tensor) -> Tensor:
    """The signs of a matrix, `[rows, columns]` to int64 `[rows, words]`; zero counts as positive."""
    rows, columns = weight.shape
    bits = torch.zeros(rows, words_for(columns) * WORD, dtype=torch.int64, device=weight.device)
    bits[:, :columns] = weight < 0
    places = torch.arange(WORD, device=weight.device)
    return (bits.view(rows, -1, WORD) << places).sum(-1)


def unpack(words: Tensor, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The signs as +1 and -1, int64 `[rows, words]` to `[rows, columns]`."""
    places = torch.arange(WORD, device=words.device)
    bits = (words[..., None] >> places) & 1
    return 1 - 2 * bits.flatten(1)[:, :columns].to(dtype)
