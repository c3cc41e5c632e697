"""Tasks of every kind through the pipeline, and splits that share no text."""

from pathlib import Path

import pytest
import torch

import lessen
from lessen.data.table import row_key
from lessen.promise.folder import Asked
from lessen.systems import SYSTEMS, system_of
from lessen.systems.pipeline import compress, plan_for, read_splits

FIVE = Asked(bounds=(0.05,))
SIZE = {"cost-eff": {"target": {"width": 0.5}}}
FAST = {"epochs": 2.0, "batch_size": 16, "learning_rate": 1e-3}


DATA = {
    "multi-class": "text,label\n" + "".join(f"word{i % 3} thing {i},c{i % 3}\n" for i in range(240)),
    "regression": "text,score\n" + "".join(f"number {i % 10} item {i},{(i % 10) / 4}\n" for i in range(240)),
    "pairs": "sentence1,sentence2,label\n"
    + "".join(f"left {i % 2} a{i},right {i % 2} b{i},{i % 2}\n" for i in range(240)),
    "multi-label": "".join(
        f'{{"text": "word{i % 4} thing {i}", "labels": {["[]", "[0]", "[1]", "[0, 1]"][i % 4]}}}\n'
        for i in range(240)
    ),
}
PROBLEM = {
    "multi-class": ("single_label_classification", 3),
    "regression": ("regression", 1),
    "pairs": ("single_label_classification", 2),
    "multi-label": ("multi_label_classification", 2),
}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("name", ["early-exit", "latency-adjustable", "cost-eff"])
def test_every_kind_of_task(name: str, kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / ("d.jsonl" if kind == "multi-label" else "d.csv")
    path.write_text(DATA[kind])
    system = system_of(name)
    recipe = FAST | ({"speedup": 1.5} if name == "latency-adjustable" else {})
    plan = plan_for(
        system,
        seed=0,
        recipe=recipe,
        model=str(tiny_checkpoint),
        data=str(path),
        promise=FIVE,
        **SIZE.get(name, {}),
    )
    outcome = compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
    problem, outputs = PROBLEM[kind]
    model = lessen.load(tmp_path / "m")
    assert model.problem_type == problem
    assert model.config.num_labels == outputs
    assert "## Use" in (tmp_path / "m" / "README.md").read_text()
    text = ("left 1 x", "right 1 y") if kind == "pairs" else "word1 thing"
    assert model.predict([text])[0].layers in (1, 2, 3)
    names = [result.name for result in outcome.results]
    assert names == list(model.points)
    if outcome.calibration.certificate is None:
        assert names == ["full"]
        assert "would do" in outcome.calibration.reasons[0.05] or "loses" in outcome.calibration.reasons[0.05]
    else:
        promise = model.points["drop-5%"].promise
        assert promise is not None
        assert promise.kind == "certified"
        assert promise.certificate == outcome.calibration.certificate.identity


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_every_system(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(DATA["multi-class"])
    start = str(tiny_checkpoint)
    if SYSTEMS[name].keeps_head:
        first = system_of("early-exit")
        plan = plan_for(
            first,
            seed=0,
            recipe=FAST | {"objective": "last"},
            model=start,
            data=str(path),
            promise=FIVE,
        )
        compress(plan, first, tmp_path / "dense", say=lambda _: None, quiet=True)
        start = str(tmp_path / "dense")
    system = system_of(name)
    size = SIZE.get(name, {})
    plan = plan_for(system, seed=0, recipe=FAST, model=start, data=str(path), promise=FIVE, **size)
    compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
    model = lessen.load(tmp_path / "m")
    if "drop-5%" in model.points:
        rule = model.points["drop-5%"].exits
        assert rule is not None
        assert rule.criterion in system.criteria
    if system.keeps_head:
        before = lessen.load(start).state_dict()
        after = model.state_dict()
        for key in before:
            if ".exits.1." not in key and ".exits.2." not in key:
                assert torch.equal(before[key], after[key]), key


def test_exits_from_unlabelled_text(tiny_checkpoint: Path, tmp_path: Path) -> None:
    labelled, bare = tmp_path / "d.csv", tmp_path / "bare.csv"
    labelled.write_text(DATA["multi-class"])
    bare.write_text("text\n" + "".join(f"word{i % 3} other {i}\n" for i in range(300)))
    first, system = system_of("early-exit"), system_of("self-exit")
    plan = plan_for(
        first,
        seed=0,
        recipe=FAST,
        model=str(tiny_checkpoint),
        data=str(labelled),
        promise=FIVE,
    )
    compress(plan, first, tmp_path / "dense", say=lambda _: None, quiet=True)
    plan = plan_for(
        system,
        seed=0,
        recipe=FAST,
        model=str(tmp_path / "dense"),
        data=str(bare),
        promise=FIVE,
    )
    outcome = compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
    assert outcome.calibration.asked.loss == "disagreement"
    assert outcome.results[0].value == 1.0


def test_splits_share_no_text(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    lines = [f"text {i // 3},{i % 2}" for i in range(900)]
    path.write_text("text,label\n" + "\n".join(lines))
    other = tmp_path / "test.csv"
    other.write_text("text,label\ntext 7,0\ntext 8,1\n")
    system = system_of("early-exit")
    plan = plan_for(system, seed=1, recipe={}, model="x", data=str(path), test_data=str(other))
    parts = read_splits(plan)
    keys = [{row_key(text) for text in table.texts} for table in parts.values()]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert len(parts["test"]) == 2
