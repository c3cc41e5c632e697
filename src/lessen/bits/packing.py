"""Signs in 64-bit words, on disk and in memory: row by row, bit i of word j for column 64 j + i.

A bit is 1 where a weight is negative. Bits beyond the last column are 0. Words are little-endian on disk
whatever the machine (docs/format.md); the kernels arrange them for themselves when they load them. Beside
every packed matrix lies its seal: the version of this layout and a checksum of the words.
"""

from __future__ import annotations

import sys
import zlib

import torch
from torch import Tensor
from torch.nn import functional

from lessen.native import recorded

WORD = 64
VERSION = 1
"""Of the layout; a file with another one is refused."""

SIGNS = 1.0 - 2 * ((torch.arange(256)[:, None] >> torch.arange(8)) & 1)
"""The eight signs of every byte, `[256, 8]`, float32."""


def words_for(columns: int) -> int:
    """Words of a row."""
    return -(-columns // WORD)


def pack(weight: Tensor) -> Tensor:
    """The signs of a matrix, `[rows, columns]` to int64 `[rows, words]`; zero counts as positive."""
    rows, columns = weight.shape
    bits = torch.zeros(rows, words_for(columns) * WORD, dtype=torch.int64, device=weight.device)
    bits[:, :columns] = weight < 0
    places = torch.arange(WORD, device=weight.device)
    return (bits.view(rows, words_for(columns), WORD) << places).sum(-1)


def unpack(words: Tensor, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The signs as +1 and -1, int64 `[rows, words]` to `[rows, columns]`."""
    if sys.byteorder == "little" and words.device.type == "cpu" and not recorded():
        octets = words.contiguous().view(torch.uint8).int()
        return functional.embedding(octets, SIGNS.to(dtype)).flatten(1)[:, :columns]
    places = torch.arange(WORD, device=words.device)
    bits = (words[..., None] >> places) & 1
    return 1 - 2 * bits.flatten(1)[:, :columns].to(dtype)


def seal(words: Tensor) -> Tensor:
    """What goes beside packed words: the layout's version and their checksum (CRC-32), int64 `[2]`."""
    content = words.contiguous().cpu().numpy().astype("<i8", copy=False).tobytes()
    return torch.tensor([VERSION, zlib.crc32(content)])


def broken(words: Tensor, beside: Tensor, columns: int) -> str | None:
    """What is wrong with packed words `[rows, words]` or their seal, in a few words; None if nothing is."""
    version = int(beside[0])
    if version != VERSION:
        return f"its signs are packed in version {version}, this lessen reads {VERSION}; upgrade lessen"
    if not torch.equal(beside.cpu(), seal(words)):
        return "its checksum does not match; the file is damaged, fetch it again"
    used = columns % WORD
    if used and bool((words[:, -1] >> used & (1 << WORD - used) - 1).any()):
        return f"it has bits beyond its {columns} columns; whatever wrote it must leave them 0"
    return None
