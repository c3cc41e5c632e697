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


@dataclass(frozen=True)
class Contestant:
    """One model, and the same weights in other runtimes.

    Attributes:
        models: The model by kind (`lessen`, `lessen-bf16`): the same weights in different precisions.
        reference: The model in float32, which float32 rivals must agree with.
        encoded: Rows to time on, in random order.
        labels: Of the rows, for the quality column; None leaves it empty.
        points: Points of each model.
        rivals: From `build_rivals`.
    """

    models: Mapping[str, Any]
    reference: Any
    encoded: Sequence[Encoded]
    labels: Sequence[object] | None
    points: Sequence[Point]
    rivals: Mapping[str, Rival]


def compare(
    contestants: Mapping[str, Contestant],
    *,
    batch_sizes: Sequence[int],
    thread_count: int,
    seconds: float = 10.0,
) -> dict[str, list[Row]]:
    """Time the Points of every contestant and its rivals on the same batches, all interleaved.

    Args:
        contestants: By name.
        batch_sizes: Rows given at once.
        thread_count: Threads for everyone.
        seconds: Time for each batch size.

    Returns:
        Rows by contestant, batch size by batch size.

    Raises:
        LessenError: When a float32 rival's answers differ from ours.
    """
    with threads(thread_count):
        for one in contestants.values():
            truth = run_all(one.reference, one.encoded, FULL, len(one.encoded))
            for kind, rival in one.rivals.items():
                must_agree(kind, rival(one.encoded), truth)
        rows: dict[str, list[Row]] = {name: [] for name in contestants}
        for size in batch_sizes:
            for name, found in _one_size(contestants, size, seconds).items():
                rows[name] += found
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


def _one_size(contestants: Mapping[str, Contestant], batch: int, seconds: float) -> dict[str, list[Row]]:
    calls = {
        (name, *key): call
        for name, one in contestants.items()
        for key, call in _candidates(one, batch).items()
    }
    values: dict[tuple[str, str, str], float | None] = dict.fromkeys(calls)
    for (name, kind, point), call in calls.items():
        one = contestants[name]
        if one.labels is not None:
            logits = call().double().numpy()
            values[name, kind, point] = quality(logits, one.labels, one.reference.problem_type)
    timings = interleaved({"\n".join(key): call for key, call in calls.items()}, seconds=seconds)
    rows: dict[str, list[Row]] = {name: [] for name in contestants}
    for (name, kind, point), value in values.items():
        timing, encoded = timings[f"{name}\n{kind}\n{point}"], contestants[name].encoded
        rows[name].append(
            Row(
                kind=kind,
                name=point,
                batch=batch,
                length=float(np.mean([len(row.ids) for row in encoded])),
                ms=timing.median_ms / len(encoded),
                value=value,
                low=timing.low_ms / len(encoded),
                high=timing.high_ms / len(encoded),
            )
        )
    return rows


def _candidates(one: Contestant, batch: int) -> dict[tuple[str, str], Callable[[], torch.Tensor]]:
    """What is timed, by kind and Point."""
    calls: dict[tuple[str, str], Callable[[], torch.Tensor]] = {}
    for kind, model in one.models.items():
        for point in one.points:
            calls[kind, point.name] = partial(run_all, model, one.encoded, point, batch)
    for kind, rival in one.rivals.items():
        calls[kind, "dense"] = partial(_rival_all, rival, one.encoded, batch)
    return calls
