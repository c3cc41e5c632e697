"""A layer of an encoder, and what it does after its attention, as the kernels take it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from torch import Tensor

from lessen.native.matrix import ACTIVATIONS, Matrix, MatrixOf, Norm


class _Rest(ctypes.Structure):
    _fields_ = (
        ("output", Matrix),
        ("up", Matrix),
        ("down", Matrix),
        ("learned", Matrix),
        ("norms", Norm * 2),
        ("activation", ctypes.c_int64),
        ("centre", ctypes.c_float),
    )


class LayerRest:
    """What a layer does after its attention, made ready to be called; it keeps the tensors it points at.

    Args:
        output: Of the attention.
        up: Of the feed-forward half.
        down: The same; of SLFN, that of the gate.
        learned: Of SLFN's other branch, or None.
        norms: Weight, bias and epsilon of both, each after its sum.
        activation: A name from `ACTIVATIONS`; with `learned`, of the gate.
        centre: Taken off after it.
    """

    def __init__(
        self,
        output: MatrixOf,
        up: MatrixOf,
        down: MatrixOf,
        learned: MatrixOf | None,
        norms: Sequence[tuple[Tensor, Tensor, float]],
        activation: str,
        centre: float = 0.0,
    ) -> None:
        self.kept = (output, up, down, learned, norms)
        self.struct = _Rest(
            output.struct(),
            up.struct(),
            down.struct(),
            Matrix() if learned is None else learned.struct(),
            (Norm * 2)(*(Norm(weight.data_ptr(), bias.data_ptr(), eps) for weight, bias, eps in norms)),
            ACTIVATIONS[activation],
            centre,
        )
        self.place = ctypes.addressof(self.struct)


class _Encoder(ctypes.Structure):
    _fields_ = (
        ("qkv", Matrix),
        ("heads", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("rest", _Rest),
    )


class EncoderLayer:
    """A whole layer of an encoder, made ready to be called; it keeps the tensors it points at.

    Args:
        qkv: Of queries, keys and values.
        heads: Of each.
        head_dim: Of a head.
        rest: What comes after the attention.
    """

    def __init__(self, qkv: MatrixOf, heads: int, head_dim: int, rest: LayerRest) -> None:
        self.kept = (qkv, rest)
        self.struct = _Encoder(qkv.struct(), heads, head_dim, rest.struct)
        self.place = ctypes.addressof(self.struct)
