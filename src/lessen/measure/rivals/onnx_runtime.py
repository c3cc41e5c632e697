"""ONNX Runtime as a rival, in float32 and with dynamic int8 quantization; and the ONNX export OpenVINO
shares.

The export has attention written out in elementary operations, through the exporter that traces: ONNX Runtime
and OpenVINO fuse that form best.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lessen.hf import LessenForSequenceClassification
from lessen.machine import instruction_sets
from lessen.measure.rivals.batching import Padded, Rival
from lessen.measure.rivals.dense import DenseTwin, dense_twin
from lessen.measure.rivals.optional import optional, quietly
from lessen.runtime.text import Encoded

OPSET = 17


def build(
    kind: str,
    model: LessenForSequenceClassification,
    threads: int,
    calibration: Sequence[Encoded] = (),
    folder: Path | None = None,
) -> Rival:
    """A session over the dense twin; `onnxruntime-int8` quantizes weights per channel and activations as they
    come.
    """
    runtime = optional("onnxruntime")
    twin = dense_twin(model, attention="eager")
    with exported(twin, folder) as path:
        content = _quantized(path) if kind == "onnxruntime-int8" else path.read_bytes()
    session = _session(runtime, content, threads)
    names = {item.name for item in session.get_inputs()}

    def answer(batch: Padded) -> Tensor:
        (logits,) = session.run(None, feeds(batch, names))
        return torch.from_numpy(logits)

    return Rival(kind, answer, pad=twin.pad)


@contextmanager
def exported(twin: DenseTwin, folder: Path | None = None) -> Iterator[Path]:
    """The twin as an ONNX file with dynamic rows and length, named after its weights.

    Args:
        twin: With eager attention.
        folder: Where to keep the file; an export of the same weights found there is used. If None, the file
            exists only inside the block.

    Raises:
        InputError: When the package onnx is not installed.
    """
    optional("onnx")
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="lessen-") as temporary:
            _export(twin, path := Path(temporary) / "dense.onnx")
            yield path
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"dense-{_digest(twin)}.onnx"
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix=".dense-", dir=folder) as temporary:
            _export(twin, beside := Path(temporary) / path.name)
            beside.replace(path)
    yield path


def feeds(batch: Padded, names: set[str]) -> dict[str, Any]:
    """The arrays an exported graph with inputs `names` wants."""
    arrays = {"input_ids": batch.ids, "attention_mask": batch.mask, "token_type_ids": batch.segments}
    return {name: array for name, array in arrays.items() if name in names}


def _session(runtime: Any, content: bytes, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _quantized(path: Path) -> bytes:
    """The graph in int8. Where 8-bit products can overflow (x86 without VNNI) weights get 7 bits."""
    quantization = optional("onnxruntime.quantization")
    sets = instruction_sets()
    overflows = "avx2" in sets and not {"avx512_vnni", "avx_vnni"} & set(sets)
    with tempfile.TemporaryDirectory(prefix="lessen-") as temporary, quietly():
        target = Path(temporary) / "int8.onnx"
        quantization.quantize_dynamic(
            path,
            target,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=overflows,
        )
        return target.read_bytes()


def _export(twin: DenseTwin, path: Path) -> None:
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if twin.has_segments else [])]
    ids = torch.full((2, 8), twin.pad + 1)
    ids[1, 5:] = twin.pad
    mask = (ids != twin.pad).long()
    example = (ids, mask, *([torch.zeros_like(ids)] if twin.has_segments else []))
    with quietly(), torch.no_grad():
        torch.onnx.export(
            twin,
            example,
            path,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in names},
            opset_version=OPSET,
            dynamo=False,
        )


def _digest(twin: DenseTwin) -> str:
    form = (OPSET, twin.config.to_json_string(), twin.head.pool, repr(twin.head))
    digest = hashlib.sha256(repr(form).encode())
    for name, value in twin.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
