"""What a decoder's layer and its cache look like to the kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from lessen.native.layer import LayerRest, Rest, address_of, numbers
from lessen.native.matrix import Matrix, MatrixOf, Norm, NormOf, norm_struct


class _Decoder(ctypes.Structure):
    _fields_ = (
        ("qkv", Matrix),
        ("query", Matrix),
        ("read_output", Matrix),
        ("query_norm", Norm),
        ("key_norm", Norm),
        ("read_norm", Norm),
        *((name, ctypes.c_int64) for name in ("heads", "key_heads", "dim", "turned", "parallel")),
        ("of_bias", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("rest", Rest),
    )


class _Row(ctypes.Structure):
    _fields_ = (("row", ctypes.c_int64), ("tokens", ctypes.c_int64), ("held", ctypes.c_int64))


class _Source(ctypes.Structure):
    _fields_ = (("keys", ctypes.c_void_p), ("values", ctypes.c_void_p), ("tokens", ctypes.c_int64))


class _Room(ctypes.Structure):
    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("rows", ctypes.POINTER(_Row)),
        ("count", ctypes.c_int64),
        ("sources", ctypes.POINTER(_Source)),
    )


@dataclass(frozen=True)
class Form:
    """Sizes and variants of a decoder's layer.

    Attributes:
        heads: Of queries.
        key_heads: Of keys and of values.
        dim: Of a head.
        turned: Of its dimensions, those that turn.
        parallel: Whether both halves read the layer's input.
        scale: Scores are multiplied by it.
        of_bias: Heads of a bias of scores that are the layer's; None: as many as it has.
    """

    heads: int
    key_heads: int
    dim: int
    turned: int
    parallel: bool
    scale: float
    of_bias: tuple[int, ...] | None


class Reading(NamedTuple):
    """How a layer reads a source.

    Attributes:
        query: Of its heads, as many as the layer has.
        output: Of what they find.
        norm: Before it.
    """

    query: MatrixOf
    output: MatrixOf
    norm: NormOf


class DecoderLayer:
    """A decoder's layer made ready to be called; it keeps the tensors it points at.

    Args:
        form: Of the layer.
        qkv: For queries, keys and values.
        rest: What comes after the attention, norms before its branches.
        head_norms: Of queries and of keys, or None.
        reading: Of a source, or None.
    """

    def __init__(
        self,
        form: Form,
        qkv: MatrixOf,
        rest: LayerRest,
        head_norms: tuple[NormOf, NormOf] | None,
        reading: Reading | None = None,
    ) -> None:
        listed = numbers(form.of_bias)
        self.kept = (qkv, rest, head_norms, reading, listed)
        self.reads = reading is not None
        query_norm, key_norm = (Norm(), Norm()) if head_norms is None else map(norm_struct, head_norms)
        self.struct = _Decoder(
            qkv.struct(),
            *((Matrix(), Matrix()) if reading is None else (each.struct() for each in reading[:2])),
            query_norm,
            key_norm,
            Norm() if reading is None else norm_struct(reading.norm),
            form.heads,
            form.key_heads,
            form.dim,
            form.turned,
            form.parallel,
            address_of(listed),
            form.scale,
            rest.struct,
        )
        self.place = ctypes.addressof(self.struct)


class Room:
    """Where keys and values of new tokens go.

    Args:
        keys: `[rows, key heads, capacity, dim]`, float32, contiguous.
        values: The same.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.struct = _Room(keys.data_ptr(), values.data_ptr(), keys.shape[2], None, 0, None)
        self.sources: list[tuple[Tensor, Tensor]] | None = None
        self.place = ctypes.addressof(self.struct)

    def hold(self, rows: Sequence[tuple[int, int, int]]) -> Room:
        """Say of each row with new tokens which it is, how many are new, and how many are held."""
        if len(rows) != self.struct.count:
            self.listed = (_Row * len(rows))()
            self.struct.rows, self.struct.count = self.listed, len(rows)
        for place, row in enumerate(rows):
            self.listed[place] = _Row(*row)
        return self

    def read(self, sources: list[tuple[Tensor, Tensor]]) -> Room:
        """Say what each row with new tokens reads: keys and values, `[1, heads, tokens, dim]`, contiguous."""
        if (
            self.sources is None
            or len(sources) != len(self.sources)
            or any(one[0] is not other[0] for one, other in zip(sources, self.sources, strict=True))
        ):
            self.sources = sources
            self.structs = (_Source * len(sources))(
                *(_Source(keys.data_ptr(), values.data_ptr(), keys.shape[2]) for keys, values in sources)
            )
            self.struct.sources = self.structs
        return self


class LastNorm:
    """The norm after the last layer; it keeps the tensors it points at."""

    def __init__(self, norm: NormOf) -> None:
        self.kept, self.struct = norm, norm_struct(norm)
        self.place = ctypes.addressof(self.struct)
