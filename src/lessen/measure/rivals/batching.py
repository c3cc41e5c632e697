"""What every rival does with a batch of rows of different lengths: sort, cut, pad tightly, put answers in
order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lessen.errors import InputError
from lessen.runtime.text import Encoded

Ids = NDArray[np.int64]

MOST_ROWS = 64
"""A larger batch is only cut into this many rows of similar length: nothing is timed on such."""

OVERHEADS = (0.0, 16.0, 64.0, 256.0, math.inf)
"""What a call may cost beside its tokens, in tokens. Each gives one way to cut a batch; infinity: no cut."""

TRIALS = 3
"""Each way is tried this often after one untimed call, and the fastest is kept."""


@dataclass(frozen=True)
class Padded:
    """Rows padded on the right to the longest of them, each array `[rows, length]`.

    Attributes:
        ids: Token ids.
        mask: 1 at tokens, 0 at padding.
        segments: Segment ids, zero at padding.
        full: Whether there is no padding.
    """

    ids: Ids
    mask: Ids
    segments: Ids
    full: bool


Bounds = tuple[tuple[int, int], ...]
"""Where sorted rows are cut: `(start, stop)` of each chunk."""

Answer = Callable[[Padded], Tensor]
"""A runtime: a padded batch to logits `[rows, outputs]`."""


class Rival:
    """A runtime and the most favourable way to feed it.

    A batch is sorted by length and cut where that is fastest; which way that is, is tried when lengths like
    these are seen for the first time, so that call is slow.

    Args:
        kind: Its name in tables.
        answer: The runtime.
        pad: The id to pad with.
    """

    def __init__(self, kind: str, answer: Answer, *, pad: int) -> None:
        self.kind = kind
        self.answer = answer
        self.pad = pad
        self._fastest: dict[tuple[int, ...], Bounds] = {}

    def __call__(self, batch: Sequence[Encoded], *, naive: bool = False) -> Tensor:
        """Logits `[rows, outputs]`, float32, in the order of `batch`.

        Args:
            batch: Unpadded rows.
            naive: Pad the whole batch to its longest row instead, as most deployments do.

        Raises:
            InputError: When the batch is empty.
        """
        if not batch:
            raise InputError("a batch needs at least one row")
        if naive or len(batch) == 1:
            return self._run(batch, [list(range(len(batch)))])
        order = sorted(range(len(batch)), key=lambda row: len(batch[row].ids))
        if len(order) > MOST_ROWS:
            return self._run(batch, [order[i : i + MOST_ROWS] for i in range(0, len(order), MOST_ROWS)])
        bounds = self._bounds([batch[row] for row in order])
        return self._run(batch, [order[first:last] for first, last in bounds])

    def _bounds(self, rows: Sequence[Encoded]) -> Bounds:
        """The fastest way to cut sorted rows, by trial."""
        lengths = tuple(len(row.ids) for row in rows)
        if lengths not in self._fastest:
            ways = {tuple(cuts(lengths, overhead)) for overhead in OVERHEADS}
            self._fastest[lengths] = (
                min(sorted(ways), key=lambda way: self._seconds(rows, way)) if len(ways) > 1 else ways.pop()
            )
        return self._fastest[lengths]

    def _seconds(self, rows: Sequence[Encoded], bounds: Bounds) -> float:
        """The shortest time for rows cut like this."""
        batches = [padded(rows[first:last], self.pad) for first, last in bounds]
        times = []
        for _ in range(1 + TRIALS):
            began = perf_counter()
            for batch in batches:
                self.answer(batch)
            times.append(perf_counter() - began)
        return min(times[1:])

    def _run(self, batch: Sequence[Encoded], chunks: list[list[int]]) -> Tensor:
        answers = [self.answer(padded([batch[row] for row in rows], self.pad)) for rows in chunks]
        stacked = answers[0] if len(answers) == 1 else torch.cat(answers)
        order = [row for rows in chunks for row in rows]
        if order == list(range(len(order))):
            return stacked.float()
        return torch.empty_like(stacked).index_copy_(0, torch.tensor(order), stacked).float()


def padded(rows: Sequence[Encoded], pad: int) -> Padded:
    """Pad rows to the longest of them."""
    lengths = [len(row.ids) for row in rows]
    shape = (len(rows), max(lengths))
    if min(lengths) == shape[1]:
        ids = np.array([row.ids for row in rows], dtype=np.int64)
        mask = np.ones(shape, dtype=np.int64)
    else:
        ids = np.full(shape, pad, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = row.ids
        mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    segments = np.zeros(shape, dtype=np.int64)
    for place, row in enumerate(rows):
        if row.segments is not None:
            segments[place, : lengths[place]] = row.segments
    return Padded(ids, mask, segments, full=min(lengths) == shape[1])


def cuts(lengths: Sequence[int], overhead: float) -> list[tuple[int, int]]:
    """Where to cut sorted rows so that padded tokens and calls together cost the least.

    Args:
        lengths: Tokens of each row, ascending.
        overhead: What a call costs, in tokens.

    Returns:
        `(start, stop)` of each chunk. Rows of equal length are never separated.
    """
    sizes, repeats = np.unique(lengths, return_counts=True)
    before = np.concatenate([[0], np.cumsum(repeats)])
    best = np.zeros(len(sizes) + 1)
    first = []
    for last, size in enumerate(sizes):
        costs = best[: last + 1] + (before[last + 1] - before[: last + 1]) * float(size)
        first.append(int(costs.argmin()))
        best[last + 1] = costs[first[last]] + overhead
    bounds = []
    stop = len(sizes)
    while stop:
        start = first[stop - 1]
        bounds.append((int(before[start]), int(before[stop])))
        stop = start
    return bounds[::-1]
