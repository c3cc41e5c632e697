"""Time a model's Points and the same weights in other runtimes: same rows and threads, interleaved.

Every figure carries the quality reached on the same rows. Before anything is timed, each float32 rival must
give the model's own full-depth answers; a rival that does not is a bug and stops the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from lessen.errors import LessenError
from lessen.measure.latency import interleaved, threads
from lessen.measure.metrics import quality
from lessen.measure.rivals import Rival, build
from lessen.plan import FULL, Point
from lessen.runtime.engine import run
from lessen.runtime.text import Encoded, collate

EXACT = ("torch", "torch-compiled", "onnxruntime", "openvino")
"""Kinds that compute in float32 and must agree with us to `TOLERANCE` of the largest logit."""

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    Attributes:
        kind: `lessen` with its precision, or the rival's name.
        name: The Point; `dense` for rivals.
        batch: Rows given at once.
        length: Mean tokens per row.
        ms: Median milliseconds per row.
        value: The main metric on the rows timed; None without labels.
        low: 10th percentile of `ms`.
        high: 90th percentile of `ms`.
    """

    kind: str
    name: str
    batch: int
    length: float
    ms: float
    value: float | None
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def compare(
    models: Mapping[str, Any],
    reference: Any,
    encoded: Sequence[Encoded],
    labels: Sequence[object] | None,
    *,
    points: Sequence[Point],
    rivals: Mapping[str, Rival],
    batch_sizes: Sequence[int],
    thread_count: int,
    seconds: float = 10.0,
) -> list[Row]:
    """Time Points and rivals on the same batches.

    Args:
        models: The model by kind (`lessen`, `lessen-bf16`, ...): the same weights in different precisions.
        reference: The model in float32, which float32 rivals must agree with.
        encoded: Rows to time on, in random order.
        labels: Of the rows, for the quality column; None leaves it empty.
        points: Points of each model.
        rivals: From `build_rivals`.
        batch_sizes: Rows given at once.
        thread_count: Threads for everyone.
        seconds: Time for each batch size.

    Raises:
        LessenError: When a float32 rival's answers differ from ours.
    """
    with threads(thread_count):
        truth = run_all(reference, encoded, FULL, len(encoded))
        for kind, rival in rivals.items():
            must_agree(kind, rival(encoded), truth)
        rows: list[Row] = []
        for size in batch_sizes:
            rows += _one_size(models, rivals, encoded, labels, points, size, seconds, reference.problem_type)
        return rows


def build_rivals(
    kinds: Sequence[str], reference: Any, thread_count: int, calibration: Sequence[Encoded]
) -> dict[str, Rival]:
    """Rivals by kind, with the weights of a float32 model.

    Args:
        kinds: From `lessen.measure.rivals`.
        reference: The model.
        thread_count: Threads they use.
        calibration: Rows for rivals that quantize activations; not those they are judged on.

    Raises:
        InputError: When a rival's package is not installed.
    """
    with threads(thread_count):
        return {kind: build(kind, reference, thread_count, calibration) for kind in kinds}


@torch.inference_mode()
def run_all(model: Any, encoded: Sequence[Encoded], point: Point, batch: int) -> torch.Tensor:
    """Logits `[rows, outputs]` in order, given `batch` rows at once: what is timed for our own models."""
    return torch.cat(
        [
            run(model.transformer, *collate(encoded[start : start + batch], model.device), point).logits
            for start in range(0, len(encoded), batch)
        ]
    )


def must_agree(kind: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Stop if a rival that computes in float32 does not give the model's own full-depth logits.

    Raises:
        LessenError: When it does not; such a rival is wrong, or not the same model.
    """
    if kind not in EXACT:
        return
    gap = float((found.double() - expected.double()).abs().max() / expected.abs().max())
    if not gap <= TOLERANCE:
        raise LessenError(
            f"{kind} answers differently from the model it was built from (by {gap:.2g}); not timed"
        )


def _rival_all(rival: Any, encoded: Sequence[Encoded], batch: int) -> torch.Tensor:
    return torch.cat([rival(encoded[start : start + batch]) for start in range(0, len(encoded), batch)])


def _one_size(
    models: Mapping[str, Any],
    rivals: Mapping[str, Rival],
    encoded: Sequence[Encoded],
    labels: Sequence[object] | None,
    points: Sequence[Point],
    batch: int,
    seconds: float,
    problem_type: str,
) -> list[Row]:
    candidates: dict[tuple[str, str], Callable[[], torch.Tensor]] = {}
    for kind, model in models.items():
        for point in points:
            candidates[kind, point.name] = partial(run_all, model, encoded, point, batch)
    for kind, rival in rivals.items():
        candidates[kind, "dense"] = partial(_rival_all, rival, encoded, batch)
    values: dict[tuple[str, str], float | None] = dict.fromkeys(candidates)
    if labels is not None:
        for key, call in candidates.items():
            values[key] = quality(call().double().numpy(), labels, problem_type)
    keys = {" ".join(key): key for key in candidates}
    timings = interleaved({name: candidates[key] for name, key in keys.items()}, seconds=seconds)
    length = float(np.mean([len(row.ids) for row in encoded]))
    return [
        Row(
            kind=keys[name][0],
            name=keys[name][1],
            batch=batch,
            length=length,
            ms=timing.median_ms / len(encoded),
            value=values[keys[name]],
            low=timing.low_ms / len(encoded),
            high=timing.high_ms / len(encoded),
        )
        for name, timing in timings.items()
    ]
