"""What a matrix and a norm look like to the kernels, and the kernels' numbers of kinds."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

LowBits = Literal["w8a8", "w8a32", "w1a8", "w1a1", "w1a32"]
LOW_BITS: tuple[LowBits, ...] = get_args(LowBits)
"""Products by bits of weights and of activations, with a scale for each output."""

MOST_COLUMNS = 1 << 17
"""Of a matrix of few bits: sums of so many products of 8 bits by 8 fit 32."""

ACTIVATIONS = {
    "gelu": 0,
    "gelu_new": 1,
    "gelu_pytorch_tanh": 1,
    "gelu_fast": 1,
    "relu": 2,
    "silu": 3,
    "sigmoid": 4,
}
"""The kernels' numbers of activations, by transformers' names."""

FewBitKind = LowBits | Literal["w4a8"]
"""The same, and the one with scales of its own (`bits/fours.py`)."""

Kind = FewBitKind | Literal["bf16"] | None
"""What a product's weights are: None is float32."""

KINDS: dict[Kind, int] = {
    None: 0,
    "w8a8": 1,
    "w1a8": 2,
    "w1a1": 3,
    "w1a32": 4,
    "bf16": 5,
    "w8a32": 6,
    "w4a8": 7,
}
"""The kernels' numbers of products."""


class Matrix(ctypes.Structure):
    """`lessen_matrix`."""

    _fields_ = (
        ("kind", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("weight", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class Norm(ctypes.Structure):
    """`lessen_norm`."""

    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("eps", ctypes.c_float))


NormOf = tuple[Tensor, Tensor | None, float]
"""Weight, bias or None, and epsilon."""


def norm_struct(norm: NormOf) -> Norm:
    """It points at the tensors, which must be kept as long."""
    weight, bias, eps = norm
    return Norm(weight.data_ptr(), None if bias is None else bias.data_ptr(), eps)


@dataclass(frozen=True)
class MatrixOf:
    """A matrix as layers made ready take it.

    Attributes:
        kind: Bits of weights and activations; None: float32; `bf16`: weights of bfloat16 times float32.
        weight: As `Native.linear`, `low_bit_linear` or `four_bit_linear` takes it.
        scales: `[out_features]`, or None where there are none.
        bias: `[out_features]`, or None.
        in_features: Columns.
        out_features: Rows.
    """

    kind: Kind
    weight: Tensor
    scales: Tensor | None
    bias: Tensor | None
    in_features: int
    out_features: int

    def struct(self) -> Matrix:
        """It points at the tensors, which must be kept as long."""
        beside = [None if part is None else part.data_ptr() for part in (self.scales, self.bias)]
        return Matrix(KINDS[self.kind], self.out_features, self.in_features, self.weight.data_ptr(), *beside)
