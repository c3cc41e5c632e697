"""The same fine-tuned weights, at full depth and without early exits, in other runtimes at their best.

Each rival pads tightly, sorts a batch by length, cuts it where that is faster, and uses the threads it is
given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lessen.errors import InputError
from lessen.hf import LessenForSequenceClassification
from lessen.measure.rivals import onnx_runtime, openvino_runtime, torch_dense
from lessen.measure.rivals.batching import Rival
from lessen.measure.rivals.dense import dense_twin
from lessen.runtime.text import Encoded

__all__ = ["RIVALS", "Builder", "Rival", "build", "dense_twin"]

Builder = Callable[[LessenForSequenceClassification, int, Sequence[Encoded], Path | None], Rival]
"""`builder(model, threads, calibration, folder)`."""

RIVALS: dict[str, Builder] = {
    "torch": partial(torch_dense.eager, "torch"),
    "torch-bf16": partial(torch_dense.eager, "torch-bf16"),
    "torch-compiled": partial(torch_dense.compiled, "torch-compiled"),
    "torch-compiled-bf16": partial(torch_dense.compiled, "torch-compiled-bf16"),
    "onnxruntime": partial(onnx_runtime.build, "onnxruntime"),
    "onnxruntime-int8": partial(onnx_runtime.build, "onnxruntime-int8"),
    "openvino": partial(openvino_runtime.build, "openvino"),
    "openvino-bf16": partial(openvino_runtime.build, "openvino-bf16"),
    "openvino-int8": partial(openvino_runtime.build, "openvino-int8"),
}
"""Builders by kind. The compiled ones take half a minute at their first call."""


def build(
    kind: str,
    model: LessenForSequenceClassification,
    threads: int,
    calibration: Sequence[Encoded] = (),
    folder: Path | None = None,
) -> Rival:
    """One rival of a model.

    Args:
        kind: One of `RIVALS`.
        model: A classifier with all heads and neurons; dropped layers are fine.
        threads: Threads the rival uses, no more and no fewer.
        calibration: Real rows for rivals that quantize activations (`openvino-int8`); others ignore them.
        folder: Where to keep the ONNX export, so that the next rival of the same weights finds it.

    Raises:
        InputError: For an unknown kind, a missing package, or missing calibration rows.
        PlanError: When the model is not dense.
    """
    if kind not in RIVALS:
        raise InputError(f"no rival {kind!r}; there is {', '.join(RIVALS)}")
    if threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    return RIVALS[kind](model, threads, calibration, folder)
