"""Weights of 4 bits, in groups of 32 columns of a row with a scale and a minimum: the blocks of GGUF's Q4_1.

    weight = scale * number + minimum, number from 0 to 15, scale and minimum float16.

A block is 20 bytes: scale, minimum, then 16 bytes whose low bits are the numbers of columns 0 to 15 of the
group and whose high bits are those of 16 to 31; columns beyond the last are 0. A matrix that ggml rounded to
such blocks is held exactly as the file has it: the first fit tried is ggml's, and finds the same again.

What multiplies them becomes whole numbers from -127 to 127 times a scale for each 32 columns of a token (as
llama.cpp's Q8_1), so that a token's result depends on it alone.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor
from torch.nn.functional import pad

from lessen.bits.quantized import quantized
from lessen.errors import PlanError
from lessen.native import Native

GROUP = 32
"""Columns that share a scale and a minimum."""

BLOCK = 20
"""Bytes of a group of a row."""

VERSION = 1
"""Of the layout; a file with another one is refused."""

LARGEST = 15

NARROWED = (1.0, 0.95, 0.9, 0.85)
"""Shares of a group's range that are tried: what lies outside is clipped, what lies inside is finer."""

AT_ONCE = 1 << 14
"""Groups fitted at a time; what is tried of so many stays in the second cache."""


def bytes_for(columns: int) -> int:
    """Bytes of a row."""
    return -(-columns // GROUP) * BLOCK


def fit(weight: Tensor) -> Tensor:
    """Blocks of a matrix, `[rows, columns]` to uint8 `[rows, bytes_for(columns)]`.

    For each group a few ranges are tried: from its least to its largest value in 15 steps, narrower ones, and
    after each of them scale and minimum by least squares for the numbers it gave. The smallest squared error
    wins.

    Raises:
        PlanError: For values that float16 has no number for.
    """
    rows, columns = weight.shape
    if not weight.numel():
        return torch.zeros(rows, bytes_for(columns), dtype=torch.uint8)
    if not weight.abs().max() <= torch.finfo(torch.float16).max:
        raise PlanError("weights beyond 65504 cannot be held in 4 bits; use int8")
    surplus = -columns % GROUP
    last = weight[:, -1:].expand(rows, surplus)  # for columns that are not there: no range grows by it
    groups = torch.cat([weight, last], 1).float().cpu().view(-1, GROUP)
    fits = [_fitted(some) for some in groups.split(AT_ONCE)]
    halves, numbers = (torch.cat(parts) for parts in zip(*fits, strict=True))
    whole = numbers.view(rows, -1)
    whole[:, columns:] = 0
    low, high = whole.view(-1, 2, GROUP // 2).unbind(1)
    blocks = torch.cat([halves.view(torch.uint8), low | high << 4], 1)
    return blocks.view(rows, bytes_for(columns)).to(weight.device)


def unpack(blocks: Tensor, columns: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weights blocks stand for, uint8 `[rows, bytes]` to `[rows, columns]`."""
    scale, least, numbers = _parts(blocks)
    weight = scale.to(dtype)[..., None] * numbers.to(dtype) + least.to(dtype)[..., None]
    return weight.flatten(1)[:, :columns]


def seal(blocks: Tensor) -> Tensor:
    """What goes beside blocks: the layout's version and their checksum (CRC-32), int64 `[2]`."""
    return torch.tensor([VERSION, zlib.crc32(blocks.contiguous().cpu().numpy().tobytes())])


def broken(blocks: Tensor, beside: Tensor) -> str | None:
    """What is wrong with blocks or their seal, in a few words; None if nothing is."""
    if (version := int(beside[0])) != VERSION:
        return f"its blocks are of version {version}, this lessen reads {VERSION}; upgrade lessen"
    if not torch.equal(beside.cpu(), seal(blocks)):
        return "its checksum does not match; the file is damaged, fetch it again"
    return None


def rounded(values: Tensor) -> Tensor:
    """Activations as the product takes them, `[tokens, columns]`: 8 bits in groups of 32 columns."""
    tokens, columns = values.shape
    whole, steps = quantized(pad(values, (0, -columns % GROUP)).view(-1, GROUP))
    return (whole * steps).view(tokens, columns + -columns % GROUP)[:, :columns]


def reference(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`rounded(values) @ weight.T + bias`, by torch.

    Args:
        values: `[tokens, in_features]`.
        weight: As `unpack` returns it, `[out_features, in_features]`.
        bias: `[out_features]`, or None.
    """
    result = rounded(values) @ weight.to(values.dtype).T
    return result if bias is None else result + bias


def arranged(blocks: Tensor, columns: int, kernels: Native | None) -> Tensor:
    """Weights as `product` takes them with these kernels; without any, as float32."""
    return unpack(blocks, columns) if kernels is None else kernels.arranged_fours(blocks, columns)


def product(
    values: Tensor, weight: Tensor, bias: Tensor | None, outputs: int, kernels: Native | None
) -> Tensor:
    """The same as `reference`, by the kernels if there are any; `weight` as `arranged` returns it."""
    if kernels is None:
        return reference(values, weight, bias)
    return kernels.four_bit_linear(values, weight, bias, outputs)


def _parts(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales and minimums, float16 `[rows, groups]`, and numbers, uint8 `[rows, groups, 32]`."""
    each = blocks.contiguous().view(len(blocks), blocks.shape[1] // BLOCK, BLOCK)
    halves = each[..., :4].contiguous().view(torch.int16).view(torch.float16)
    both = each[..., 4:]
    return halves[..., 0], halves[..., 1], torch.cat([both & 15, both >> 4], -1)


def _fitted(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minimums, float16 `[groups, 2]`, and numbers, uint8, of real numbers `[groups, 32]`."""
    best = torch.full((len(groups),), float("inf"))
    halves = torch.zeros(len(groups), 2, dtype=torch.float16)
    numbers = torch.zeros(groups.shape, dtype=torch.uint8)
    first, last = groups.amin(1), groups.amax(1)
    for share in NARROWED:
        between = (last - first) * share
        scale, least = (between / LARGEST).half(), (first + (last - first - between) / 2).half()
        for _ in range(2):
            found = _numbered(groups, scale, least)
            wrong = found * scale.float()[:, None] + least.float()[:, None] - groups
            error = wrong.square().sum(1)
            better = error < best
            best = torch.where(better, error, best)
            halves[better] = torch.stack([scale, least], 1)[better]
            numbers[better] = found[better].to(torch.uint8)
            if not best.any():
                return halves, numbers
            scale, least = _least_squares(groups, found)
    return halves, numbers


def _numbered(groups: Tensor, scale: Tensor, least: Tensor) -> Tensor:
    """The nearest numbers for given scales and minimums, `[groups, 32]`."""
    step = scale.float()[:, None]
    numbers = torch.where(step > 0, (groups - least.float()[:, None]) / step, 0)
    return numbers.round().clamp(0, LARGEST)


def _least_squares(groups: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The scales and minimums with the smallest squared error for given numbers, float16, both `[groups]`."""
    mean, middle = groups.mean(1, keepdim=True), numbers.mean(1, keepdim=True)
    apart = (numbers - middle).square().sum(1)
    along = ((groups - mean) * (numbers - middle)).sum(1)
    scale = torch.where(apart > 0, along / apart, 0).clamp_min(0).half()
    return scale, (mean[:, 0] - scale.float() * middle[:, 0]).half()
