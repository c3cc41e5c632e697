"""OpenVINO as a rival: float32, bfloat16 where the processor has it, and int8 by NNCF's post-training
quantization.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lessen.errors import InputError
from lessen.hf import LessenForSequenceClassification
from lessen.measure.rivals.batching import Padded, Rival, padded
from lessen.measure.rivals.dense import dense_twin
from lessen.measure.rivals.onnx_runtime import exported, feeds
from lessen.measure.rivals.optional import optional, quietly
from lessen.runtime.text import Encoded

PRECISION = {
    "openvino": {"INFERENCE_PRECISION_HINT": "f32"},
    "openvino-bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
}
"""Of the arithmetic, by kind. What int8 leaves in floating point runs in the device's own choice."""

MOST_CALIBRATION_ROWS = 300

STATIC_BYTES = 2**32
"""Weights of graphs of one fixed length, each of which has its own, at most; and at most a quarter of the
machine's memory."""


def build(
    kind: str,
    model: LessenForSequenceClassification,
    threads: int,
    calibration: Sequence[Encoded] = (),
    folder: Path | None = None,
) -> Rival:
    """The dense twin compiled for low latency, with dynamic shapes; single rows get a graph of their own
    length.

    A fixed length is faster for a short row. There is one such graph for each length of a single row, in the
    order they are first seen (that call compiles it), while they fit in `STATIC_BYTES`.

    Raises:
        InputError: When a package is missing, or `openvino-int8` has no calibration rows.
    """
    if kind == "openvino-int8" and not calibration:
        raise InputError("openvino-int8 needs rows to calibrate on; give some of the training rows")
    runtime = optional("openvino")
    twin = dense_twin(model, attention="eager")
    core = runtime.Core()
    with exported(twin, folder) as path:
        graph = core.read_model(path.read_bytes())
    names = {item.any_name for item in graph.inputs}
    if kind == "openvino-int8":
        graph = _quantized(graph, [feeds(padded([row], twin.pad), names) for row in calibration])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        **PRECISION.get(kind, {}),
    }
    size = sum(node.get_byte_size() for node in graph.get_ops() if node.get_type_name() == "Constant")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    requests = _Requests(core, graph, settings, most=min(STATIC_BYTES, memory // 4) // size)

    def answer(batch: Padded) -> Tensor:
        request = requests.of(*batch.ids.shape)
        return torch.from_numpy(request.infer(feeds(batch, names), share_inputs=True)[0])

    return Rival(kind, answer, pad=twin.pad)


class _Requests:
    """Compiled graphs: one for every shape, and up to `most` for single rows of one length."""

    def __init__(self, core: Any, graph: Any, settings: dict[str, Any], most: int) -> None:
        self.core = core
        self.graph = graph
        self.settings = settings
        self.most = most
        self.dynamic = self._compiled(graph)
        self.static: dict[int, Any] = {}

    def of(self, rows: int, length: int) -> Any:
        """The request to use for `[rows, length]`."""
        if rows > 1:
            return self.dynamic
        if length not in self.static and len(self.static) < self.most:
            fixed = self.graph.clone()
            fixed.reshape({item.any_name: [1, length] for item in fixed.inputs})
            self.static[length] = self._compiled(fixed)
        return self.static.get(length, self.dynamic)

    def _compiled(self, graph: Any) -> Any:
        return self.core.compile_model(graph, "CPU", self.settings).create_infer_request()


def _quantized(graph: Any, rows: list[dict[str, Any]]) -> Any:
    # Read when NNCF is imported: it then does not report its use over the network.
    os.environ.setdefault("NNCF_CI", "1")
    nncf = optional("nncf")
    rows = rows[:MOST_CALIBRATION_ROWS]
    with quietly():
        return nncf.quantize(
            graph, nncf.Dataset(rows), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
        )
