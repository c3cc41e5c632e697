"""What every rival does with a batch of rows of different lengths: sort, cut, pad tightly, put answers in
order.
"""

from __future__ import annotations

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
"""A larger batch is first cut into this many rows of similar length; more at once is never faster on a
CPU.
"""

COUNTS = (1, 2, 4, 8)
"""Numbers of chunks that are tried."""

TRIALS = 3
"""Timed runs of each number of chunks, after one untimed."""


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


Answer = Callable[[Padded], Tensor]
"""A runtime: a padded batch to logits `[rows, outputs]`."""


class Rival:
    """A runtime and the most favourable way to feed it.

    Args:
        kind: Its name in tables.
        answer: The runtime.
        pad: The id to pad with.
        chunks: Number of chunks a batch is cut into after sorting by length. None: whichever of 1, 2, 4, 8 is
            fastest when a batch of that many rows is first seen; that call is slow.
    """

    def __init__(self, kind: str, answer: Answer, *, pad: int, chunks: int | None = None) -> None:
        self.kind = kind
        self.answer = answer
        self.pad = pad
        self.chunks = chunks
        self.chosen: dict[int, int] = {1: 1}

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
        if naive:
            return self._run(batch, [list(range(len(batch)))])
        order = sorted(range(len(batch)), key=lambda row: len(batch[row].ids))
        chunks = []
        for start in range(0, len(order), MOST_ROWS):
            piece = order[start : start + MOST_ROWS]
            chunks += self._cut(batch, piece, self._count([batch[row] for row in piece]))
        return self._run(batch, chunks)

    def _cut(self, batch: Sequence[Encoded], rows: list[int], count: int) -> list[list[int]]:
        if count == 1:
            return [rows]
        bounds = cuts([len(batch[row].ids) for row in rows], count)
        return [rows[start:stop] for start, stop in bounds]

    def _count(self, piece: Sequence[Encoded]) -> int:
        """How many chunks to cut a piece into; measured when a piece of this size is first seen."""
        if self.chunks is not None:
            return self.chunks
        if len(piece) not in self.chosen:
            everything = list(range(len(piece)))
            plans = {count: self._cut(piece, everything, count) for count in COUNTS if count <= len(piece)}
            self.chosen[len(piece)] = self._fastest(piece, plans)
        return self.chosen[len(piece)]

    def _fastest(self, piece: Sequence[Encoded], plans: dict[int, list[list[int]]]) -> int:
        times: dict[int, list[float]] = {count: [] for count in plans}
        for trial in range(1 + TRIALS):
            for count, chunks in plans.items():
                began = perf_counter()
                self._run(piece, chunks)
                if trial:
                    times[count].append(perf_counter() - began)
        return min(times, key=lambda count: sorted(times[count])[TRIALS // 2])

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


def cuts(lengths: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Where to cut sorted rows into at most `count` chunks so that the fewest padded tokens are computed.

    Args:
        lengths: Tokens of each row, ascending.
        count: Most chunks allowed.

    Returns:
        `(start, stop)` of each chunk. Rows of equal length are never separated.
    """
    sizes, repeats = np.unique(lengths, return_counts=True)
    before = np.concatenate([[0], np.cumsum(repeats)])
    cost = (before[None, 1:] - before[:-1, None]) * sizes.astype(float)[None, :]
    cost[np.tril_indices(len(sizes), -1)] = np.inf
    best = cost[0]
    choices = []
    for _ in range(min(count, len(sizes)) - 1):
        total = best[:-1, None] + cost[1:]
        choices.append(total.argmin(0))
        best = total.min(0)
    last = len(sizes) - 1
    bounds = []
    for choice in reversed(choices):
        first = int(choice[last]) + 1
        bounds.append((int(before[first]), int(before[last + 1])))
        last = first - 1
    bounds.append((0, int(before[last + 1])))
    return bounds[::-1]
