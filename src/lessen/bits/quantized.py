"""Whole numbers of 8 bits in place of real ones, with a scale for each row."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127

SMALLEST = 1e-30
"""A row without a larger number counts as zeros: `LARGEST` divided by it must be finite."""


def quantized(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 and the scale of each row, `[rows, columns]` and `[rows, 1]`.

    They are of the values' own type; a row of zeros has scale 0. Division is by each row's largest, as in the
    kernels: `LARGEST / most` would be a product with its inverse, and round otherwise.
    """
    most = values.abs().amax(1, keepdim=True) if values.shape[1] else values.new_zeros(len(values), 1)
    inverse = torch.where(most > SMALLEST, torch.full_like(most, LARGEST) / most, torch.zeros_like(most))
    return (values * inverse).round(), most / LARGEST
