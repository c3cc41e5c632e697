"""Bounds for a stream hold at every moment, notice a late change, and are exact where asked to be."""

import math

import numpy as np
import pytest

from lessen.guarantee.monitor import MEMORIES, MOST_STAKED, bounds, verdict


def stream(rows: int, worse: float, better: float, seed: int) -> np.ndarray:
    chances = [worse, 1 - worse - better, better]
    return np.random.default_rng(seed).choice([1.0, 0.0, -1.0], size=rows, p=chances)


def test_no_alarm_while_the_bound_is_kept_however_often_one_looks() -> None:
    """Risk exactly at the bound, 100 streams of 600 rows; the lower bound only grows: its end is enough."""
    alarms = [bounds(stream(600, 0.03, 0.01, seed), -1, 1, 0.1, at=0.02) for seed in range(100)]
    assert np.mean([verdict(0.02, each.lower, each.upper) == "broken" for each in alarms]) <= 0.1


def test_bounds_enclose_the_mean() -> None:
    for seed, mean in enumerate((0.0, 0.02, 0.1, 0.5, 0.9)):
        values = (np.random.default_rng(seed).random(400) < mean).astype(float)
        found = bounds(values, 0, 1, 0.01)
        assert found.lower <= mean <= found.upper
        assert found.lower <= found.mean <= found.upper


def test_more_rows_say_more() -> None:
    few, many = (bounds(stream(rows, 0.01, 0.01, 1), -1, 1, 0.1) for rows in (500, 4000))
    assert many.upper < few.upper
    assert verdict(0.02, many.lower, many.upper) == "stands"
    assert verdict(0.005, few.lower, few.upper) == "undecided"


def test_a_late_change_is_noticed() -> None:
    good, bad = stream(3000, 0.01, 0.01, 2), stream(1000, 0.08, 0.01, 3)
    before = bounds(good, -1, 1, 0.1, at=0.01)
    assert verdict(0.01, before.lower, before.upper) != "broken"
    after = bounds(np.concatenate([good, bad]), -1, 1, 0.1, at=0.01)
    assert verdict(0.01, after.lower, after.upper) == "broken"


def test_against_the_fortunes_written_out() -> None:
    """One tested mean, one gambler after the other, in plain numbers."""
    values, at = (stream(120, 0.3, 0.1, 4) + 1) / 2, 0.55
    best, today = 0.0, 0.0
    ups, downs = [1.0] * len(MEMORIES), [1.0] * len(MEMORIES)
    recent, variance = [0.5] * len(MEMORIES), [0.25] * len(MEMORIES)
    for seen, value in enumerate(values, start=1):
        for i, memory in enumerate(MEMORIES):
            bet = (recent[i] - at) / (variance[i] + (recent[i] - at) ** 2)
            ups[i] *= 1 + min(max(bet, 0), MOST_STAKED / at) * (value - at)
            downs[i] *= 1 + min(max(-bet, 0), MOST_STAKED / (1 - at)) * (at - value)
            weight = max(1 / (seen + 1), 1 / memory)
            variance[i] += weight * ((value - recent[i]) ** 2 * (1 - weight) - variance[i])
            recent[i] += weight * (value - recent[i])
        best = max(best, sum(ups) / len(ups))
        today = sum(downs) / len(downs)
    for alpha in (2 / best * 1.01, 2 / best * 0.99):
        if alpha < 1:
            found = bounds(values, 0, 1, alpha, at=at)
            assert (found.lower >= at) == (best >= 2 / alpha)
    assert today > 0
    assert math.isfinite(best)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_edges(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        bounds([0.0], 0, 1, alpha)
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounds([0.0, 2.0], 0, 1, 0.1)
    assert bounds([], 0, 1, 0.1) == type(bounds([], 0, 1, 0.1))(None, None, None)
    one = bounds([0.0], 0, 1, 0.1)
    assert (one.lower, one.upper) == (0, 1)
    assert verdict(0.1, None, None) == "undecided"
