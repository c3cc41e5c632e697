"""Tokens and exits together on one path: kept answers equal what runs, and certificates carry both."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run as command

import lessen
from lessen.artefact import KEPT
from lessen.data.reading import read
from lessen.guarantee.pvalues import binomial
from lessen.measure.evaluation import answers_at
from lessen.plan import FULL
from lessen.promise.audit import audit_folder
from lessen.promise.classifiers import calibrate_classifier
from lessen.promise.judging import judge, losses_of
from lessen.promise.outputs import Kept, Outputs, Task, outputs_of, settings_of, task_of
from lessen.promise.paths import freeze_path, path_of
from lessen.promise.settle import Asked
from lessen.runtime.text import encode

TASK = Task("single_label_classification", (1, 2, 3))
QUICK, SLOW = (
    FULL.model_copy(update={"name": f"speedup-{s}x", "retention": (1 / s,) * 3, "token_score": "mean"})
    for s in (4, 2)
)


def answers(rows: int, seed: int, *, costs: bool = True) -> Outputs:
    """Three settings of three exits: exits fail on hard rows, elimination at random, and more the bolder."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, rows)
    hard = generator.random(rows) < 0.3
    logits = generator.normal(size=(9, rows, 2)) * 0.3
    for setting, harm in enumerate((0.04, 0.004, 0.0)):
        slips = generator.random(rows) < harm
        for exit in range(3):
            strength = np.where(hard & (exit < 2), 0.0, 4.0) * np.where(slips, -1.0, 1.0)
            logits[3 * setting + exit, np.arange(rows), truth] += strength
    macs = np.outer([0.1, 0.17, 0.25, 0.2, 0.35, 0.5, 0.33, 0.67, 1.0], np.full(rows, 1e6))
    keys = tuple(f"{seed:08x}{i:08x}" for i in range(rows))
    return Outputs(
        logits, truth.astype(float), keys, settings=(QUICK, SLOW, FULL), macs=macs if costs else None
    )


def test_a_path_goes_from_all_tokens_to_few_and_then_to_early_exits() -> None:
    tune = answers(1500, 0)
    path = path_of(tune, TASK, "max_probability", 0)
    assert path[0].retention == SLOW.retention
    assert path[1].retention == QUICK.retention
    assert path[0].exits is None
    assert path[1].exits is None
    assert all(step.exits is not None and step.retention == QUICK.retention for step in path[2:])
    assert [step.name for step in path] == [f"step {i}" for i in range(len(path))]
    costs = tune.cost_of(tune.answers_taken(path, TASK), TASK)
    assert (np.diff(costs) <= 1e-12).all()
    alone = path_of(tune, TASK, "max_probability")
    assert all(step.retention is None for step in alone)


@pytest.mark.parametrize("loss", ["drop", "disagreement", "selective"])
@pytest.mark.parametrize("epsilon", [1e-4, 0.002, 0.01, 0.03, 0.1])
def test_the_path_frozen_is_the_best_of_all_of_them(loss: str, epsilon: float) -> None:
    """The slow form: every criterion at every setting, judged anew."""
    tune, criteria = answers(1500, 0), ["entropy", "margin", "patience"]
    paths = [path_of(tune, TASK, name, setting) for name in criteria for setting in range(3)]
    costs = []
    for place, path in enumerate(paths):
        taken = np.stack([tune.answers_taken([step], TASK)[:, 0] for step in path], 1)
        found = losses_of(loss, tune, taken, TASK, epsilon)
        if loss == "selective":
            pvalues = binomial(found, epsilon)
            start = int(np.argmax(pvalues <= 0.01)) if (pvalues <= 0.01).any() else int(pvalues.argmin())
            paths[place], taken = path[start:], taken[:, start:]
            found = replace(found, values=found.values[:, start:])
        values = found.values
        fails = values.mean(0) + 1.3 * values.std(0) / np.sqrt(len(values)) > epsilon
        passed = int(np.argmax(fails)) if fails.any() else len(fails)
        costs.append(float(tune.cost_of(taken, TASK)[passed - 1]) if passed else 1.0)
    assert freeze_path(tune, TASK, criteria, epsilon, loss) == paths[costs.index(min(costs))]


def test_both_together_reach_what_neither_reaches_alone() -> None:
    """Chosen on tuning rows, certified on others: the mixed Point is faster than either axis alone."""
    tune, calibration = answers(1500, 0), answers(3000, 1)
    path = freeze_path(tune, TASK, ["max_probability"], 0.02)
    verdict = judge(calibration, path, TASK, [0.02], 0.1)[0]
    point = path[verdict.chosen.step]
    assert point.retention == SLOW.retention
    assert point.exits is not None
    only_exits = freeze_path(tune.at(2), TASK, ["max_probability"], 0.02)
    exits = judge(calibration.at(2), only_exits, TASK, [0.02], 0.1)[0]
    only_tokens = path_of(tune, TASK, "max_probability", 0)[:2]
    tokens = judge(calibration, only_tokens, TASK, [0.02], 0.1)[0]
    assert verdict.saving > 1.1 * max(exits.saving, tokens.saving)


def test_settings_are_told_apart_and_sorted() -> None:
    again = SLOW.model_copy(update={"name": "other"})
    assert settings_of([FULL, SLOW, QUICK, again]) == (QUICK, SLOW, FULL)
    assert settings_of([]) == (FULL,)
    rows = answers(20, 0)
    assert (rows.at(0).logits == rows.logits[:3]).all()
    assert (rows.at(-1).logits == rows.logits[6:]).all()
    without = answers(20, 0, costs=False)
    taken = without.answers_taken([SLOW, FULL], TASK)
    assert without.cost_of(taken, TASK).tolist() == [1.0, 1.0]


def test_kept_answers_are_those_that_run(adjustable: Path, data: Path) -> None:
    """Elimination with exits in mixed batches: what a certificate judges is what the engine does."""
    model = lessen.load(adjustable)
    table = read(str(data)).with_labels_of(model.label_names).take(list(range(60)))
    outputs = outputs_of(model, table, settings=settings_of(model.speeds().values()))
    task = task_of(model, 1.0)
    path = path_of(outputs, task, "max_probability", 0)
    encoded = encode(model.tokenizer, table.texts, 64)
    for step in path[:: max(1, len(path) // 6)]:
        taken = outputs.answers_taken([step], task)[:, 0]
        logits, layers = answers_at(model, encoded, step, batch_size=7)
        assert task.depths(taken).astype(int).tolist() == layers
        assert np.allclose(logits, outputs.logits[taken, np.arange(60)], atol=1e-4)


def test_kept_answers_with_settings_round_trip(adjustable: Path, tmp_path: Path) -> None:
    kept = Kept.load(adjustable / KEPT)
    assert len(kept.tune.settings) > 2
    assert kept.tune.settings[-1] == FULL
    kept.save(tmp_path / "k")
    again = Kept.load(tmp_path / "k")
    assert again.tune.settings == kept.tune.settings
    assert (again.tune.macs == kept.tune.macs).all()
    assert (again.calibration.tokens == kept.calibration.tokens).all()


def test_a_certificate_about_both(adjustable: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(adjustable, folder)
    model = lessen.load(folder, promises=False)
    kept = Kept.load(folder / KEPT)
    kept = replace(kept, tune=harmless(kept.tune), calibration=harmless(kept.calibration))
    found = calibrate_classifier(folder, model, kept, Asked(bounds=(0.1,)))
    assert found.certificate is not None
    point = lessen.load(folder).point
    assert point.promise.kind == "certified"
    assert point.retention == kept.tune.settings[0].retention
    assert point.exits is not None
    assert point.expected.macs_ratio > 2
    config = json.loads((folder / "config.json").read_text())
    config["points"][0]["retention"][-1] *= 0.9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(lessen.LessenError, match="it was changed"):
        lessen.load(folder)


def harmless(outputs: Outputs) -> Outputs:
    """As if neither leaving early nor fewer tokens ever changed an answer: the boldest step passes."""
    return replace(outputs, logits=np.repeat(outputs.logits[-1:], len(outputs.logits), axis=0))


def test_calibrating_on_new_rows_and_auditing_answer_at_every_setting(
    adjustable: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(adjustable, folder)
    newer = tmp_path / "new.csv"
    lines = [f"{'a great story' if i % 2 else 'a poor story'} new {i},{'pos' if i % 2 else 'neg'}\n"
             for i in range(300)]  # fmt: skip
    newer.write_text("text,label\n" + "".join(lines[:200]))
    code, out, _ = command("calibrate", folder, "--data", newer, "--max-drop", "10%", "--json")
    assert code == 0
    assert json.loads(out)["certified"]
    newer.write_text("text,label\n" + "".join(lines[200:]))
    audit = audit_folder(folder, read(str(newer)))
    assert audit.new == 100
    assert torch.isfinite(torch.tensor(audit.findings[0].loss))
