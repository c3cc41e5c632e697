"""Paths of exit rules: ordered from careful to bold, and true to the agreement they are made for."""

import itertools

import numpy as np
import pytest
import torch

from lessen.depth.criteria import exit_of_every_row
from lessen.depth.thresholds import path

LAYERS = [1, 2, 3, 4]
SMOOTH = ["entropy", "normalised_entropy", "max_probability", "margin"]
ALL = [*SMOOTH, "patience", "entropy_plateau", "entropy_drop"]


def cascade(rows: int, seed: int) -> np.ndarray:
    """Logits `[4, rows, 3]` of four exits that grow surer and better with depth."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, rows)
    hard = generator.exponential(1.0, rows)
    logits = generator.normal(size=(4, rows, 3))
    for exit in range(4):
        logits[exit, np.arange(rows), truth] += (exit + 1) / hard
    return logits


@pytest.mark.parametrize("name", SMOOTH)
def test_rules_of_a_path_grow_bolder(name: str) -> None:
    logits = cascade(300, 3)
    answers = [torch.from_numpy(a) for a in logits]
    taken = [exit_of_every_row(rule, LAYERS, answers) for rule in path(logits, LAYERS, name)]
    assert all((after <= before).all() for before, after in itertools.pairwise(taken))
    depths = [exits.float().mean() for exits in taken]
    assert len(taken) > 20
    assert max(before - after for before, after in itertools.pairwise(depths)) < 0.2
    assert taken[-1].float().mean() < taken[0].float().mean() < 3


def test_matched_thresholds_agree_at_their_first_level() -> None:
    logits = cascade(300, 5)
    first = path(logits, LAYERS, "max_probability")[0]
    exits = exit_of_every_row(first, LAYERS, [torch.from_numpy(a) for a in logits]).numpy()
    said = logits.argmax(-1)
    assert (said[exits, np.arange(300)] == said[-1]).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_useless_exits_get_no_threshold(name: str) -> None:
    logits = cascade(200, 1)
    logits[:-1] = 0.0
    assert path(logits, LAYERS, name) == []


def test_every_patience_is_tried_and_every_tolerance_in_regression() -> None:
    logits = cascade(50, 2)
    assert [rule.threshold for rule in path(logits, LAYERS, "patience")] == [3.0, 2.0, 1.0]
    rules = path(logits[..., :1], LAYERS, "regression_patience", label_range=4.0)
    assert {rule.threshold for rule in rules} == {1.0, 2.0, 3.0}
    assert all(rule.change is not None and 0 < rule.change < 4 for rule in rules)
