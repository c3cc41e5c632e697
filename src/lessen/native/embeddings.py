"""What an encoder begins with, as the kernels take it."""

from __future__ import annotations

import ctypes

from torch import Tensor

from lessen.native.matrix import Matrix, MatrixOf, Norm, NormOf, norm_struct


class _Embeddings(ctypes.Structure):
    _fields_ = (
        ("token", Matrix),
        ("widen", Matrix),
        ("position", ctypes.c_void_p),
        ("segment", ctypes.c_void_p),
        ("positions", ctypes.c_int64),
        ("segments", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("norm", Norm),
    )


class EmbeddingTables:
    """Tables made ready to be read; it keeps the tensors it points at.

    Args:
        token: Of tokens, as it is stored: float32, `w8a32` or `w1a32`.
        widen: What its rows are multiplied by, or None.
        position: `[positions, width]`, or None.
        segment: `[segments, width]`, or None.
        first: Position of a row's first token.
        norm: LayerNorm of the sum.
    """

    def __init__(
        self,
        token: MatrixOf,
        widen: MatrixOf | None,
        position: Tensor | None,
        segment: Tensor | None,
        first: int,
        norm: NormOf,
    ) -> None:
        self.kept = (token, widen, position, segment, norm)
        self.width = token.in_features if widen is None else widen.out_features
        self.struct = _Embeddings(
            token.struct(),
            Matrix() if widen is None else widen.struct(),
            *(None if table is None else table.data_ptr() for table in (position, segment)),
            *(0 if table is None else len(table) for table in (position, segment)),
            first,
            norm_struct(norm),
        )
        self.place = ctypes.addressof(self.struct)
