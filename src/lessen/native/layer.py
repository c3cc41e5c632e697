"""A layer of an encoder, and what it does after its attention, as the kernels take it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from torch import Tensor

from lessen.native.matrix import ACTIVATIONS, Matrix, MatrixOf, Norm, NormOf, norm_struct


class Rest(ctypes.Structure):
    """`lessen_rest`."""

    _fields_ = (
        ("output", Matrix),
        ("up", Matrix),
        ("down", Matrix),
        ("learned", Matrix),
        ("norms", Norm * 2),
        *((name, ctypes.c_int64) for name in ("activation", "before", "rms", "gated")),
        ("centre", ctypes.c_float),
    )


class LayerRest:
    """What a layer does after its attention, made ready to be called; it keeps the tensors it points at.

    Args:
        output: Of the attention.
        up: Of the feed-forward half.
        down: The same; of SLFN, that of the gate.
        learned: Of SLFN's other branch, or None.
        norms: Of both halves.
        activation: A name from `ACTIVATIONS`; with `learned`, of the gate.
        centre: Taken off after it.
        before: Whether norms stand before the branches, not after the sums.
        rms: Whether they are RMSNorm.
        gated: Whether `up` makes a gate first, which is multiplied by the rest of what it makes.
    """

    def __init__(
        self,
        output: MatrixOf,
        up: MatrixOf,
        down: MatrixOf,
        learned: MatrixOf | None,
        norms: tuple[NormOf, NormOf],
        activation: str,
        centre: float = 0.0,
        *,
        before: bool = False,
        rms: bool = False,
        gated: bool = False,
    ) -> None:
        self.kept = (output, up, down, learned, norms)
        self.struct = Rest(
            output.struct(),
            up.struct(),
            down.struct(),
            Matrix() if learned is None else learned.struct(),
            (Norm * 2)(*map(norm_struct, norms)),
            ACTIVATIONS[activation],
            before,
            rms,
            gated,
            centre,
        )
        self.place = ctypes.addressof(self.struct)


class _Encoder(ctypes.Structure):
    _fields_ = (
        ("qkv", Matrix),
        ("heads", ctypes.c_int64),
        ("dim", ctypes.c_int64),
        ("of_bias", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("rest", Rest),
    )


class EncoderLayer:
    """A whole layer of an encoder, made ready to be called; it keeps the tensors it points at.

    Args:
        qkv: Of queries, keys and values.
        heads: Of each.
        head_dim: Of a head.
        scale: Scores are multiplied by it.
        rest: What comes after the attention.
        of_bias: Heads of a bias of scores that are the layer's; None: as many as it has.
    """

    def __init__(
        self,
        qkv: MatrixOf,
        heads: int,
        head_dim: int,
        scale: float,
        rest: LayerRest,
        of_bias: Sequence[int] | None = None,
    ) -> None:
        listed = numbers(of_bias)
        self.kept = (qkv, rest, listed)
        self.struct = _Encoder(qkv.struct(), heads, head_dim, address_of(listed), scale, rest.struct)
        self.place = ctypes.addressof(self.struct)


class Heads(ctypes.Structure):
    """`lessen_heads`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("queries", "keys", "values")),
        *(
            (name, ctypes.c_int64)
            for name in ("query_step", "key_step", "heads", "key_heads", "dim", "causal")
        ),
        ("scale", ctypes.c_float),
    )


class _Bias(ctypes.Structure):
    _fields_ = (("by_distance", ctypes.c_void_p), ("longest", ctypes.c_int64), ("places", ctypes.c_void_p))


class Bias:
    """A bias of scores by distance; it keeps the tensors it points at.

    Args:
        by_distance: `[heads, 2 * longest - 1]`, float32, contiguous: from key position - query position.
        places: Of the tokens in their rows, `[tokens]`, int64, contiguous; None: they follow one another.
    """

    def __init__(self, by_distance: Tensor, places: Tensor | None = None) -> None:
        self.kept = (by_distance, places)
        longest = (by_distance.shape[1] + 1) // 2
        where = None if places is None else places.data_ptr()
        self.struct = _Bias(by_distance.data_ptr(), longest, where)
        self.place = ctypes.addressof(self.struct)


def numbers(given: Sequence[int] | None) -> ctypes.Array[ctypes.c_int64] | None:
    """Whole numbers as the kernels take them."""
    return None if given is None else (ctypes.c_int64 * len(given))(*given)


def address_of(listed: ctypes.Array[ctypes.c_int64] | None) -> int | None:
    """Where they lie."""
    return None if listed is None else ctypes.addressof(listed)
