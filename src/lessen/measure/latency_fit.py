"""Fit a model's latency on this machine: time a few batches at a few speed-ups, then least squares."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lessen.artefact import write_json
from lessen.errors import LessenError
from lessen.machine import processor
from lessen.measure.latency import Timing, interleaved, threads
from lessen.model.rows import Rows
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point, Precision
from lessen.runtime.decoding import Decoding
from lessen.runtime.engine import run
from lessen.runtime.generation import generate
from lessen.runtime.latency_model import FILE, Fit, LatencyModel, fit, read_latency, terms_of
from lessen.runtime.retention import left_at
from lessen.runtime.text import Encoded, collate

BATCHES = 5
"""Batches timed at each speed-up: single rows from the shortest to the longest; else rows drawn at random."""


@dataclass(frozen=True)
class Probe:
    """One batch at one Point: what to time, and what it consists of."""

    run: Callable[[], object]
    terms: list[float]


def probes_of(
    model: Any, encoded: Sequence[Encoded], batch: int, points: Sequence[Point], seed: int = 0
) -> dict[str, Probe]:
    """Batches to time, by name.

    Args:
        model: A classifier, or a generator, of which reading is timed, up to the first token it names.
        encoded: Rows such as it will see.
        batch: Rows given at once; drawn at random, so that lengths mix as they do in use.
        points: At which tokens leave; "full" is added.
        seed: Of the choice of rows.
    """
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].ids))
    if batch == 1:
        chosen = [[order[round(i * (len(order) - 1) / (BATCHES - 1))]] for i in range(BATCHES)]
    else:
        generator = random.Random(seed)
        chosen = [generator.choices(range(len(encoded)), k=batch) for _ in range(BATCHES)]
    inner = model.transformer
    reads = inner.architecture.language_head is not None
    probes = {}
    for number, rows in enumerate(chosen):
        inputs = collate([encoded[row] for row in rows], model.device)
        prompts = [encoded[row].ids for row in rows]
        lengths = [len(encoded[row].ids) for row in rows]
        for point in [FULL, *points]:
            left = [left_at(inner, point, length) for length in lengths]
            timed = partial(_read, inner, prompts, point) if reads else partial(_run, inner, inputs, point)
            probes[f"{number} {point.name}"] = Probe(timed, terms_of(inner, lengths, left))
    return probes


@torch.inference_mode()
def _run(transformer: Transformer, inputs: tuple[Tensor, Rows, Tensor | None], point: Point) -> None:
    run(transformer, *inputs, point)


@torch.inference_mode()
def _read(transformer: Transformer, prompts: Sequence[Sequence[int]], point: Point) -> None:
    next(generate(transformer, prompts, max_new_tokens=1, decoding=Decoding(prompts=point)))


def fit_of(probes: Mapping[str, Probe], timings: Mapping[str, Timing], *, batch: int, precision: str) -> Fit:
    """The fit to the medians of timed probes, for the number of threads torch uses now."""
    factors, error = fit(
        [probe.terms for probe in probes.values()], [timings[name].median_ms for name in probes]
    )
    return Fit(
        threads=torch.get_num_threads(),
        precision=cast(Precision, precision),
        batch=batch,
        factors=cast(Any, factors),
        error=error,
    )


def fit_folder(
    folder: Path,
    models: Sequence[Any],
    encoded: Sequence[Encoded],
    *,
    batch_sizes: Sequence[int],
    thread_count: int,
    seconds: float = 20.0,
) -> list[Fit]:
    """Fit models of one folder and keep the outcome there, beside earlier fits of this machine.

    Args:
        folder: Of the model; it gets a `latency.json`, in place of a damaged one.
        models: The model in each precision that matters.
        encoded: Rows such as it will see.
        batch_sizes: Rows given at once.
        thread_count: Threads of the processor.
        seconds: Time for each fit, about.

    Returns:
        The new fits.
    """
    try:
        kept = read_latency(folder)
    except LessenError:  # damaged, and about to be replaced
        kept = None
    fits = kept.fits if kept is not None and kept.processor == processor() else ()
    table = {(fit.threads, fit.precision, fit.batch): fit for fit in fits}
    new = [
        fitted(
            model,
            encoded,
            batch=batch,
            points=list(model.speeds().values()),
            thread_count=thread_count,
            seconds=seconds,
        )
        for model in models
        for batch in batch_sizes
    ]
    table |= {(fit.threads, fit.precision, fit.batch): fit for fit in new}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    record = LatencyModel(processor=processor(), date=date, fits=tuple(table.values()))
    write_json(folder / FILE, record.model_dump(mode="json"))
    return new


def fitted(
    model: Any,
    encoded: Sequence[Encoded],
    *,
    batch: int,
    points: Sequence[Point],
    thread_count: int,
    seconds: float = 20.0,
) -> Fit:
    """Time probes for some seconds and fit them.

    Args:
        model: As in `probes_of`.
        encoded: Rows such as it will see.
        batch: Rows given at once.
        points: At which tokens leave.
        thread_count: Threads of the processor.
        seconds: Time for it, about.
    """
    with threads(thread_count):
        probes = probes_of(model, encoded, batch, points)
        timings = interleaved({name: probe.run for name, probe in probes.items()}, seconds=seconds)
        return fit_of(probes, timings, batch=batch, precision=model.precision)
