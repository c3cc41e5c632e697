"""A batch is sorted, cut and padded so that as little as possible is computed, and answered in order."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from conftest import ragged_ids
from hypothesis import given
from hypothesis import strategies as st

from lessen.errors import InputError
from lessen.measure.rivals import Rival, batching
from lessen.measure.rivals.batching import MOST_ROWS, Padded, cuts, padded
from lessen.runtime.text import Encoded

LENGTHS = [1, 64, 7, 7, 2, 33, 1, 50]


def encoded(lengths: list[int], *, pairs: bool = False) -> list[Encoded]:
    return [
        Encoded(ids.tolist(), [int(2 * i >= len(ids)) for i in range(len(ids))] if pairs else None, False)
        for ids in ragged_ids(lengths)
    ]


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=7),
    st.sampled_from([0.0, 0.5, 3.0, 11.0, 100.0, math.inf]),
)
def test_cuts_cost_the_least(lengths: list[int], overhead: float) -> None:
    lengths = sorted(lengths)
    bounds = cuts(lengths, overhead)
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == len(lengths)

    def cost(bounds: list[tuple[int, int]]) -> float:
        # The first call has to be made anyway.
        calls = overhead * (len(bounds) - 1) if len(bounds) > 1 else 0.0
        return calls + sum((stop - start) * lengths[stop - 1] for start, stop in bounds)

    best = min(
        cost(list(zip((0, *inner), (*inner, len(lengths)), strict=True)))
        for size in range(len(lengths))
        for inner in combinations(range(1, len(lengths)), size)
    )
    assert cost(bounds) == best


def test_padding_is_tight_and_on_the_right() -> None:
    batch = padded(encoded([3, 5], pairs=True), pad=99)
    assert batch.ids.shape == (2, 5)
    assert not batch.full
    assert batch.ids[0, 3:].tolist() == [99, 99]
    assert batch.mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.segments.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    even = padded(encoded([4, 4]), pad=99)
    assert even.full
    assert even.mask.all()
    assert not even.segments.any()


class Recorder:
    """A runtime that answers with each row's sum of ids and length, and remembers what it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, batch: Padded) -> torch.Tensor:
        self.shapes.append(batch.ids.shape)
        return torch.from_numpy(np.stack([(batch.ids * batch.mask).sum(1), batch.mask.sum(1)], 1)).double()


@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], LENGTHS, list(range(1, 65)) * 3], ids=len)
def test_answers_come_back_in_order_however_the_batch_is_cut(lengths: list[int]) -> None:
    rows = encoded(lengths)
    expected = torch.tensor([[float(sum(row.ids)), float(len(row.ids))] for row in rows])
    recorder = Recorder()
    rival = Rival("recorder", recorder, pad=7)
    assert torch.equal(rival(rows), expected)
    recorder.shapes.clear()
    assert torch.equal(rival(rows), expected)
    used = sum(count * length for count, length in recorder.shapes)
    assert max(count for count, _ in recorder.shapes) <= MOST_ROWS
    recorder.shapes.clear()
    assert torch.equal(rival(rows, naive=True), expected)
    assert recorder.shapes == [(len(rows), max(lengths))]
    assert used <= len(rows) * max(lengths)


@pytest.mark.parametrize("call", [0.0, 1.0, 30.0, 1000.0])
def test_the_fastest_way_to_cut_is_kept(call: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that a call moves by `call` plus its padded tokens."""
    now = 0.0

    def answer(batch: Padded) -> torch.Tensor:
        nonlocal now
        now += call + batch.ids.size
        return torch.zeros(len(batch.ids), 1)

    def seconds(naive: bool) -> float:
        began = now
        rival(rows, naive=naive)
        return now - began

    monkeypatch.setattr(batching, "perf_counter", lambda: now)
    rival, rows = Rival("linear", answer, pad=0), encoded(LENGTHS)
    rival(rows)
    ways = [cuts(sorted(LENGTHS), overhead) for overhead in batching.OVERHEADS]
    best = min(sum(call + (stop - start) * sorted(LENGTHS)[stop - 1] for start, stop in way) for way in ways)
    assert seconds(naive=False) == pytest.approx(best)
    assert best <= seconds(naive=True)
    assert rival(rows[:1]).shape == (1, 1)


def test_an_empty_batch_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one row"):
        Rival("recorder", Recorder(), pad=0)([])
