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


@pytest.mark.parametrize("overhead", [None, 0.0, 20.0, math.inf])
@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], LENGTHS, list(range(1, 65)) * 3], ids=len)
def test_answers_come_back_in_order_however_the_batch_is_cut(
    overhead: float | None, lengths: list[int]
) -> None:
    rows = encoded(lengths)
    expected = torch.tensor([[float(sum(row.ids)), float(len(row.ids))] for row in rows])
    recorder = Recorder()
    rival = Rival("recorder", recorder, pad=7, overhead=overhead)
    assert torch.equal(rival(rows), expected)
    recorder.shapes.clear()
    assert torch.equal(rival(rows), expected)
    used = sum(count * length for count, length in recorder.shapes)
    assert max(count for count, _ in recorder.shapes) <= MOST_ROWS
    if overhead == 0.0:
        assert used == sum(lengths)
    recorder.shapes.clear()
    assert torch.equal(rival(rows, naive=True), expected)
    assert recorder.shapes == [(len(rows), max(lengths))]
    assert used <= len(rows) * max(lengths)


@pytest.mark.parametrize(
    ("call", "token", "expected"), [(6.0, 0.5, 12.0), (0.0, 0.5, 0.0), (1.0, 0.0, math.inf), (-1.0, 0.5, 0.0)]
)
def test_overhead_is_measured_once_in_tokens(
    call: float, token: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def answer(batch: Padded) -> torch.Tensor:
        nonlocal now
        now += call + token * batch.ids.size
        return torch.zeros(len(batch.ids), 1)

    monkeypatch.setattr(batching, "perf_counter", lambda: now)
    rival = Rival("linear", answer, pad=0)
    rival(encoded([4, 4, 4]))
    assert rival.overhead is None, "equal lengths need no cut, so nothing to measure"
    rival(encoded([9, 2, 5]))
    assert rival.overhead == pytest.approx(expected)
    call += 100
    rival(encoded([9, 2, 5]))
    assert rival.overhead == pytest.approx(expected)


def test_an_empty_batch_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one row"):
        Rival("recorder", Recorder(), pad=0)([])
