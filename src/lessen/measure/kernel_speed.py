"""Time the products with few bits beside torch's own of the same size, once they were found right."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lessen.bits.packing import pack
from lessen.bits.products import arranged, product, reference
from lessen.bits.quantized import quantized
from lessen.errors import LessenError
from lessen.measure.latency import Timing, interleaved, threads
from lessen.model.few_bits import ONE_BIT, BinaryLinear, FewBits, Int8Linear
from lessen.native import Native, native
from lessen.native.library import LOW_BITS, LowBits

SHAPES = ((1, 768, 3072), (24, 768, 3072), (128, 768, 3072))
"""Rows, inputs and outputs: one token, a sentence, and a batch, through BERT-base's widest matrix."""

FEWEST_ROWS_INT8 = 17
"""torch's product of whole numbers wants at least so many; fewer are padded."""

RIVALS = ("torch_fp32", "torch_bf16", "int8", "int8_linear")
"""What each kernel is timed beside."""

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
        `kernel`, `m`, `n`, `k`, `threads`, `isa`, the instruction set or `torch`; and, as medians in ms, `ms`
        of the bare product, `module_ms` of the layer that models call, and of torch `torch_fp32_ms`,
        `torch_bf16_ms`, `int8_ms` (`_int_mm` on numbers that are whole already) and `int8_linear_ms` (its
        dynamic int8 linear, which makes activations small too; None where this torch has none). `spread` has
        for each of them 10th and 90th percentile in ms, `runs` how often each ran, `faster` how many times
        faster `ms` is than each, as quartiles over rounds of the quotient within a round, and `module_faster`
        the same of the layer.

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
            rivals = _rivals(values, weight, bias)
            candidates = dict(rivals)
            for kind in LOW_BITS:
                candidates |= _ours(kind, values, weight, bias, kernels)
            timings = interleaved(candidates, seconds=seconds)
        facts = {"m": m, "n": n, "k": k, "threads": thread_count, "isa": kernels.isa if kernels else "torch"}
        rows += [_row(kind, facts, timings, rivals) for kind in LOW_BITS]
    return rows


def _row(
    kind: str, facts: dict[str, Any], timings: dict[str, Timing], rivals: dict[str, Any]
) -> dict[str, Any]:
    """One kernel's row."""
    named = {"ms": kind, "module_ms": f"{kind} layer"} | {f"{name}_ms": name for name in RIVALS}
    found = {field: timings.get(name) for field, name in named.items()}
    return {
        "kernel": kind,
        **facts,
        **{field: None if each is None else round(each.median_ms, 5) for field, each in found.items()},
        "runs": timings[kind].runs,
        "spread": {
            field: [round(each.low_ms, 5), round(each.high_ms, 5)] for field, each in found.items() if each
        },
        "faster": {name: quartiles(timings[name], timings[kind]) for name in rivals},
        "module_faster": {name: quartiles(timings[name], timings[f"{kind} layer"]) for name in rivals},
    }


def quartiles(slow: Timing, fast: Timing) -> list[float]:
    """How many times faster one candidate is: 25th, 50th and 75th percentile over rounds."""
    ratios = [a / b for a, b in zip(slow.samples_ms, fast.samples_ms, strict=True)]
    return [round(float(each), 4) for each in np.quantile(ratios, (0.25, 0.5, 0.75))]


def _ours(
    kind: LowBits, values: Tensor, weight: Tensor, bias: Tensor, kernels: Native | None
) -> dict[str, Callable[[], Tensor]]:
    """The bare product and the layer around it, after they were checked; both make activations small."""
    whole, steps = quantized(weight)
    stored = whole.to(torch.int8) if kind == "w8a8" else pack(weight)
    scales = steps.squeeze(1)
    ready = arranged(kind, stored, values.shape[1], kernels)
    ours: dict[str, Callable[[], Tensor]] = {
        kind: partial(product, kind, values, ready, scales, bias, kernels),
        f"{kind} layer": partial(_layer(kind, stored, scales, bias, values.shape[1]), values),
    }
    exact = reference(kind, values, stored, scales, bias)
    for name, run in ours.items():
        worst = float((run() - exact).abs().max() / exact.abs().max())
        if worst > TOLERANCE:
            raise LessenError(f"kernel {name} is wrong by {worst:.1e} of the largest result; do not use it")
    return ours


def _layer(kind: LowBits, stored: Tensor, scales: Tensor, bias: Tensor, columns: int) -> FewBits:
    """The module of a model with such a product: what dispatch costs is part of it."""
    if kind == "w8a8":
        layer: FewBits = Int8Linear(columns, len(stored))
    else:
        bits = next(bits for bits, name in ONE_BIT.items() if name == kind)
        layer = BinaryLinear(columns, len(stored), activation_bits=bits)
    assert layer.bias is not None
    for place, value in ((layer.weight, stored), (layer.scales, scales), (layer.bias, bias)):
        place.copy_(value)
    return layer.eval()


def _rivals(values: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Callable[[], Tensor]]:
    half = [tensor.bfloat16() for tensor in (values, weight, bias)]
    more = values.new_zeros(max(0, FEWEST_ROWS_INT8 - len(values)), values.shape[1])
    whole = quantized(torch.cat([values, more]))[0].to(torch.int8)
    columns = quantized(weight)[0].to(torch.int8).T.contiguous()
    rivals: dict[str, Callable[[], Tensor]] = {
        "torch_fp32": partial(functional.linear, values, weight, bias),
        "torch_bf16": partial(functional.linear, *half),
        "int8": partial(torch._int_mm, whole, columns),
    }
    dynamic = _dynamic(values, weight, bias)
    return rivals if dynamic is None else rivals | {"int8_linear": dynamic}


def _dynamic(values: Tensor, weight: Tensor, bias: Tensor) -> Callable[[], Tensor] | None:
    """torch's own linear with 8 bits, a scale for each output and one for all activations; None without."""
    steps = weight.abs().amax(1).double() / 127
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its tensors of whole numbers are announced for removal
        try:
            zeros = torch.zeros(len(weight), dtype=torch.long)
            small = torch.quantize_per_channel(weight, steps, zeros, 0, torch.qint8)
            packed = torch.ops.quantized.linear_prepack(small, bias)
            run: Callable[[], Tensor] = partial(torch.ops.quantized.linear_dynamic, values, packed)
            run()
        except (RuntimeError, AttributeError):
            return None
    return run
