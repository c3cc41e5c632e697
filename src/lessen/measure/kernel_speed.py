"""Time the products with few bits beside torch's own of the same size, once they were found right."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lessen.bits import fours
from lessen.bits.packing import pack
from lessen.bits.products import arranged, product, reference
from lessen.bits.quantized import quantized
from lessen.errors import LessenError
from lessen.measure.latency import Timing, interleaved, threads
from lessen.model.few_bits import ONE_BIT, BinaryLinear, FewBits, Int4Linear, Int8Linear, Int8Weights
from lessen.native import Native, native
from lessen.native.matrix import LOW_BITS

KERNELS = (*LOW_BITS, "w4a8")

SHAPES = ((1, 768, 3072), (24, 768, 3072), (128, 768, 3072))
"""Rows, inputs and outputs: one token, a sentence, and a batch, through BERT-base's widest matrix."""

LAYOUTS = ("int8 by columns", "int8 by rows")
"""torch's product of whole numbers with weights `[n, k]` written out by columns, and as they lie: which is
faster depends on shape and processor, so the faster one is its time."""

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
        `torch_bf16_ms`, `int8_ms` (`_int_mm` on numbers that are whole already, weights in the faster of two
        layouts) and `int8_linear_ms` (its dynamic int8 linear, which makes activations small too; None where
        this torch has none). `gb_per_s` is of weights as they are stored, `read_gb_per_s` of adding up as
        many bytes as the matrix has weights.
        `spread` has for each time its 10th and 90th percentile in ms, `runs` how often each ran, `faster` how
        many times faster `ms` is than each, as quartiles over rounds of the quotient within a round, and
        `module_faster` the same of the layer.

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
            ours = {kind: _ours(kind, values, weight, bias, kernels) for kind in KERNELS}
            candidates = rivals | {kind: each.run for kind, each in ours.items()}
            candidates |= {f"{kind} layer": each.layer for kind, each in ours.items()}
            candidates["read"] = torch.ones(max(1, n * k // 8), dtype=torch.int64).sum
            timings = interleaved(candidates, seconds=seconds)
        timings["int8"] = min((timings[layout] for layout in LAYOUTS), key=lambda each: each.median_ms)
        facts = {"m": m, "n": n, "k": k, "threads": thread_count, "isa": kernels.isa if kernels else "torch"}
        facts["read_gb_per_s"] = _speed(max(1, n * k // 8) * 8, timings["read"])
        for kind, each in ours.items():
            speed = {"gb_per_s": _speed(each.stored, timings[kind])}
            rows.append(_row(kind, facts | speed, timings))
    return rows


def _speed(count: int, timing: Timing) -> float:
    """GB/s of so many bytes, to three digits."""
    return float(f"{count / timing.median_ms / 1e6:.3g}") if timing.median_ms else 0.0


def _row(kind: str, facts: dict[str, Any], timings: dict[str, Timing]) -> dict[str, Any]:
    """One kernel's row."""
    rivals = [name for name in RIVALS if name in timings]
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


class _Ours(NamedTuple):
    """The bare product, the layer around it, and the bytes its weights are stored in."""

    run: Callable[[], Tensor]
    layer: Callable[[], Tensor]
    stored: int


def _ours(kind: Any, values: Tensor, weight: Tensor, bias: Tensor, kernels: Native | None) -> _Ours:
    """A product with weights made ready, after it was checked; both make activations small."""
    columns = values.shape[1]
    if kind == "w4a8":
        stored, scales = fours.fit(weight), None
        ready = fours.arranged(stored, columns, kernels)
        run = partial(fours.product, values, ready, bias, len(weight), kernels)
        exact = fours.reference(values, fours.unpack(stored, columns), bias)
    else:
        whole, steps = quantized(weight)
        stored, scales = whole.to(torch.int8) if kind.startswith("w8") else pack(weight), steps.squeeze(1)
        ready = arranged(kind, stored, columns, kernels)
        run = partial(product, kind, values, ready, scales, bias, kernels)
        exact = reference(kind, values, stored, scales, bias)
    layer = partial(_layer(kind, stored, scales, bias, columns), values)
    for name, each in ((kind, run), (f"{kind} layer", layer)):
        worst = float((each() - exact).abs().max() / exact.abs().max())
        if not worst <= TOLERANCE:  # nor where it is no number
            raise LessenError(f"kernel {name} is wrong by {worst:.1e} of the largest result; do not use it")
    return _Ours(run, layer, stored.numel() * stored.element_size())


LAYERS: dict[str, Callable[[int, int], FewBits]] = {
    "w8a8": Int8Linear,
    "w8a32": Int8Weights,
    "w4a8": Int4Linear,
    **{name: partial(BinaryLinear, activation_bits=bits) for bits, name in ONE_BIT.items()},
}
"""Modules of models with such products."""


def _layer(kind: str, stored: Tensor, scales: Tensor | None, bias: Tensor, columns: int) -> FewBits:
    """The module of a model with such a product: what dispatch costs is part of it."""
    layer = LAYERS[kind](columns, len(stored))
    for place, value in ((layer.weight, stored), (layer.scales, scales), (layer.bias, bias)):
        if place is not None and value is not None:
            place.copy_(value)
    return layer.eval()


def _rivals(values: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Callable[[], Tensor]]:
    half = [tensor.bfloat16() for tensor in (values, weight, bias)]
    whole, columns = (quantized(each)[0].to(torch.int8) for each in (values, weight))
    layouts = columns.T.contiguous(), columns.T
    rivals: dict[str, Callable[[], Tensor]] = {
        "torch_fp32": partial(functional.linear, values, weight, bias),
        "torch_bf16": partial(functional.linear, *half),
    }
    rivals |= {name: partial(torch._int_mm, whole, each) for name, each in zip(LAYOUTS, layouts, strict=True)}
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
