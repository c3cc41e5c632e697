"""Exit criteria: golden values of the BEExformer page (T14-T17), stability, and the properties thresholds
rely on.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessen.depth import criteria
from lessen.depth.criteria import (
    CRITERIA,
    LANGUAGE,
    criteria_for,
    criterion_of,
    entropy,
    exit_of_every_row,
    exits_of_every_row,
    may_leave,
    scores_at_every_exit,
)
from lessen.errors import PlanError
from lessen.plan import ExitRule

CLASSIFICATION = sorted(name for name, c in CRITERIA.items() if c.task == "classification")


def logits_of(*probabilities: float) -> torch.Tensor:
    """Logits `[1, C]` whose softmax is the given distribution."""
    return torch.tensor([[math.log(p) for p in probabilities]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ((0.5, 0.5), 0.693147),
        ((0.6, 0.4), 0.673012),
        ((0.8, 0.2), 0.500402),
        ((0.9, 0.1), 0.325083),
        ((0.905, 0.095), 0.313956),
        ((0.99, 0.01), 0.056002),
        ((1 / 3, 1 / 3, 1 / 3), 1.098612),
    ],
)
def test_entropy_golden_values(probabilities: tuple[float, ...], expected: float) -> None:
    """T14."""
    assert float(entropy(logits_of(*probabilities))) == pytest.approx(expected, abs=1e-6)


def test_entropy_of_a_certain_answer_is_zero() -> None:
    """T14: not NaN."""
    assert float(entropy(torch.tensor([[1000.0, 0.0]]))) == 0.0


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("logits", [(200.0, 0.0, 0.0), (1000.0, 0.0, 0.0), (0.0, 0.0, 0.0), (-1e4, 0.0, 1e4)])
def test_scores_of_saturated_logits_are_numbers(name: str, logits: tuple[float, ...]) -> None:
    answers = [torch.tensor([logits])] * 3
    scores = scores_at_every_exit(CRITERIA[name], ExitRule(criterion=name, threshold=0.0), answers)
    assert not scores.isnan().any()


def test_a_certain_row_leaves_under_every_careful_rule() -> None:
    answers = [torch.tensor([[200.0, 0.0, 0.0]])] * 4
    for name, threshold in [
        ("entropy", 1e-3),
        ("normalised_entropy", 1e-3),
        ("max_probability", 0.999),
        ("margin", 0.999),
    ]:
        rule = ExitRule(criterion=name, threshold=threshold)
        assert exit_of_every_row(rule, [1, 2, 3, 4], answers).tolist() == [0]


SEQUENCE = [logits_of(p, 1 - p) for p in (0.60, 0.80, 0.90, 0.905, 0.99)]


def test_fractional_entropy_reduction_golden_values() -> None:
    """T16."""
    rule = ExitRule(criterion="entropy_plateau", threshold=0.0)
    scores = scores_at_every_exit(CRITERIA["entropy_plateau"], rule, SEQUENCE)[:, 0]
    assert scores[0] == math.inf
    assert scores[1:].tolist() == pytest.approx([0.256473, 0.350357, 0.034229, 0.821626], abs=1e-6)


@pytest.mark.parametrize(
    ("threshold", "block"),
    [
        (-9, 5),
        (0, 5),
        (0.01, 5),
        (0.04, 4),
        (0.05, 4),
        (0.1, 4),
        (0.2, 4),
        (0.3, 2),
        (0.35, 2),
        (0.5, 2),
        (1.01, 2),
    ],
)
def test_plateau_exits_of_the_page(threshold: float, block: int) -> None:
    """T16."""
    rule = ExitRule(criterion="entropy_plateau", threshold=threshold)
    assert exit_of_every_row(rule, [1, 2, 3, 4, 5], SEQUENCE).item() == block - 1


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0.5, 0.6, 0.029049),
        (0.6, 0.9, 0.516973),
        (0.9, 0.905, 0.034229),
        (0.9, 0.8, -0.539307),
        (0.7, 0.7, 0.0),
    ],
)
def test_reduction_between_two_exits(before: float, after: float, expected: float) -> None:
    """T15."""
    answers = [logits_of(before, 1 - before), logits_of(after, 1 - after)]
    rule = ExitRule(criterion="entropy_drop", threshold=0.0)
    assert float(scores_at_every_exit(CRITERIA["entropy_drop"], rule, answers)[1, 0]) == pytest.approx(
        expected, abs=1e-6
    )


def test_zero_entropy_before_is_safe_and_leaves() -> None:
    """T17."""
    answers = [torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1000.0]])]
    for name in ("entropy_plateau", "entropy_drop"):
        rule = ExitRule(criterion=name, threshold=0.5, first_layer=2)
        assert exit_of_every_row(rule, [1, 2], answers).item() == 1
        assert not scores_at_every_exit(CRITERIA[name], rule, answers).isnan().any()


def test_patience_counts_agreements() -> None:
    says = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    scores = scores_at_every_exit(CRITERIA["patience"], ExitRule(criterion="patience", threshold=1), says)
    assert scores[:, 0].tolist() == [0, 0, 1, 2, 0]
    for patience, exit in [(1, 2), (2, 3), (3, 4)]:
        rule = ExitRule(criterion="patience", threshold=patience)
        assert exit_of_every_row(rule, [1, 2, 3, 4, 5], list(says)).item() == exit


def test_regression_patience_waits_for_small_changes() -> None:
    says = [torch.tensor([[value]]) for value in (0.0, 1.0, 1.05, 1.02, 3.0)]
    rule = ExitRule(criterion="regression_patience", threshold=2, change=0.1)
    assert exit_of_every_row(rule, [1, 2, 3, 4, 5], says).item() == 3


def test_entropy_ceiling_forbids_leaving_clueless() -> None:
    flat = [torch.zeros(1, 2)] * 3
    rule = ExitRule(criterion="entropy_plateau", threshold=0.5)
    assert exit_of_every_row(rule, [1, 2, 3], flat).item() == 1
    capped = rule.model_copy(update={"entropy_ceiling": 0.5})
    assert exit_of_every_row(capped, [1, 2, 3], flat).item() == 2


@settings(max_examples=60)
@given(
    name=st.sampled_from(CLASSIFICATION),
    seed=st.integers(0, 10**6),
    low=st.floats(-1, 2),
    step=st.floats(0, 2),
)
def test_bolder_thresholds_never_make_a_row_stay_longer(
    name: str, seed: int, low: float, step: float
) -> None:
    """T17."""
    generator = torch.Generator().manual_seed(seed)
    answers = list(torch.randn(5, 7, 3, generator=generator).double() * 3)
    sign = 1 if CRITERIA[name].leaves == "below" else -1
    careful, bold = (ExitRule(criterion=name, threshold=sign * t) for t in (low, low + step))
    layers = [1, 2, 3, 4, 5]
    assert (exit_of_every_row(bold, layers, answers) <= exit_of_every_row(careful, layers, answers)).all()


def test_fractions_do_not_depend_on_the_base_of_the_logarithm(monkeypatch) -> None:
    """T17: what a plateau is in nats it is in bits."""
    rule = ExitRule(criterion="entropy_plateau", threshold=0.3)
    nats = scores_at_every_exit(CRITERIA["entropy_plateau"], rule, SEQUENCE)
    monkeypatch.setattr(criteria, "entropy", lambda logits: entropy(logits) / math.log(2))
    bits = scores_at_every_exit(CRITERIA["entropy_plateau"], rule, SEQUENCE)
    assert nats[1:].isfinite().all()
    torch.testing.assert_close(bits, nats)


@settings(max_examples=40)
@given(
    names=st.lists(st.sampled_from(CLASSIFICATION), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    first=st.integers(1, 5),
    ceiling=st.none() | st.floats(0, 1.2),
)
def test_many_rules_at_once_are_each_rule_alone(names, seed, first, ceiling) -> None:
    """Global thresholds, some by layer, none at some layers; several criteria in one list."""
    generator = torch.Generator().manual_seed(seed)
    answers, layers = list(torch.randn(5, 9, 3, generator=generator) * 3), [1, 2, 4, 5, 7]
    answers[0][0] = torch.tensor([200.0, 0.0, 0.0])
    rules = []
    for name in names:
        probe = ExitRule(criterion=name, threshold=0.0)
        finite = scores_at_every_exit(CRITERIA[name], probe, answers)
        levels = finite[finite.isfinite()].quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
        rules += [
            ExitRule(criterion=name, threshold=level, first_layer=first, entropy_ceiling=ceiling)
            for level in levels
        ]
        rules.append(ExitRule(criterion=name, thresholds={2: levels[0], 5: levels[2], 7: levels[1]}))
    found = exits_of_every_row(rules, layers, answers)
    assert torch.equal(found, torch.stack([exit_of_every_row(rule, layers, answers) for rule in rules], 1))


def test_many_rules_of_regression_are_each_rule_alone() -> None:
    answers = list(torch.randn(5, 40, 1, generator=torch.Generator().manual_seed(0)).cumsum(0))
    rules = [
        ExitRule(criterion="regression_patience", threshold=count, change=change)
        for change in (0.1, 1.0, 0.1)
        for count in (1, 2)
    ]
    found = exits_of_every_row(rules, range(1, 6), answers)
    alone = [exit_of_every_row(rule, range(1, 6), answers) for rule in rules]
    assert torch.equal(found, torch.stack(alone, 1))
    assert found.unique().numel() > 2


def test_unknown_and_unfitting_criteria_are_refused() -> None:
    with pytest.raises(PlanError, match="'entrpy' is unknown"):
        criterion_of(ExitRule(criterion="entrpy", threshold=1.0), outputs=2)
    with pytest.raises(PlanError, match="is for classification; this model has one output"):
        criterion_of(ExitRule(criterion="entropy", threshold=1.0), outputs=1)


def test_multi_label_criteria_ask_for_every_label() -> None:
    """Sure of two labels, sure of none, and undecided about one of three."""
    logits = torch.tensor([[8.0, 8.0, -8.0], [-8.0, -8.0, -8.0], [8.0, 0.1, -8.0]])
    rule = ExitRule(criterion="label_probability", threshold=0.9)
    leaving, _ = may_leave(CRITERIA["label_probability"], rule, 1, logits, None)
    assert leaving is not None
    assert leaving.tolist() == [True, True, False]


def test_multi_label_patience_compares_whole_answers() -> None:
    answers = [
        torch.tensor([[5.0, -5.0]]),
        torch.tensor([[5.0, 5.0]]),
        torch.tensor([[4.0, 4.0]]),
        torch.tensor([[4.0, 4.0]]),
    ]
    rule = ExitRule(criterion="label_patience", threshold=1)
    assert exit_of_every_row(rule, [1, 2, 3, 4], answers).tolist() == [2]


def test_every_task_has_criteria() -> None:
    kinds = ("regression", "multi_label_classification", "single_label_classification")
    found = [criteria_for(kind) for kind in kinds]
    assert all(found)
    assert {name for names in found for name in names} | set(LANGUAGE) == set(CRITERIA)


def test_language_criteria_are_exact_near_certainty_and_strict() -> None:
    """1 - p of a token of p = 1 - 1e-9, which float32 rounds to 1; and equality does not leave."""
    logits = torch.tensor([[0.0, -20.723266, -60.0]])
    rule = ExitRule(criterion="entropy", threshold=0.0)
    scores = {name: CRITERIA[name].step(logits, None, rule)[0] for name in LANGUAGE}
    assert float(scores["improbability"]) == pytest.approx(1e-9, rel=1e-3)
    assert float(scores["closeness"]) == pytest.approx(2e-9, rel=1e-3)
    assert float(scores["logit_closeness"]) == pytest.approx(-20.723266)
    for name, score in scores.items():
        assert CRITERIA[name].leaves == "below"
        assert not CRITERIA[name].passes(score, float(score)).any(), name
        assert CRITERIA[name].passes(score, float(score) + 1e-6).all(), name
