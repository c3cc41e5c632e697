"""An exit that names tokens, as the kernels take it."""

from __future__ import annotations

import ctypes

from lessen.native.matrix import Matrix, MatrixOf, Norm, NormOf, norm_struct


class _Head(ctypes.Structure):
    _fields_ = (
        ("norm", Norm),
        *((name, Matrix) for name in ("down", "up", "rows", "elsewhere")),
        ("rms", ctypes.c_int64),
        ("scale", ctypes.c_float),
    )


class Head:
    """An exit made ready to be called; it keeps the tensors it points at.

    Args:
        norm: Of the states it reads.
        correction: What is added to them: up(down(states)), or nothing.
        rows: Of the outcomes that are tokens.
        elsewhere: Of the outcome that none of them is it, or None.
        rms: Whether the norm is RMSNorm.
        scale: Of the states, before `rows` multiply them.
    """

    def __init__(
        self,
        norm: NormOf,
        correction: tuple[MatrixOf, MatrixOf] | None,
        rows: MatrixOf,
        elsewhere: MatrixOf | None,
        *,
        rms: bool,
        scale: float,
    ) -> None:
        self.kept = (norm, correction, rows, elsewhere)
        down, up = (Matrix(), Matrix()) if correction is None else (part.struct() for part in correction)
        last = Matrix() if elsewhere is None else elsewhere.struct()
        self.struct = _Head(norm_struct(norm), down, up, rows.struct(), last, rms, scale)
        self.place = ctypes.addressof(self.struct)
        self.outcomes = rows.out_features + (elsewhere is not None)
