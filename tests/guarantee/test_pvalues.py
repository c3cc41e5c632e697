"""p-values: exact where they can be, never too small under the hypothesis, order and edge cases."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from lessen.guarantee.losses import Losses, selective_disagreement
from lessen.guarantee.pvalues import betting, binomial, hoeffding_bentkus, paired

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


def signed(worse: int, better: int, rows: int) -> Losses:
    values = np.zeros((rows, 1))
    values[:worse], values[worse : worse + better] = 1.0, -1.0
    return Losses(values, -1.0, 1.0, "drop", paired=True)


@pytest.mark.parametrize(("rows", "epsilon"), [(1, 0.3), (8, 0.3), (25, 0.2), (40, 0.1), (60, 0.05)])
def test_paired_is_valid_whatever_the_rate_of_differing_answers(rows: int, epsilon: float) -> None:
    """By enumeration of all outcomes at the boundary, for rates that are not on its grid."""
    outcomes = [(a, b) for a in range(rows + 1) for b in range(rows + 1 - a)]
    pvalues = np.array([paired(signed(a, b, rows), epsilon)[0] for a, b in outcomes])
    for rate in np.linspace(epsilon, 1, 23):
        chance = multinomial.pmf(
            [(a, b, rows - a - b) for a, b in outcomes],
            rows,
            [(rate + epsilon) / 2, (rate - epsilon) / 2, 1 - rate],
        )
        assert chance.sum() == pytest.approx(1.0)
        for delta in (0.01, 0.05, 0.1, 0.3):
            assert chance[pvalues <= delta].sum() <= delta + 1e-6


def test_paired_at_the_rates_of_real_models() -> None:
    """2,000 rows, the risk on the boundary: small p-values are as rare as they must be, and hardly rarer."""
    epsilon, rows, trials = 0.01, 2000, 1500
    for rate in (0.011, 0.03, 0.1):
        chances = [(rate + epsilon) / 2, (rate - epsilon) / 2, 1 - rate]
        draws = np.random.default_rng(4).multinomial(rows, chances, size=trials)
        pvalues = np.array([paired(signed(a, b, rows), epsilon)[0] for a, b, _ in draws])
        assert (pvalues <= 0.1).mean() <= 0.1 + 3 * math.sqrt(0.1 / trials)
        assert (pvalues <= 0.1).mean() > 0.06


def test_paired_without_gains_is_nearly_the_binomial_test() -> None:
    for worse in (0, 3, 10):
        exact = binomial(zero_one([1] * worse + [0] * (1000 - worse)), 0.02)[0]
        assert exact <= paired(signed(worse, 0, 1000), 0.02)[0] <= exact + 0.05


def test_paired_certifies_what_betting_cannot() -> None:
    """3 % of the answers change, as often for the better: betting needs about three times the rows."""
    values = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=(2000, 200), p=[0.015, 0.97, 0.015])
    losses = Losses(values, -1.0, 1.0, "drop", paired=True)
    passed = {test.__name__: (test(losses, 0.01) <= 0.1).mean() for test in (paired, betting)}
    assert passed["paired"] > 0.85
    assert passed["betting"] < 0.75


def test_paired_refuses_other_losses() -> None:
    with pytest.raises(ValueError, match="losses of -1, 0 and 1"):
        paired(Losses(np.full((3, 1), 0.5), -1.0, 1.0, "drop"), 0.1)
    with pytest.raises(ValueError, match="losses of -1, 0 and 1"):
        paired(zero_one([0, 1]), 0.1)
    with pytest.raises(ValueError, match="paired losses must be"):
        Losses(np.full((3, 1), 0.5), -1.0, 1.0, "drop", paired=True)


def test_selective_losses_are_tested_among_early_rows() -> None:
    generator = np.random.default_rng(0)
    early, agrees = generator.random((500, 3)) < [0.0, 0.3, 0.9], generator.random((500, 3)) < 0.97
    found = binomial(selective_disagreement(agrees, early, 0.05), 0.05)
    wrong = (early & ~agrees).sum(0)
    assert found == pytest.approx(binom.cdf(wrong, early.sum(0), 0.05))
    assert found[0] == 1.0, "no early row, no evidence"


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
