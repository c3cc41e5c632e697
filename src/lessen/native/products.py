"""Products with weights of 32, 16, 8, 4 and 1 bits, and how the kernels want these to lie in memory."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from lessen.native.matrix import LOW_BITS, LowBits

LINE = 64
"""Bytes of a line of the cache."""


class Products:
    """The part of the kernels that multiplies by one matrix."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._linear = library.lessen_linear_f32
        self._linear16 = library.lessen_linear_bf16
        self._arrange = library.lessen_arrange_signs
        self._four_bits = library.lessen_linear_w4a8
        self._whole = library.lessen_whole_bytes, library.lessen_arrange_whole
        self._fours = library.lessen_fours_bytes, library.lessen_arrange_fours
        self._low_bits = {kind: getattr(library, f"lessen_linear_{kind}") for kind in LOW_BITS}
        self._threads = torch.get_num_threads

    def linear(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`torch.nn.functional.linear` for few rows, on weights as they are.

        Args:
            values: `[tokens, in_features]`, float32 on the CPU.
            weight: `[out_features, in_features]`, float32 or bfloat16, contiguous.
            bias: `[out_features]`, float32, contiguous.
        """
        values = values.contiguous()
        rows, depth = values.shape
        result = values.new_empty(rows, len(weight))
        product = self._linear if weight.dtype == torch.float32 else self._linear16
        product(
            values.data_ptr(),
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            result.data_ptr(),
            rows,
            len(weight),
            depth,
            self._threads(),
        )
        return result

    def arranged(self, words: Tensor, in_features: int) -> Tensor:
        """Signs as the kernels read them.

        Args:
            words: `[out_features, ceil(in_features / 64)]`, int64, as `bits.packing` makes them.
            in_features: Columns of the matrix.
        """
        words = words.contiguous()
        result = words.new_empty(-(-len(words) // 8) * 8 * words.shape[1])
        self._arrange(words.data_ptr(), result.data_ptr(), len(words), in_features)
        return result

    def low_bit_linear(
        self, kind: LowBits, values: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None
    ) -> Tensor:
        """`(values @ weight.T) * scales + bias` with weights of few bits.

        Args:
            kind: Bits of weights and activations: `w8a8`, `w8a32`, `w1a8`, `w1a1` or `w1a32`. Each row of the
                values gets a scale of its own.
            values: `[tokens, in_features]`, float32 on the CPU.
            weight: For `w8a32` `[out_features, in_features]`, int8, contiguous; for `w8a8` as
                `arranged_whole` returns it; of one bit as `arranged`.
            scales: `[out_features]`, float32.
            bias: `[out_features]`, float32, or None.
        """
        values = values.contiguous()
        rows, depth = values.shape
        result = values.new_empty(rows, len(scales))
        self._low_bits[kind](
            values.data_ptr(),
            weight.data_ptr(),
            scales.data_ptr(),
            None if bias is None else bias.data_ptr(),
            result.data_ptr(),
            rows,
            len(scales),
            depth,
            self._threads(),
        )
        return result

    def arranged_whole(self, weight: Tensor) -> Tensor:
        """Weights of 8 bits as the kernels read them, int8, beginning at a line of the cache.

        Args:
            weight: Whole numbers from -127 to 127, `[out_features, in_features]`, int8.
        """
        return _arranged(self._whole, weight, *weight.shape)

    def arranged_fours(self, rows: Tensor, in_features: int) -> Tensor:
        """Weights of 4 bits as the kernels read them, uint8, beginning at a line of the cache.

        Args:
            rows: `[out_features, 20 * ceil(in_features / 32)]`, uint8, as `bits.fours` makes them.
            in_features: Columns of the matrix.
        """
        return _arranged(self._fours, rows, len(rows), in_features)

    def four_bit_linear(self, values: Tensor, weight: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
        """`values @ weight.T + bias` with weights of 4 bits; values get 8 bits and a scale for 32 columns.

        Args:
            values: `[tokens, in_features]`, float32 on the CPU.
            weight: As `arranged_fours` returns it.
            bias: `[outputs]`, float32, or None.
            outputs: Rows of the matrix.
        """
        values = values.contiguous()
        rows, depth = values.shape
        result = values.new_empty(rows, outputs)
        self._four_bits(
            values.data_ptr(),
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            result.data_ptr(),
            rows,
            outputs,
            depth,
            self._threads(),
        )
        return result


def _arranged(by: tuple[Any, Any], stored: Tensor, outputs: int, inputs: int) -> Tensor:
    """Bytes arranged by a pair of functions: how many they become, and what writes them."""
    stored = stored.contiguous()
    count = by[0](outputs, inputs)
    room = stored.new_empty(count + LINE)
    start = -room.data_ptr() % LINE
    by[1](stored.data_ptr(), room.data_ptr() + start, outputs, inputs)
    return room[start : start + count]
