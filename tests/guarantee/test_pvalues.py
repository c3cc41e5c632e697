"""p-values: exact where they can be, never too small under the hypothesis, order and edge cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessen.guarantee.losses import Losses
from lessen.guarantee.pvalues import betting, binomial, hoeffding_bentkus

TESTS = {"binomial": binomial, "betting": betting, "hoeffding-bentkus": hoeffding_bentkus}


def zero_one(values: object) -> Losses:
    return Losses(np.asarray(values, float).reshape(-1, 1), 0.0, 1.0, "disagreement")


@given(st.integers(1, 12), st.integers(0, 12), st.floats(0.0, 1.0))
def test_binomial_is_the_sum_of_its_terms(rows: int, ones: int, epsilon: float) -> None:
    ones = min(ones, rows)
    losses = zero_one([1] * ones + [0] * (rows - ones))
    expected = sum(math.comb(rows, k) * epsilon**k * (1 - epsilon) ** (rows - k) for k in range(ones + 1))
    assert binomial(losses, epsilon)[0] == pytest.approx(min(expected, 1.0), abs=1e-9)


def test_betting_is_the_product_written_out() -> None:
    """Against a loop over rows that keeps no arrays."""
    generator = np.random.default_rng(3)
    values = generator.choice([-1.0, 0.0, 1.0], size=300, p=[0.05, 0.9, 0.05])
    epsilon, delta = 0.03, 0.1
    bound, seen, total, squares, wealth, best = (epsilon + 1) / 2, 0, 0.5, 0.25, 1.0, 1.0
    variance = 0.25
    for value in (values + 1) / 2:
        bet = min(0.99 / (1 - bound), math.sqrt(2 * math.log(1 / delta) / (300 * variance)))
        wealth *= 1 - bet * (value - bound)
        best = max(best, wealth)
        seen, total = seen + 1, total + value
        squares += (value - total / (seen + 1)) ** 2
        variance = squares / (seen + 1)
    found = betting(Losses(values[:, None], -1.0, 1.0, "drop"), epsilon, delta=delta)
    assert found[0] == pytest.approx(1 / best, rel=1e-9)


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("rows", [1, 10, 200])
def test_small_pvalues_are_rare_under_the_hypothesis(name: str, rows: int) -> None:
    """P[p <= delta] <= delta at the boundary, where the risk equals epsilon: 4,000 draws."""
    epsilon, trials = 0.1, 4000
    draws = np.random.default_rng(1).random((rows, trials)) < epsilon
    pvalues = TESTS[name](Losses(draws.astype(float), 0.0, 1.0, "disagreement"), epsilon)
    for delta in (0.01, 0.05, 0.1, 0.3):
        assert (pvalues <= delta).mean() <= delta + 3 * math.sqrt(delta / trials)


def test_signed_drops_under_the_hypothesis() -> None:
    epsilon, rows, trials = 0.02, 500, 3000
    values = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], size=(rows, trials), p=[0.03, 0.92, 0.05])
    pvalues = betting(Losses(values, -1.0, 1.0, "drop"), epsilon)
    assert (pvalues <= 0.1).mean() <= 0.1 + 3 * math.sqrt(0.1 / trials)


def test_betting_uses_what_hoeffding_bentkus_wastes() -> None:
    """Small variance: 2,000 rows, 2 % of answers change, none for the worse on balance."""
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=(2000, 100), p=[0.01, 0.98, 0.01])
    losses = Losses(values, -1.0, 1.0, "drop")
    assert np.median(betting(losses, 0.01)) < 0.1 < np.median(hoeffding_bentkus(losses, 0.01))


@pytest.mark.parametrize("name", TESTS)
def test_edges(name: str) -> None:
    test = TESTS[name]
    assert test(zero_one([0]), 0.0)[0] == 1.0
    assert test(zero_one([0] * 50), 0.0)[0] == 1.0
    assert test(zero_one([1] * 50), 0.5)[0] > 0.99
    assert test(zero_one([1] * 50), 1.0)[0] in (0.0, 1.0)
    assert test(zero_one([0] * 400), 0.01)[0] < 0.05


def test_losses_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        zero_one([0, 2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        zero_one([float("nan")])
    with pytest.raises(ValueError, match="at least one row"):
        Losses(np.zeros((0, 3)), 0.0, 1.0, "drop")
    with pytest.raises(ValueError, match="losses of 0 and 1"):
        binomial(Losses(np.full((3, 1), 0.5), 0.0, 1.0, "drop"), 0.1)
