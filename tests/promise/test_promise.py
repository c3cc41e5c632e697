"""From answers to a certificate: frozen paths, statements that hold, records that refuse strangers."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForSequenceClassification

import lessen
from lessen.artefact import KEPT
from lessen.certificate import Certificate, path_digest, read_certificate
from lessen.data.table import Table, row_key
from lessen.depth.criteria import criteria_for
from lessen.errors import ArtefactError, InputError, LessenError, PlanError
from lessen.plan import Point
from lessen.promise.classifiers import calibrate_classifier, no_better_than_one_answer
from lessen.promise.judging import judge, losses_of
from lessen.promise.outputs import Kept, Outputs, Task
from lessen.promise.paths import freeze_path, path_of
from lessen.promise.resplits import resplit
from lessen.promise.rows import rows_for
from lessen.promise.settle import Asked
from lessen.promise.verdict import LOSSES, Loss

TASK = Task("single_label_classification", (1, 2, 3, 4))
NAMES = ["LABEL_0", "LABEL_1", "LABEL_2"]
WORDS = Tokenizer(WordLevel({"word": 5, "[UNK]": 6}, unk_token="[UNK]"))
WORDS.pre_tokenizer = Whitespace()
CRITERIA = ("max_probability", "entropy", "patience")


def answers(rows: int, seed: int, *, labelled: bool = True) -> Outputs:
    """Four exits that grow surer and better with depth; one row in five is hard."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 3, rows)
    strength = np.where(generator.random(rows) < 0.2, 0.5, 4.0)
    logits = generator.normal(size=(4, rows, 3))
    for exit in range(4):
        logits[exit, np.arange(rows), truth] += strength * (1 + exit / 2)
    keys = tuple(f"{seed:08x}{i:08x}" for i in range(rows))
    return Outputs(logits.astype(np.float32).astype(float), truth.astype(float) if labelled else None, keys)


def test_losses_of_full_depth_are_zero_and_scores_are_plain() -> None:
    rows = answers(200, 0)
    taken = rows.answers_taken([Point(name="full")], TASK)
    assert (taken == 3).all()
    for kind in LOSSES:
        epsilon = 0.05
        values = losses_of(kind, rows, taken, TASK, epsilon).values
        assert (values == (epsilon if kind == "selective" else 0.0)).all()
    reference, scores = rows.scores(TASK)
    assert (reference == (rows.logits[-1].argmax(-1) == rows.labels)).all()
    assert scores.shape == (200, 4)


def test_answers_given_with_all_tokens_judge_no_point_that_takes_some() -> None:
    with pytest.raises(PlanError, match="point 'x' takes tokens away"):
        answers(20, 0).answers_taken([Point(name="x", retention=(0.5,) * 4)], TASK)


@pytest.mark.parametrize("loss", LOSSES)
def test_with_one_exit_there_is_nowhere_to_leave_early(loss) -> None:
    whole = answers(200, 0)
    last = Outputs(whole.logits[-1:], whole.labels, whole.keys)
    alone = Task("single_label_classification", (4,))
    path = freeze_path(last, alone, criteria_for(alone.problem_type), 0.02, loss)
    assert path == ()
    assert judge(last, path, alone, [0.02], 0.1, loss=loss)[0].chosen.step is None


def test_the_criterion_that_saves_most_is_chosen_on_the_tuning_rows() -> None:
    tune = answers(1500, 1)
    path = freeze_path(tune, TASK, CRITERIA, 0.02)
    assert path[0].exits is not None
    best = {
        name: judge(tune, path_of(tune, TASK, name), TASK, [0.02], 0.1)[0].mean_layers for name in CRITERIA
    }
    assert best[path[0].exits.criterion] <= min(best.values()) + 0.15
    assert freeze_path(tune, TASK, CRITERIA, 0.02) == path


@pytest.mark.parametrize("loss", LOSSES)
def test_statements_hold_on_a_large_pool(loss: Loss) -> None:
    """Calibrated on 400 rows drawn from 20,000, 150 times: the risk on all 20,000 breaks the bound rarely."""
    pool = answers(20_000, 5)
    path = freeze_path(answers(800, 1), TASK, ("max_probability",), 0.05, loss)
    epsilon, delta, trials = 0.05, 0.1, 150
    taken = pool.answers_taken(path, TASK)
    risk = losses_of(loss, pool, taken, TASK, epsilon).values.mean(0)
    generator = np.random.default_rng(0)
    steps = []
    for _ in range(trials):
        part = pool.take(generator.choice(20_000, 400, replace=False))
        steps.append(judge(part, path, TASK, [epsilon], delta, loss=loss)[0].chosen.step)
    missed = np.mean([step is not None and risk[step] > epsilon for step in steps])
    assert missed <= delta + 2 * math.sqrt(delta * (1 - delta) / trials)
    if loss != "selective":
        assert sum(step is not None for step in steps) > trials / 2


def test_several_bounds_share_the_risk() -> None:
    rows, path = answers(2000, 2), freeze_path(answers(800, 1), TASK, CRITERIA, 0.05)
    alone = judge(rows, path, TASK, [0.05], 0.1)[0]
    together = judge(rows, path, TASK, [0.05, 0.02, 0.2], 0.1)
    assert [verdict.delta for verdict in together] == pytest.approx([0.1 / 3] * 3)
    assert together[0].chosen.step is not None
    assert alone.chosen.step is not None
    assert together[0].chosen.step <= alone.chosen.step
    assert together[2].mean_layers <= together[0].mean_layers <= together[1].mean_layers


def test_kept_answers_round_trip(tmp_path: Path) -> None:
    kept = Kept(
        answers(30, 1), answers(50, 2, labelled=False), frozenset({"00" * 8}), CRITERIA, 2.5, "float32", "w"
    )
    kept = replace(kept, before=kept.seen, pairs=True)
    kept.save(tmp_path / "k.safetensors")
    again = Kept.load(tmp_path / "k.safetensors")
    assert (again.tune.logits == kept.tune.logits).all()
    assert again.calibration.labels is None
    assert again.calibration.keys == kept.calibration.keys
    assert replace(again, tune=kept.tune, calibration=kept.calibration) == kept
    (tmp_path / "k.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ArtefactError, match="compress again"):
        Kept.load(tmp_path / "k.safetensors")


@pytest.fixture
def folder(tiny_classifier, tmp_path: Path) -> Path:
    """A saved tiny model with three exits and three classes, and answers kept for it (not its own)."""
    from lessen.certificate import one_digest

    place = tmp_path / "m"
    tiny_classifier.save_pretrained(place)
    cut = [replace(part, logits=part.logits[1:]) for part in (answers(600, 1), answers(1500, 2))]
    digest = one_digest(place)
    Kept(cut[0], cut[1], frozenset(), CRITERIA, 1.0, "float32", digest).save(place / KEPT)
    return place


def calibrated(folder: Path, **asked: object) -> object:
    model, kept, dropped = rows_for(folder, None)
    assert dropped == 0
    return calibrate_classifier(folder, model, kept, Asked(**asked))


def test_a_certificate_round_trips_and_says_what_it_is_about(folder: Path) -> None:
    outcome = calibrated(folder, bounds=(0.05, 0.1))
    certificate = read_certificate(folder)
    assert certificate == outcome.certificate
    assert certificate.rows == 1500
    assert certificate.path_digest == path_digest(certificate.path)
    model = lessen.load(folder)
    assert list(model.points) == ["full", "drop-5%", "drop-10%"]
    assert model.point.name == "drop-5%"
    for point in certificate.points:
        assert model.points[point.name].promise.certificate == certificate.identity
        assert model.points[point.name].exits == certificate.path[point.step].exits
        assert point.pvalue <= point.delta == 0.05
        sentence = certificate.sentence(point)
        assert "90% confidence" in sentence
        assert "on average it loses at most" in sentence
        assert "guarantee" not in sentence


@pytest.mark.parametrize("change", ["weights", "tokenizer", "form", "path", "json", "field"])
def test_a_certificate_of_something_else_is_refused(folder: Path, change: str) -> None:
    calibrated(folder, bounds=(0.05,))
    place = folder / "certificate.json"
    if change == "weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"x")
    elif change == "tokenizer":
        (folder / "tokenizer_config.json").write_text("{}")
    elif change == "form":
        raw = json.loads((folder / "config.json").read_text())
        raw["id2label"] = {"0": "LABEL_2", "1": "LABEL_1", "2": "LABEL_0"}
        (folder / "config.json").write_text(json.dumps(raw))
    elif change == "json":
        place.write_text("{")
    else:
        raw = json.loads(place.read_text())
        if change == "path":
            raw["path"].pop()
        else:
            raw["surprise"] = 1
        place.write_text(json.dumps(raw))
    with pytest.raises(LessenError, match=r"changed since|cannot be read|unknown field"):
        read_certificate(folder)


def test_a_model_whose_points_claim_a_certificate_needs_it(folder: Path) -> None:
    calibrated(folder, bounds=(0.05,))
    model = lessen.load(folder)
    assert model.points["drop-5%"].promise.kind == "certified"
    elsewhere = folder.with_name("elsewhere")
    model.save_pretrained(elsewhere)
    assert lessen.load(elsewhere).points["drop-5%"].promise.kind == "certified", "the same weights"
    assert (elsewhere / KEPT).exists()
    copy = lessen.load(folder)
    with torch.no_grad():
        next(copy.transformer.exits.parameters()).add_(1e-3)
    copy.save_pretrained(elsewhere)
    assert lessen.load(elsewhere).points["drop-5%"].promise.kind == "uncertified"
    assert not (elsewhere / "certificate.json").exists()
    assert not (elsewhere / KEPT).exists(), "answers of other weights"
    other = lessen.load(folder)
    other.config.points[0]["exits"]["first_layer"] = 2
    other.save_pretrained(elsewhere)
    assert lessen.load(elsewhere).points["drop-5%"].promise.kind == "uncertified", "not the Point certified"
    assert model.points["drop-5%"].promise.kind == "certified"
    half = lessen.load(folder, precision="bfloat16")
    assert half.point.name == "drop-5%"
    assert half.point.promise.kind == "uncertified"
    auto = AutoModelForSequenceClassification.from_pretrained(folder)
    assert auto.point.promise.kind == "uncertified", "nobody has checked it"
    assert lessen.load(folder).bfloat16().point.promise.kind == "uncertified"
    assert lessen.load(folder).train().eval().points["drop-5%"].promise.kind == "uncertified"
    half = lessen.load(folder).bfloat16().float()
    assert half.point.promise.kind == "uncertified", "the weights were rounded"
    other = lessen.load(folder)
    other.load_state_dict(other.state_dict())
    assert other.point.promise.kind == "uncertified"
    (folder / "certificate.json").unlink()
    with pytest.raises(ArtefactError, match=r"point 'drop-5%' claims a certificate, but in .* there is none"):
        lessen.load(folder)


@pytest.mark.parametrize("change", ["rule", "epsilon", "name"])
def test_a_point_changed_by_hand_is_refused_and_can_be_calibrated_again(folder: Path, change: str) -> None:
    calibrated(folder, bounds=(0.05,))
    raw = json.loads((folder / "config.json").read_text())
    point = raw["points"][0]
    if change == "rule":
        point["exits"] = {"criterion": "entropy", "threshold": 9.0}
    elif change == "epsilon":
        point["promise"]["epsilon"] = 0.0001
    else:
        point["name"] = raw["point"] = "drop-0.01%"
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ArtefactError, match="it was changed; calibrate again"):
        lessen.load(folder)
    assert lessen.load(folder, promises=False).point.promise.kind == "uncertified"
    calibrated(folder, bounds=(0.05,))
    assert lessen.load(folder).point.promise.kind == "certified"


def test_a_lost_certificate_can_be_made_again(folder: Path) -> None:
    calibrated(folder, bounds=(0.05,))
    (folder / "certificate.json").unlink()
    calibrated(folder, bounds=(0.05,))
    assert lessen.load(folder).point.promise.kind == "certified"


def test_copies_of_a_text_calibrate_once(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text(WORDS.to_str())
    renew(folder)
    texts = [f"word {i % 40}" for i in range(200)]
    table = Table("new", texts, [i % 3 for i in range(40)] * 5, "single_label_classification", NAMES)
    _, fresh, dropped = rows_for(folder, table)
    assert (len(fresh.calibration), dropped) == (40, 160)


def test_a_reference_must_mean_the_same(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text(WORDS.to_str())
    renew(folder)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    raw = json.loads((other / "config.json").read_text())
    raw["id2label"] = {"0": "LABEL_2", "1": "LABEL_1", "2": "LABEL_0"}
    (other / "config.json").write_text(json.dumps(raw))
    table = Table("new", [f"word {i}" for i in range(50)], None, None, [])
    with pytest.raises(InputError, match="the same labels in the same order"):
        rows_for(folder, table, reference=str(other))
    with pytest.raises(InputError, match="has no classifier"):
        rows_for(folder, table, reference="builtin:minilm-l6")
    _, kept, _ = rows_for(folder, table, reference=str(folder))
    assert np.allclose(kept.calibration.reference_answers(), kept.calibration.logits[-1])


def renew(folder: Path) -> None:
    """Say that the kept answers are those of the folder as it is now."""
    from lessen.certificate import one_digest

    replace(Kept.load(folder / KEPT), subject=one_digest(folder)).save(folder / KEPT)


def test_too_few_rows_leave_full_depth_and_say_how_many_would_do(folder: Path) -> None:
    model, kept, _ = rows_for(folder, None)
    calibrate_classifier(folder, model, kept, Asked(bounds=(0.05,)))
    kept = replace(kept, calibration=kept.calibration.take(range(30)))
    outcome = calibrate_classifier(folder, model, kept, Asked(bounds=(0.01,)))
    assert outcome.certificate is None
    assert outcome.points == []
    assert "would do" in outcome.reasons[0.01]
    assert outcome.earlier, "what was certified before still holds"
    assert lessen.load(folder).point.name == "drop-5%"
    (folder / "certificate.json").unlink()
    outcome = calibrate_classifier(folder, model, kept, Asked(bounds=(0.01,)))
    assert not (folder / "certificate.json").exists()
    assert lessen.load(folder).point.name == "full"
    with pytest.raises(InputError, match="give at least 20"):
        calibrate_classifier(
            folder, model, replace(kept, calibration=kept.calibration.take(range(9))), Asked()
        )


def test_rules_that_promise_less_are_labelled(folder: Path) -> None:
    for rule in ("plug-in", "expectation"):
        outcome = calibrated(folder, bounds=(0.05,), rule=rule)
        assert outcome.certificate is None
        assert outcome.points[0].promise.kind == "uncertified"
        assert not (folder / "certificate.json").exists()


def test_unlabelled_rows_bound_disagreement(folder: Path) -> None:
    model, kept, _ = rows_for(folder, None)
    kept = replace(kept, calibration=replace(kept.calibration, labels=None))
    outcome = calibrate_classifier(folder, model, kept, Asked(bounds=(0.05,)))
    assert outcome.basis.loss == "disagreement"
    assert isinstance(outcome.certificate, Certificate)
    assert outcome.certificate.test == "binomial"


def test_kept_answers_of_another_precision_or_model_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="give --data to calibrate in bfloat16"):
        rows_for(folder, None, precision="bfloat16")
    model = lessen.load(folder)
    with torch.no_grad():
        model.transformer.exits["1"].output.bias.add_(1.0)
    kept = (folder / KEPT).read_bytes()
    model.save_pretrained(folder)
    (folder / KEPT).write_bytes(kept)
    with pytest.raises(InputError, match="belongs to other weights"):
        rows_for(folder, None)


def test_the_procedure_is_tried_on_random_draws() -> None:
    path = path_of(answers(800, 1), TASK, "max_probability")
    pool = answers(3000, 4)
    found = resplit(pool, path, TASK, 0.005, 0.1, count=200)
    assert found["violations"] <= 0.1 + 2 * math.sqrt(0.09 / 200)
    assert found["violations"] < found["violations_plug_in"]
    assert 0.5 * found["early_oracle"] < found["early"] <= found["early_oracle"] <= 1
    assert resplit(pool, path, TASK, 0.005, 0.1, count=200) == found


def test_new_rows_that_were_seen_are_left_out(folder: Path, tmp_path: Path) -> None:
    """Rows of the training and of the tuning split do not count; what is left is run and calibrated on."""
    texts = [f"word {i}" for i in range(200)]
    keys = [row_key(text) for text in texts]
    kept = Kept.load(folder / KEPT)
    tune = replace(kept.tune, keys=(*keys[50:60], *kept.tune.keys[10:]))
    replace(kept, seen=frozenset(keys[:50]), tune=tune).save(folder / KEPT)
    (folder / "tokenizer.json").write_text(WORDS.to_str())
    renew(folder)
    table = Table("new", texts, [i % 3 for i in range(200)], "single_label_classification", NAMES)
    _, fresh, dropped = rows_for(folder, table)
    assert dropped == 60
    assert fresh.calibration.keys == tuple(keys[60:])
    with pytest.raises(InputError, match="was trained for"):
        rows_for(folder, replace(table, kind="regression", label_names=[], labels=[0.5] * 200))


def test_the_dial(folder: Path) -> None:
    calibrated(folder, bounds=(0.05, 0.1))
    model = lessen.load(folder)
    assert model.dial(max_drop=0.07).point.name == "drop-5%"
    assert model.dial(max_drop=0.3).point.name == "drop-10%"
    assert model.dial(max_drop=0.01).point.name == "full"
    assert model.dial(speedup=1.0).point.name == "full"
    steps = model.config.steps()
    layers = [step.expected.mean_layers for step in steps]
    assert layers == sorted(layers, reverse=True)
    between = (layers[-2] + layers[-1]) / 2
    assert model.dial(speedup=3 / between).point.expected.mean_layers <= between
    with pytest.raises(PlanError, match="this model takes at least"):
        model.dial(speedup=100)
    assert model.dial(latency_ms=10_000).point.name == "full"
    with pytest.raises(PlanError, match="one layer alone takes"):
        model.dial(latency_ms=1e-6)
    for wrong in ({}, {"speedup": 2, "max_drop": 0.1}, {"max_drop": -1}):
        with pytest.raises(PlanError, match=r"dial takes one of|must be a number"):
            model.dial(**wrong)


def test_a_certified_point_is_taken_where_it_is_fast_enough(folder: Path) -> None:
    calibrated(folder, bounds=(0.01,))
    model = lessen.load(folder)
    fast = 3 / model.points["drop-1%"].expected.mean_layers
    assert model.dial(speedup=0.99 * fast).point == model.points["drop-1%"]
    assert model.dial(speedup=1.01 * fast).point.promise.kind == "uncertified"


@pytest.mark.parametrize(("right", "weak"), [(0.5, True), (0.52, True), (0.9, False)])
def test_a_promise_about_a_model_that_learned_nothing_comes_with_a_warning(right, weak) -> None:
    """Of 400 rows half have either label; a standard error is 2.5 points."""
    labels = np.arange(400) % 2
    answers = np.where(np.arange(400) < 400 * right, labels, 1 - labels)
    outputs = Outputs(np.eye(2)[answers][None], labels, tuple(map(str, range(400))))
    said = no_better_than_one_answer(outputs, TASK)
    assert (said is not None) == weak
    if said is not None:
        assert f"{100 * right:.1f}% of the calibration rows are answered right, and 50.0%" in said
    assert no_better_than_one_answer(replace(outputs, labels=None), TASK) is None


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (
            "regression",
            r"missed by 2\d\.\d% of the labels' range on average, and by 2\d\.\d% if their median",
        ),
        ("multi_label_classification", r"rows' labels are answered right, and \d\d\.\d% would be by what is"),
    ],
)
def test_so_are_those_of_other_tasks(problem: str, says: str) -> None:
    random = np.random.default_rng(0)
    wide = problem != "regression"
    labels = (random.random((300, 3)) < 0.3).astype(float) if wide else random.random(300)
    task = replace(TASK, problem_type=problem)
    keys = tuple(f"{i:016x}" for i in range(300))
    knows = (2 * labels - 1) if wide else labels[:, None]
    for noise in (0.0, 1.0):
        mixed = (1 - noise) * knows + noise * (-np.ones((300, 3)) if wide else np.full((300, 1), 0.5))
        said = no_better_than_one_answer(Outputs(np.stack([mixed, mixed]), labels, keys), task)
        assert (said is None) == (noise == 0.0)
    assert re.search(says, said or "")
