"""PyTorch as a rival: transformers' own model with fused attention, eager or compiled, in float32 or
bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lessen.hf import LessenForSequenceClassification
from lessen.measure.latency import threads
from lessen.measure.rivals.batching import Answer, Padded, Rival
from lessen.measure.rivals.dense import DenseTwin, dense_twin
from lessen.measure.rivals.optional import quietly
from lessen.runtime.text import Encoded


def eager(
    kind: str,
    model: LessenForSequenceClassification,
    count: int,
    calibration: Sequence[Encoded] = (),
    folder: Path | None = None,
) -> Rival:
    """The dense twin as it is; a batch without padding goes without a mask, which is faster."""
    twin = _twin(kind, model)
    return Rival(kind, _answer(twin, twin, count, masked=False), pad=twin.pad)


def compiled(
    kind: str,
    model: LessenForSequenceClassification,
    count: int,
    calibration: Sequence[Encoded] = (),
    folder: Path | None = None,
) -> Rival:
    """The dense twin through `torch.compile` with dynamic shapes and weights frozen into the graph.

    The mask is always passed: with and without it are two graphs, each compiled for many seconds.
    """
    twin = _twin(kind, model)
    graph = torch.compile(twin, dynamic=True, options={"freezing": True})
    answer = _answer(twin, graph, count, masked=True)

    def quiet_answer(batch: Padded) -> Tensor:
        with quietly():
            return answer(batch)

    return Rival(kind, quiet_answer, pad=twin.pad)


def _twin(kind: str, model: LessenForSequenceClassification) -> DenseTwin:
    twin = dense_twin(model)
    return twin.bfloat16() if kind.endswith("-bf16") else twin


def _answer(twin: DenseTwin, call: Callable[..., Tensor], count: int, *, masked: bool) -> Answer:
    @torch.inference_mode()
    def answer(batch: Padded) -> Tensor:
        mask = None if batch.full and not masked else torch.from_numpy(batch.mask)
        segments = torch.from_numpy(batch.segments) if twin.has_segments else None
        with threads(count):
            return call(torch.from_numpy(batch.ids), mask, segments)

    return answer
