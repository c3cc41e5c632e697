"""Bounds and alarms for a stream: right at every moment, whatever happens in between."""

import numpy as np
import pytest

from lessen.guarantee.monitor import BLOCK, MEMORIES, MOST_STAKED, _fortune, alarm, bounds


def stream(rows: int, worse: float, better: float, seed: int) -> np.ndarray:
    chances = [worse, 1 - worse - better, better]
    return np.random.default_rng(seed).choice([1.0, 0.0, -1.0], size=rows, p=chances)


def test_no_alarm_while_the_bound_is_kept_however_often_one_looks() -> None:
    """Risk exactly at the bound all the time; an alarm once raised stays, so the end says it all."""
    raised = [alarm(stream(1500, 0.03, 0.01, seed), 0.02, -1, 1, 0.1) for seed in range(150)]
    assert np.mean(raised) <= 0.1


def test_an_alarm_soon_after_a_change_and_also_a_late_one() -> None:
    for good in (0, 500, 8000):
        rows = np.concatenate([stream(good, 0.005, 0.005, 2), stream(1500, 0.08, 0.01, 3)])
        assert alarm(rows, 0.01, -1, 1, 0.05)
        assert not alarm(rows[:good], 0.01, -1, 1, 0.05)


@pytest.mark.parametrize("change", [(0.02, 0.02), (0.0, 0.3), (0.3, 0.0)])
def test_bounds_enclose_the_mean_at_every_moment_of_a_changing_stream(change: tuple[float, float]) -> None:
    """The mean expected loss of the rows so far, checked all along 30 streams; 5 % may miss it somewhere."""
    missed = 0
    for seed in range(30):
        chances = np.repeat(change, 400)
        values = (np.random.default_rng(seed).random(800) < chances).astype(float)
        truth = chances.cumsum() / np.arange(1, 801)
        for rows in range(40, 801, 40):
            found = bounds(values[:rows], 0, 1, 0.05)
            assert found.lower <= found.mean <= found.upper
            if not found.lower <= truth[rows - 1] <= found.upper:
                missed += 1
                break
    assert missed <= 4


def test_a_good_past_does_not_hide_a_bad_present() -> None:
    good, bad = stream(5000, 0.003, 0.003, 0), stream(2000, 0.3, 0.0, 1)
    assert bounds(good, -1, 1, 0.05).upper < 0.01
    assert bounds(np.concatenate([good, bad]), -1, 1, 0.05).upper > 0.05


def test_more_rows_say_more_and_little_spread_says_more_still() -> None:
    few, many = (bounds(stream(rows, 0.01, 0.01, 1), -1, 1, 0.1) for rows in (500, 4000))
    assert many.upper - many.lower < few.upper - few.lower
    calm = bounds(np.zeros(4000), -1, 1, 0.1)
    assert calm.upper < 0.005 < many.upper


def test_fortunes_written_out() -> None:
    """Every gambler in plain numbers: each joins with a part of the reserve and bets what all bet."""
    values, mean = (stream(2 * BLOCK + 40, 0.3, 0.1, 4) + 1) / 2, 0.55
    for memory in MEMORIES:
        recent, variance, gamblers, reserve = 0.5, 0.25, [], 1.0
        expected = []
        for row, value in enumerate(values):
            if row % BLOCK == 0:
                number = len(gamblers) + 1
                gamblers.append(1 / (number * (number + 1)))
                reserve -= gamblers[-1]
            bet = (recent - mean) / (variance + (recent - mean) ** 2)
            bet = min(max(bet, 0), MOST_STAKED / mean)
            gamblers = [money * (1 + bet * (value - mean)) for money in gamblers]
            expected.append(reserve + sum(gamblers))
            weight = max(1 / (row + 2), 1 / memory)
            variance += weight * ((value - recent) ** 2 * (1 - weight) - variance)
            recent += weight * (value - recent)
        assert _fortune(values, mean, memory) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_edges(alpha: float) -> None:
    for function in (lambda v, a: bounds(v, 0, 1, a), lambda v, a: alarm(v, 0.5, 0, 1, a)):
        with pytest.raises(ValueError, match="alpha"):
            function([0.0], alpha)
        with pytest.raises(ValueError, match="between 0 and 1"):
            function([0.0, 2.0], 0.1)
    assert bounds([], 0, 1, 0.1).upper is None
    one = bounds([0.0], 0, 1, 0.1)
    assert (one.lower, one.upper) == (0, 1)
    assert not alarm([], 0.1, 0, 1, 0.1)
    assert not alarm([1.0] * 50, 0.0, 0, 1, 0.1), "a bound of the lowest loss is not tested"
