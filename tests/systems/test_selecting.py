"""The best step of a training is selected by the mean over exits, on rows that nothing else sees.

Property test 16 of the COST-EFF page.
"""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CharacterTokenizer, task
from systems.test_pipeline import DATA, slim_plan

import lessen
from lessen.errors import InputError, Interrupted, LessenError, PlanError
from lessen.measure.evaluation import answers_of_every_exit
from lessen.plan import ExitShape
from lessen.records import parse
from lessen.runtime.text import encode
from lessen.systems import SYSTEMS, system_of
from lessen.systems.dividing import read_splits
from lessen.systems.pipeline import compress
from lessen.systems.planning import CompressionPlan, plan_for
from lessen.systems.selecting import judge_of, selects
from lessen.train.callbacks import StopAtStepEnd
from lessen.train.fine_tuning import Recipe, fine_tune

RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-2, seed=3)


EXITS = [ExitShape(layer=layer, pool="mean") for layer in (2, 3)]


@pytest.fixture
def model(tiny_classifier) -> lessen.LessenForSequenceClassification:
    fresh = lessen.with_exits(tiny_classifier, labels=["no", "yes"], exits=EXITS)
    fresh.tokenizer = CharacterTokenizer()
    return fresh


def test_the_step_with_the_best_score_is_the_result(model, tmp_path: Path) -> None:
    """Of equal ones the first, though it is neither the first look nor the last."""
    given, seen = iter([0.2, 0.9, 0.1, 0.9] + [0.3] * 10), []

    def judge(at) -> float:
        seen.append({name: value.clone() for name, value in at.state_dict().items()})
        return next(given)

    record = fine_tune(model, task(), RECIPE, tmp_path, judge=judge, quiet=True)
    assert (record["steps"], record["selected"], record["score"]) == (32, 8, 0.9)
    assert len(seen) == 8
    assert all(torch.equal(value, seen[1][name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(value, seen[1][name]) for name, value in seen[-1].items())


def test_looking_changes_nothing_in_the_training(model, tmp_path: Path) -> None:
    """Where the last step is the best, the result is that of a training without a judge."""
    start = {name: value.clone() for name, value in model.state_dict().items()}
    states = []
    for place in ("without", "with"):
        model.load_state_dict(start)
        torch.manual_seed(0)
        looks = iter(range(100))
        judge = None if place == "without" else judge_of(RECIPE, task())
        rising = None if judge is None else lambda at, judge=judge, looks=looks: next(looks) + judge(at)
        fine_tune(model, task(), RECIPE, tmp_path / place, judge=rising, quiet=True)
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


SCORES = {4: 0.1, 8: 0.9, 12: 0.2, 16: 0.3, 20: 0.5, 24: 0.4, 28: 0.4, 32: 0.4}


@pytest.fixture
def train(model, monkeypatch):
    """Trains from the same start into a folder, stopping after a step; returns the record and the state."""
    start = {name: value.clone() for name, value in model.state_dict().items()}
    taken: dict[str, int | None] = {"steps": 0, "stop": None}
    original = StopAtStepEnd.on_step_end

    def counting(self, args, state, control, **rest):
        taken["steps"] = state.global_step
        if state.global_step == taken["stop"]:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, args, state, control, **rest)

    monkeypatch.setattr(StopAtStepEnd, "on_step_end", counting)

    def run(folder: Path, stop: int | None = None):
        model.load_state_dict(start)
        taken["stop"] = stop
        torch.manual_seed(0)
        record = fine_tune(model, task(), RECIPE, folder, judge=lambda _: SCORES[taken["steps"]], quiet=True)
        return record, {name: value.clone() for name, value in model.state_dict().items()}

    return run


@pytest.mark.parametrize("stop", [13, 30])
@pytest.mark.parametrize("moved", [False, True])
def test_stopped_and_resumed_selects_the_same_step(stop: int, moved: bool, train, tmp_path: Path) -> None:
    """The best step lies before the stop and outlives it, wherever its folder is then."""
    _, expected = train(tmp_path / "whole")
    place = tmp_path / "cut"
    with pytest.raises(Interrupted, match=f"stopped after step {stop}"):
        train(place, stop)
    assert sorted(each.name for each in place.iterdir()) == sorted(["checkpoint-8", f"checkpoint-{stop}"])
    if moved:
        place = place.rename(tmp_path / "elsewhere")
    record, state = train(place)
    assert record["resumed"]
    assert (record["selected"], record["score"]) == (8, 0.9)
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


@pytest.mark.parametrize("damage", ["lost", "cut off"])
def test_a_best_step_that_is_gone_is_made_again(damage: str, train, tmp_path: Path) -> None:
    """Nothing else is passed off as it."""
    _, expected = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", 13)
    best = tmp_path / "cut" / "checkpoint-8"
    if damage == "lost":
        shutil.rmtree(best)
    else:
        (best / "model.safetensors").write_bytes((best / "model.safetensors").read_bytes()[:100])
    record, state = train(tmp_path / "cut")
    assert (record["resumed"], record["selected"]) == (False, 8)
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_a_score_that_is_no_number_ends_training(model, tmp_path: Path) -> None:
    with pytest.raises(LessenError, match="the score after step 4 is nan, no number"):
        fine_tune(model, task(), RECIPE, tmp_path, judge=lambda _: float("nan"), quiet=True)


def test_an_exit_that_says_the_same_of_every_row_scores_nothing(tiny_classifier) -> None:
    """Its correlation is not defined; the others' counts."""
    model = lessen.with_exits(tiny_classifier, labels=["value"], problem_type="regression", exits=EXITS)
    model.tokenizer = CharacterTokenizer()
    table = replace(task(), labels=[float(label) for label in task().labels or []], kind="regression")
    with torch.no_grad():
        for parameter in model.transformer.exits["2"].parameters():
            parameter.zero_()
    logits = answers_of_every_exit(model, encode(model.tokenizer, table.texts, 64))
    expected = np.corrcoef(logits[1][:, 0], table.labels)[0, 1] / 2
    assert judge_of(RECIPE, table)(model) == pytest.approx(expected)


@pytest.mark.parametrize(("objective", "exits"), [("depth_weighted", [0, 1]), ("last", [1])])
def test_the_score_is_the_mean_over_exits_that_are_trained(model, objective: str, exits: list[int]) -> None:
    """COST-EFF page, property test 16: no exit before the first one counts, there being none."""
    table = task()
    logits = answers_of_every_exit(model, encode(model.tokenizer, table.texts, 64))
    assert len(logits) == 2
    logits = np.stack([logits[place] for place in exits])
    right = (logits.argmax(-1) == np.asarray(table.labels)).mean(-1)
    judge = judge_of(RECIPE.model_copy(update={"objective": objective}), table)
    assert judge(model) == pytest.approx(right.mean())


def test_stages_that_select_are_those_that_learn_predictions() -> None:
    """As the authors' code does it: where features alone are learned, or parts leave, the last step stays."""
    assert [selects(stage) for stage in SYSTEMS["cost-eff"].stages] == [True, False, True, False, False, True]
    assert not any(selects(stage) for stage in SYSTEMS["binarize"].stages if stage.teacher)


def test_a_run_selects_on_rows_of_their_own(tiny_checkpoint: Path, tmp_path: Path) -> None:
    system, plan = slim_plan(tiny_checkpoint, tmp_path, 0.5)
    plan = plan.model_copy(update={"selection_share": 0.2})
    parts = read_splits(plan)
    texts = [set(part.texts) for part in parts.values()]
    assert list(parts) == ["train", "selection", "tune", "calibration", "test"]
    assert sum(map(len, texts)) == len(set.union(*texts))
    [outcome] = compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
    assert outcome.rows["selection"] == len(parts["selection"])
    assert ["selected" in stage for stage in outcome.training] == [True, False, True, False, False, True]


def test_nothing_to_select_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(DATA["multi-class"])
    choices = {"model": str(tiny_checkpoint), "data": str(path), "selection_share": 0.1}
    with pytest.raises(PlanError, match="none is selected"):
        plan_for(system_of("masked-words"), seed=0, recipe={}, **choices)
    (tmp_path / "d.txt").write_text("\n".join(f"text {number}" for number in range(200)))
    plan = plan_for(system_of("early-exit"), seed=0, recipe={}, **choices)
    unlabelled = parse(CompressionPlan, plan.model_dump() | {"data": str(tmp_path / "d.txt")}, "plan")
    with pytest.raises(InputError, match="has no labels, and steps are selected by them"):
        read_splits(unlabelled)
    few = plan.model_copy(update={"selection_share": 0.02})
    with pytest.raises(InputError, match="5 rows are left to select steps on, at least 20 are needed"):
        read_splits(few)
    flat = plan.model_copy(update={"selection_share": 0.1})
    path.write_text(
        "text,score\n" + "".join(f"text {number},{0.5 * (number == 0)}\n" for number in range(240))
    )
    with pytest.raises(InputError, match="all rows to select steps on have one label"):
        read_splits(flat)
