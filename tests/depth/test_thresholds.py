"""Threshold paths: ordered, measured as they run, and never losing more on the tuning rows than allowed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessen.depth.criteria import exit_of_every_row
from lessen.depth.thresholds import candidates, fastest, path

LAYERS = [1, 2, 3, 4]
SMOOTH = ["entropy", "normalised_entropy", "max_probability", "margin"]
ALL = [*SMOOTH, "patience", "entropy_plateau", "entropy_drop"]


def cascade(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of four exits that grow surer and better with depth, and their correctness."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, rows)
    hard = generator.exponential(1.0, rows)
    logits = generator.normal(size=(4, rows, 3))
    for exit in range(4):
        logits[exit, np.arange(rows), truth] += (exit + 1) / hard
    return logits, (logits.argmax(-1) == truth).astype(float)


@settings(max_examples=20)
@given(st.sampled_from(ALL), st.integers(0, 1000), st.sampled_from([0.0, 0.01, 0.05]))
def test_the_choice_keeps_to_the_allowance_on_its_own_rows(name: str, seed: int, max_drop: float) -> None:
    logits, scores = cascade(150, seed)
    choice = fastest(list(candidates(logits, scores, LAYERS, name)), max_drop, 4.0)
    assert choice.drop <= max_drop
    if choice.rule is None:
        assert choice.mean_layers == 4.0
        return
    exits = exit_of_every_row(choice.rule, LAYERS, [torch.from_numpy(a) for a in logits]).numpy()
    assert choice.mean_layers == pytest.approx(float(np.mean(exits + 1)))
    assert choice.drop == pytest.approx(float((scores[-1] - scores[exits, np.arange(150)]).mean()))


@pytest.mark.parametrize("name", SMOOTH)
def test_rules_of_a_path_grow_bolder(name: str) -> None:
    logits, scores = cascade(300, 3)
    depths = [choice.mean_layers for choice in candidates(logits, scores, LAYERS, name)]
    assert depths == sorted(depths, reverse=True)
    assert depths[0] > depths[-1]
    rules = path(logits, LAYERS, name)
    answers = [torch.from_numpy(a) for a in logits]
    before = torch.full((300,), 3)
    for rule in rules:
        now = exit_of_every_row(rule, LAYERS, answers)
        assert (now <= before).all()
        before = now


def test_matched_thresholds_agree_at_their_first_level() -> None:
    logits, _ = cascade(300, 5)
    first = path(logits, LAYERS, "max_probability")[0]
    exits = exit_of_every_row(first, LAYERS, [torch.from_numpy(a) for a in logits]).numpy()
    said = logits.argmax(-1)
    assert (said[exits, np.arange(300)] == said[-1]).all()


def test_useless_exits_leave_full_depth() -> None:
    logits, scores = cascade(200, 1)
    logits[:-1] = 0.0
    scores[:-1] = 0.0
    for name in SMOOTH:
        assert fastest(list(candidates(logits, scores, LAYERS, name)), 0.01, 4.0).rule is None


def test_regression_tries_every_patience_and_tolerance() -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(size=200)
    logits = np.stack([target + generator.normal(size=200) * 0.5**e for e in range(4)])[..., None]
    scores = 1 - np.minimum(np.abs(logits[..., 0] - target) / 4, 1)
    choices = list(candidates(logits, scores, LAYERS, "regression_patience", label_range=4.0))
    best = fastest(choices, 0.02, 4.0)
    assert best.rule is not None
    assert best.mean_layers < 4
