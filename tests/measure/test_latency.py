"""Candidates take turns, settle before they are timed, and are summarised by medians and paired ratios."""

from collections.abc import Callable

import pytest
import torch

from lessen.errors import InputError
from lessen.measure import latency
from lessen.measure.latency import Timing, interleaved, ratio, threads


class Clock:
    """Time that passes only when a candidate runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[str] = []

    def candidate(self, name: str, *milliseconds: float) -> Callable[[], None]:
        taken = iter([])

        def run() -> None:
            nonlocal taken
            self.runs.append(name)
            value = next(taken, None)
            if value is None:
                taken = iter(milliseconds)
                value = next(taken)
            self.now += value / 1e3

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "perf_counter", lambda: clock.now)

    def sleep(seconds: float) -> None:
        clock.runs.append("sleep")
        clock.now += seconds

    monkeypatch.setattr(latency, "sleep", sleep)
    monkeypatch.setattr(latency, "REST_SECONDS", 0.12)
    monkeypatch.setattr(latency, "WARM_SECONDS", 0.02)
    return clock


def test_every_round_has_one_turn_of_each_in_changing_order(clock: Clock) -> None:
    candidates = {name: clock.candidate(name, 30.0) for name in "abc"}
    timings = interleaved(candidates, repeats=8, warmup=0)
    turns = clock.runs[1::3]
    assert clock.runs[::3] == ["sleep"] * len(turns)
    assert clock.runs[2::3] == turns, "one untimed run, longer than the warm-up has to be, then the timed one"
    rounds = [tuple(turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert [sorted(turn) for turn in rounds] == [["a", "b", "c"]] * 8
    assert len(set(rounds)) > 1
    assert [timing.runs for timing in timings.values()] == [8, 8, 8]
    assert list(timings) == ["a", "b", "c"]


def test_order_is_the_same_in_every_call(clock: Clock) -> None:
    orders = []
    for _ in range(2):
        clock.runs.clear()
        interleaved({name: clock.candidate(name, 30.0) for name in "abcd"}, repeats=5, warmup=1)
        orders.append(list(clock.runs))
    assert orders[0] == orders[1]


def test_a_turn_rests_and_warms_up_before_it_is_timed(clock: Clock) -> None:
    interleaved({"a": clock.candidate("a", 6.0)}, repeats=3, warmup=0)
    # 4 x 6 ms is the first multiple past 20 ms, then one timed.
    assert clock.runs == ["sleep", "a", "a", "a", "a", "a"] * 3


def test_slow_candidates_are_not_run_twice(clock: Clock) -> None:
    interleaved({"slow": clock.candidate("slow", 900.0)}, repeats=3, warmup=0)
    assert clock.runs == ["sleep", "slow", "slow", "sleep", "slow", "sleep", "slow"]


def test_median_and_percentiles_are_in_milliseconds(clock: Clock) -> None:
    samples = [float(value) for value in range(100, 111)]
    both = [value for sample in samples for value in (50.0, sample)]
    timing = interleaved({"a": clock.candidate("a", *both)}, repeats=11, warmup=0)["a"]
    assert timing.samples_ms == pytest.approx(samples)
    assert (timing.low_ms, timing.median_ms, timing.high_ms) == pytest.approx((101.0, 105.0, 109.0))
    assert timing.as_dict().keys() == {"median_ms", "low_ms", "high_ms", "runs"}


def test_a_budget_of_seconds_replaces_repeats(clock: Clock) -> None:
    timing = interleaved({"a": clock.candidate("a", 50.0)}, seconds=2.0, repeats=1, warmup=0)["a"]
    assert timing.runs == 10, "each round takes 120 + 50 + 50 ms"
    slow = interleaved({"a": clock.candidate("a", 5000.0)}, seconds=1.0, warmup=0)["a"]
    assert slow.runs == latency.FEWEST_ROUNDS


def test_warm_up_is_not_timed(clock: Clock) -> None:
    slow_start = clock.candidate("a", *[400.0] * 2, *[30.0] * 20)
    assert interleaved({"a": slow_start}, repeats=5, warmup=2)["a"].samples_ms == pytest.approx([30.0] * 5)


def test_paired_ratio_resists_drift_that_bends_medians() -> None:
    # The machine halves its speed midway: within each round the candidates still differ by a factor of two.
    fast = [1.0, 1.0, 1.0, 4.0, 4.0]
    timings = {"fast": Timing.of(fast), "slow": Timing.of([2 * value for value in fast])}
    found = ratio(timings, "slow", "fast")
    assert found.paired == pytest.approx(2.0)
    assert found.medians == pytest.approx(2.0)
    assert ratio(timings, "fast", "slow").paired == pytest.approx(0.5)


def test_ratio_refuses_what_was_not_measured_together() -> None:
    timings = {"a": Timing.of([1.0, 2.0]), "b": Timing.of([1.0])}
    with pytest.raises(InputError, match="'c' was not measured; there is a, b"):
        ratio(timings, "a", "c")
    with pytest.raises(InputError, match="same rounds"):
        ratio(timings, "a", "b")


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one candidate"):
        interleaved({})
    with pytest.raises(InputError, match="repeats must be at least 1"):
        interleaved({"a": int}, repeats=0)


def test_threads_are_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    seen = []

    def fail() -> None:
        with threads(before + 1):
            seen.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="threads must be at least 1, not 0"), threads(0):
        pass
