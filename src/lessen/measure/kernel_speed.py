"""Time the products with few bits beside torch's own of the same size, once they were found right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lessen.bits.packing import pack
from lessen.bits.products import arranged, product, reference
from lessen.bits.quantized import quantized
from lessen.errors import LessenError
from lessen.measure.latency import interleaved, threads
from lessen.native import Native, native
from lessen.native.library import LOW_BITS

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
        `_int_mm` on numbers that are whole already), and `isa`, the instruction set or `torch`.

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
            candidates |= {kind: _ours(kind, values, weight, bias, kernels) for kind in LOW_BITS}
            timings = interleaved(candidates, seconds=seconds)
        ms = {name: round(timing.median_ms, 5) for name, timing in timings.items()}
        rivals = {f"{name}_ms": ms[name] for name in ("torch_fp32", "torch_bf16", "int8")}
        facts = {"m": m, "n": n, "k": k, "threads": thread_count, "isa": kernels.isa if kernels else "torch"}
        rows += [{"kernel": kind, **facts, "ms": ms[kind], **rivals} for kind in LOW_BITS]
    return rows


def _ours(
    kind: Any, values: Tensor, weight: Tensor, bias: Tensor, kernels: Native | None
) -> Callable[[], Tensor]:
    """A product with weights made ready, after it was checked; quantizing the values is part of it."""
    whole, steps = quantized(weight)
    stored = whole.to(torch.int8) if kind.startswith("w8") else pack(weight)
    scales = steps.squeeze(1)
    run = partial(
        product, kind, values, arranged(kind, stored, values.shape[1], kernels), scales, bias, kernels
    )
    exact = reference(kind, values, stored, scales, bias)
    worst = float((run() - exact).abs().max() / exact.abs().max())
    if worst > TOLERANCE:
        raise LessenError(f"kernel {kind} is wrong by {worst:.1e} of the largest result; do not use it")
    return run


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
