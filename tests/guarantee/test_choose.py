"""Fixed-sequence testing keeps its promise, stops before the first failure, and the plug-in rule does not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from lessen.guarantee import (
    Losses,
    certify,
    disagreement,
    expectation,
    marginal_drop,
    plug_in,
    rows_like_these,
    rows_needed,
    selective_disagreement,
    selective_token_disagreement,
)
from lessen.guarantee.choose import leading


def cascade(rows: int, steps: int, seed: int) -> Losses:
    """Nested losses: a row goes wrong at its own step and stays wrong; risk grows from 0 to 20 %."""
    turn = np.random.default_rng(seed).random(rows) / 0.2
    return Losses((turn[:, None] < np.linspace(0, 1, steps)).astype(float), 0.0, 1.0, "disagreement")


@pytest.mark.parametrize("test", ["binomial", "betting", "hoeffding-bentkus"])
def test_the_promise_holds_along_a_dependent_path(test: str) -> None:
    """True risk of step j is 0.2 j / (steps - 1); 500 draws of 300 rows; the plug-in rule misses far more."""
    steps, epsilon, delta, trials = 41, 0.05, 0.1, 500
    risk = np.linspace(0, 0.2, steps)
    certified = [certify(cascade(300, steps, seed), epsilon, delta, test=test).step for seed in range(trials)]
    missed = np.mean([step is not None and risk[step] > epsilon for step in certified])
    assert missed <= delta + 2 * math.sqrt(delta * (1 - delta) / trials)
    assert np.mean([risk[step or 0] for step in certified]) > epsilon / 3
    taken = [plug_in(cascade(300, steps, seed), epsilon).step for seed in range(trials)]
    assert np.mean([risk[step or 0] > epsilon for step in taken]) > 3 * delta


def signed_cascade(rows: int, steps: int, seed: int) -> Losses:
    """As `cascade`, and half as many rows get better: they are the same rows at every step."""
    generator = np.random.default_rng(seed)
    turn, better = generator.random(rows) / 0.4, generator.random(rows) < 0.25
    changed = (turn[:, None] < np.linspace(0, 1, steps)).astype(float)
    return Losses(changed * np.where(better, -1.0, 1.0)[:, None], -1.0, 1.0, "drop", paired=True)


def test_the_promise_holds_for_signed_drops_along_a_dependent_path() -> None:
    """True risk of step j is 0.2 j / (steps - 1)."""
    steps, epsilon, delta, trials = 41, 0.05, 0.1, 300
    risk = np.linspace(0, 0.2, steps)
    taken: dict[str, list[float]] = {"paired": [], "betting": []}
    for seed in range(trials):
        losses = signed_cascade(300, steps, seed)
        for test, reached in taken.items():
            step = certify(losses, epsilon, delta, test=test).step
            reached.append(0.0 if step is None else float(risk[step]))
    for reached in taken.values():
        assert np.mean(np.array(reached) > epsilon) <= delta + 2 * math.sqrt(delta * (1 - delta) / trials)
    assert np.mean(taken["paired"]) > 1.1 * np.mean(taken["betting"])


@given(arrays(bool, st.integers(0, 20)))
def test_leading_stops_before_the_first_failure(flags: np.ndarray) -> None:
    count = leading(flags)
    assert flags[:count].all()
    assert count == len(flags) or not flags[count]


def test_the_first_failing_step_is_never_taken() -> None:
    values = np.zeros((400, 4))
    values[:, 2] = np.arange(400) < 100
    chosen = certify(Losses(values, 0.0, 1.0, "disagreement"), 0.05, 0.1)
    assert chosen.step == 1
    assert len(chosen.pvalues) == 3
    assert chosen.pvalues[-1] > 0.1
    assert plug_in(Losses(values, 0.0, 1.0, "disagreement"), 0.05).step == 3


def test_nothing_is_certified_from_too_little() -> None:
    for rows in (1, 10, rows_needed(0.01, 0.1, risk=0.0) - 1):
        assert certify(Losses(np.zeros((rows, 3)), 0.0, 1.0, "disagreement"), 0.01, 0.1).step is None
    enough = Losses(np.zeros((rows_needed(0.01, 0.1, risk=0.0), 3)), 0.0, 1.0, "disagreement")
    assert certify(enough, 0.01, 0.1).step == 2
    assert certify(enough, 0.0, 0.1).step is None


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 1.5])
def test_delta_must_be_a_probability(delta: float) -> None:
    with pytest.raises(ValueError, match="delta must be between 0 and 1"):
        certify(cascade(10, 3, 0), 0.05, delta)
    with pytest.raises(ValueError, match="epsilon must not be negative"):
        certify(cascade(10, 3, 0), -0.05, 0.1)


def test_expectation_holds_on_average_and_looks_at_the_worst_step_so_far() -> None:
    steps, epsilon = 41, 0.05
    risk = np.linspace(0, 0.2, steps)
    taken = [expectation(cascade(300, steps, seed), epsilon).step for seed in range(400)]
    assert 0.8 * epsilon < np.mean([risk[step or 0] for step in taken]) <= epsilon
    values = np.zeros((1000, 3))
    values[:200, 1] = 1.0
    assert expectation(Losses(values, 0.0, 1.0, "disagreement"), epsilon).step == 0


def test_losses() -> None:
    drop = marginal_drop([1, 1, 0], [[1, 0], [1, 1], [0, 1]])
    assert drop.values.tolist() == [[0, 1], [0, 0], [0, -1]]
    wrong = disagreement([[True, False], [True, True]])
    assert wrong.binary
    assert wrong.values.tolist() == [[0, 1], [0, 0]]
    agrees = np.array([[True], [False], [True], [False]])
    early = np.array([[True], [True], [True], [False]])
    share = 1 / 3
    assert selective_disagreement(agrees, early, share).values.mean() == pytest.approx(share)
    assert selective_disagreement(agrees, early, 0.5).values.mean() < 0.5
    assert selective_disagreement(agrees, early, 0.2).values.mean() > 0.2


def power_of_the_exact_test(rows: int, epsilon: float, delta: float, risk: float) -> float:
    passing = [k for k in range(rows + 1) if binom.cdf(k, rows, epsilon) <= delta]
    return float(binom.cdf(passing[-1], rows, risk)) if passing else 0.0


def test_rows_needed_is_the_smallest_number_that_does() -> None:
    found = rows_needed(0.1, 0.1)
    powers = [power_of_the_exact_test(n, 0.1, 0.1, 0.05) for n in range(1, found + 1)]
    assert powers[-1] >= 0.9
    assert max(powers[:-1]) < 0.9


@pytest.mark.parametrize(("epsilon", "rows"), [(0.10, 191), (0.05, 405), (0.02, 1010), (0.01, 1895)])
def test_rows_needed_against_the_page(epsilon: float, rows: int) -> None:
    """Self-supervised exits page, 6.3: its rows suffice there, and ours are up to a tenth fewer."""
    assert 0.9 * rows <= rows_needed(epsilon, 0.1) <= rows


@pytest.mark.parametrize(("delta", "rows"), [(0.1, [22, 45, 114, 230, 460]), (0.05, [29, 59, 149, 299, 598])])
def test_rows_needed_where_no_loss_is_seen(delta: float, rows: list[int]) -> None:
    assert [rows_needed(epsilon, delta, risk=0.0) for epsilon in (0.1, 0.05, 0.02, 0.01, 0.005)] == rows


def test_rows_needed_for_drops_are_enough_and_not_too_many() -> None:
    rows = rows_needed(0.02, 0.1, risk=0.0, spread=0.01)
    passed = {}
    for count in (rows, rows // 2):
        values = np.random.default_rng(9).choice([-1.0, 0.0, 1.0], size=(count, 300), p=[0.01, 0.98, 0.01])
        losses = Losses(values, -1.0, 1.0, "drop")
        passed[count] = np.mean(
            [
                certify(Losses(values[:, [i]], -1, 1, "drop", paired=True), 0.02, 0.1).step == 0
                for i in range(300)
            ]
        )
        assert losses.values.shape == (count, 300)
    assert passed[rows] > 0.85
    assert passed[rows // 2] < 0.85
    with pytest.raises(ValueError, match="cannot be certified"):
        rows_needed(0.01, 0.1, risk=0.01)


def test_rows_like_these_asks_the_very_test() -> None:
    values = np.zeros((200, 1))
    values[:3] = 1.0
    found = rows_like_these(Losses(values, -1.0, 1.0, "drop"), 0.03, 0.1)
    assert found is not None
    generator = np.random.default_rng(5)
    passed = [
        certify(Losses(generator.choice(values[:, 0], size=(found, 1)), -1.0, 1.0, "drop"), 0.03, 0.1).step
        == 0
        for _ in range(200)
    ]
    assert 0.8 < np.mean(passed) < 0.99
    assert rows_like_these(Losses(values, -1.0, 1.0, "drop"), 0.0151, 0.1) is None


def test_rows_like_these_for_selective_losses() -> None:
    """15 of 200 rows leave, none of them wrong: the test looks at early rows only."""
    early = np.zeros((200, 1), bool)
    early[:15] = True
    losses = selective_disagreement(np.ones((200, 1), bool), early, 0.05)
    found = rows_like_these(losses, 0.05, 0.1)
    needed = rows_needed(0.05, 0.1, risk=0.0)
    assert needed / (15 / 200) < found < 2.5 * needed / (15 / 200)


def test_the_risk_of_early_tokens_is_the_share_that_is_wrong() -> None:
    early = np.array([[0.5], [0.0], [0.25]])
    wrong = np.array([[0.05], [0.0], [0.1]])
    losses = selective_token_disagreement(wrong, early, 0.2)
    assert losses.risks == pytest.approx([0.15 / 0.75])
    assert (losses.values.mean() <= 0.2) == (losses.risks[0] <= 0.2), "what is tested says the same"
    assert losses.take([1]).risks.tolist() == [0.0], "none is early, so none is wrong"
    assert losses.step(0).risks == pytest.approx([0.2])
