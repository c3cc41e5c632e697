"""Time the products with few bits beside torch's own of the same size, once they were found right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lessen.bits import fours
from lessen.bits.packing import pack
from lessen.bits.products import arranged, product, reference
from lessen.bits.quantized import quantized
from lessen.errors import LessenError
from lessen.measure.latency import interleaved, threads
from lessen.native import Native, native
from lessen.native.library import LOW_BITS

KERNELS = (*LOW_BITS, "w4a8")

SHAPES = ((1, 768, 3072), (24, 768, 3072), (128, 768, 3072))
"""Rows, inputs and outputs: one token, a sentence, and a batch, through BERT-base's widest matrix."""

FEWEST_ROWS_INT8 = 17
"""torch's product of whole numbers wants at least so many; fewer are padded."""

TOLERANCE = 1e-4
"""Of the largest result, against the reference; sums are taken in another order."""


@torch.inference_mode()
def kernel_rows(
    shapes: Sequence[tuple[int, int, int]] = SHAPES, *, thread_count: int, seconds: float
) -> list[dict[str, Any]]:
    """One row for each kernel and shape.

    Args:
        shapes: Rows, inputs and outputs of the products.
        thread_count: Processor threads.
        seconds: Time for each shape, all candidates together.

    Returns:
        `kernel`, `m`, `n`, `k`, `threads`, `ms`, `torch_fp32_ms`, `torch_bf16_ms`, `int8_ms` (torch's
        `_int_mm` on numbers that are whole already), `gb_per_s` of weights as they are stored,
        `read_gb_per_s` (of adding up as many bytes as the matrix has weights), and `isa`, the instruction set
        or `torch`.

    Raises:
        LessenError: When a kernel computes something else than its reference.
    """
    kernels = native()
    rows = []
    for m, k, n in shapes:
        generator = torch.Generator().manual_seed(0)
        values, weight = torch.randn(m, k, generator=generator), torch.randn(n, k, generator=generator)
        bias = torch.randn(n, generator=generator)
        with threads(thread_count):
            candidates = _rivals(values, weight, bias)
            ours = {kind: _ours(kind, values, weight, bias, kernels) for kind in KERNELS}
            candidates |= {kind: each.run for kind, each in ours.items()}
            candidates["read"] = torch.ones(max(1, n * k // 8), dtype=torch.int64).sum
            timings = interleaved(candidates, seconds=seconds)
        ms = {name: round(timing.median_ms, 5) for name, timing in timings.items()}
        rivals = {f"{name}_ms": ms[name] for name in ("torch_fp32", "torch_bf16", "int8")}
        facts = {"m": m, "n": n, "k": k, "threads": thread_count, "isa": kernels.isa if kernels else "torch"}
        facts["read_gb_per_s"] = _speed(max(1, n * k // 8) * 8, ms["read"])
        for kind, each in ours.items():
            speed = {"gb_per_s": _speed(each.stored, ms[kind])}
            rows.append({"kernel": kind, **facts, "ms": ms[kind], **rivals, **speed})
    return rows


def _speed(count: int, ms: float) -> float:
    """GB/s of so many bytes, to three digits."""
    return float(f"{count / ms / 1e6:.3g}") if ms else 0.0


class _Ours(NamedTuple):
    """A product, and the bytes its weights are stored in."""

    run: Callable[[], Tensor]
    stored: int


def _ours(kind: Any, values: Tensor, weight: Tensor, bias: Tensor, kernels: Native | None) -> _Ours:
    """A product with weights made ready, after it was checked; quantizing the values is part of it."""
    if kind == "w4a8":
        blocks = fours.fit(weight)
        ready = fours.arranged(blocks, values.shape[1], kernels)
        run = partial(fours.product, values, ready, bias, len(weight), kernels)
        return _checked(
            kind, run, fours.reference(values, fours.unpack(blocks, values.shape[1]), bias), blocks
        )
    whole, steps = quantized(weight)
    stored = whole.to(torch.int8) if kind.startswith("w8") else pack(weight)
    scales = steps.squeeze(1)
    run = partial(
        product, kind, values, arranged(kind, stored, values.shape[1], kernels), scales, bias, kernels
    )
    return _checked(kind, run, reference(kind, values, stored, scales, bias), stored)


def _checked(kind: str, run: Callable[[], Tensor], exact: Tensor, stored: Tensor) -> _Ours:
    worst = float((run() - exact).abs().max() / exact.abs().max())
    if worst > TOLERANCE:
        raise LessenError(f"kernel {kind} is wrong by {worst:.1e} of the largest result; do not use it")
    return _Ours(run, stored.numel() * stored.element_size())


def _rivals(values: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Callable[[], Tensor]]:
    half = [tensor.bfloat16() for tensor in (values, weight, bias)]
    more = values.new_zeros(max(0, FEWEST_ROWS_INT8 - len(values)), values.shape[1])
    whole = quantized(torch.cat([values, more]))[0].to(torch.int8)
    columns = quantized(weight)[0].to(torch.int8).T.contiguous()
    return {
        "torch_fp32": partial(functional.linear, values, weight, bias),
        "torch_bf16": partial(functional.linear, *half),
        "int8": partial(torch._int_mm, whole, columns),
    }
