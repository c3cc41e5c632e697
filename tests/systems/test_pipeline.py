"""Tasks of every kind through the pipeline, and splits that share no text."""

from pathlib import Path

import pytest
import torch

import lessen
from lessen.data.table import row_key
from lessen.errors import ArtefactError, InputError, PlanError
from lessen.promise.settle import Asked
from lessen.systems import SYSTEMS, pipeline, rounds, system_of
from lessen.systems.dividing import read_splits
from lessen.systems.pipeline import compress
from lessen.systems.planning import plan_for
from lessen.train.fine_tuning import fine_tune
from lessen.train.trainer import Diverged

FIVE = Asked(bounds=(0.05,))
SIZE = {"cost-eff": {"targets": ({"width": 0.5},)}, "layer-chop": {"targets": ({"layers": 2},)}}
FAST = {"epochs": 2.0, "batch_size": 16, "learning_rate": 1e-3}
CHANGES = {"latency-adjustable": {"speedup": 1.5}, "cost-eff": {"epochs": 0.5}, "layer-chop": {"epochs": 0.5}}


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


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in ("early-exit", "latency-adjustable", "cost-eff") for kind in DATA]
    + [("layer-chop", "regression")],
)
def test_every_kind_of_task(name: str, kind: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / ("d.jsonl" if kind == "multi-label" else "d.csv")
    path.write_text(DATA[kind])
    system = system_of(name)
    recipe = FAST | CHANGES.get(name, {})
    plan = plan_for(
        system,
        seed=0,
        recipe=recipe,
        model=str(tiny_checkpoint),
        data=str(path),
        promise=FIVE,
        **SIZE.get(name, {}),
    )
    [outcome] = compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
    problem, outputs = PROBLEM[kind]
    model = lessen.load(tmp_path / "m")
    assert model.problem_type == problem
    assert model.config.num_labels == outputs
    assert "## Use" in (tmp_path / "m" / "README.md").read_text()
    text = ("left 1 x", "right 1 y") if kind == "pairs" else "word1 thing"
    assert model.predict([text])[0].layers in (1, 2, 3)
    names = [result.name for result in outcome.results]
    certified = list(model.points)
    assert names[: len(certified)] == certified
    assert set(names[len(certified) :]) <= {point.name for point in model.speeds().values()}
    if outcome.calibration.certificate is None:
        assert certified == ["full"]
        assert "would do" in outcome.calibration.reasons[0.05] or "loses" in outcome.calibration.reasons[0.05]
    else:
        promise = model.points["drop-5%"].promise
        assert promise is not None
        assert promise.kind == "certified"
        assert promise.certificate == outcome.calibration.certificate.identity


@pytest.mark.parametrize("name", sorted(SYSTEMS.keys() - {"masked-words"}))
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
    recipe = FAST | ({"epochs": 0.5} if name in SIZE else {})
    plan = plan_for(system, seed=0, recipe=recipe, model=start, data=str(path), promise=FIVE, **size)
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


def slim_plan(checkpoint: Path, folder: Path, *shares: float):
    path = folder / "d.csv"
    path.write_text(DATA["multi-class"])
    targets = tuple({"width": share} for share in shares)
    system = system_of("cost-eff")
    return system, plan_for(
        system,
        seed=0,
        recipe=FAST | {"epochs": 0.5},
        model=str(checkpoint),
        data=str(path),
        targets=targets,
        promise=FIVE,
    )


def test_several_sizes_out_of_one_run(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    system, plan = slim_plan(tiny_checkpoint, tmp_path, 0.25, 0.5)
    trainings = []

    def counts(*given, **options):
        trainings.append(given[2].objective)
        return fine_tune(*given, **options)

    monkeypatch.setattr(pipeline, "fine_tune", counts)
    monkeypatch.setattr(rounds, "fine_tune", counts)
    outcomes = compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
    assert [outcome.folder.name for outcome in outcomes] == ["width-0.5", "width-0.25"]
    half, quarter = (lessen.load(outcome.folder) for outcome in outcomes)
    assert [len(layer.heads) for layer in half.config.form().layers] == [2, 2, 2]
    assert [len(layer.heads) for layer in quarter.config.form().layers] == [1, 1, 1]
    assert trainings.count("last") == trainings.count("assistant") == 1
    assert not (tmp_path / "m.work").exists()


def test_targets_that_make_no_sense_are_refused(tiny_checkpoint, tmp_path) -> None:
    for shares, problem in (((0.5, 0.5), "two of them are the same size"), ((1.0,), "that small already")):
        system, plan = slim_plan(tiny_checkpoint, tmp_path, *shares)
        with pytest.raises(PlanError, match=problem):
            compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
    system, plan = slim_plan(tiny_checkpoint, tmp_path, 0.5, 0.25)
    lessen.load(tiny_checkpoint).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="name another one"):
        compress(plan, system, tmp_path / "model", say=lambda _: None, quiet=True)


def test_what_would_fail_in_the_end_is_said_before_training(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Texts that repeat calibrate once; and what binary weights learned by needs a folder of its own."""
    repeated = tmp_path / "repeated.csv"
    repeated.write_text("text,label\n" + "".join(f"thing {i % 30},{i % 2}\n" for i in range(900)))
    first = system_of("early-exit")
    plan = plan_for(first, seed=0, recipe=FAST, model=str(tiny_checkpoint), data=str(repeated), promise=FIVE)
    with pytest.raises(InputError, match=r"\d different texts are left to test promises on, at least 20"):
        compress(plan, first, tmp_path / "m", say=lambda _: None, quiet=True)
    assert not (tmp_path / "m.work").exists()
    (tmp_path / "m-latent").write_text("mine")
    signs = system_of("binarize")
    plan = plan_for(signs, seed=0, recipe=FAST, model=str(tiny_checkpoint), data=str(repeated), promise=FIVE)
    with pytest.raises(ArtefactError, match="m-latent is a file where a folder would go"):
        compress(plan, signs, tmp_path / "m", say=lambda _: None, quiet=True)
    assert (tmp_path / "m-latent").read_text() == "mine"


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
    [outcome] = compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
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


def test_a_training_that_diverges_says_in_which_stage(tiny_checkpoint, tmp_path) -> None:
    system, plan = slim_plan(tiny_checkpoint, tmp_path, 0.5)
    first = plan.stages[0].model_copy(update={"learning_rate": 1e30})
    plan = plan.model_copy(update={"stages": (first, *plan.stages[1:])})
    with pytest.raises(Diverged, match=r"^stage 1, last: the loss of step \d+ is nan"):
        compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)


def test_what_has_no_task_is_not_compressed(tmp_path: Path) -> None:
    system = system_of("masked-words")
    plan = plan_for(system, seed=0, recipe={}, model="builtin:beexformer-test", data="a.txt")
    with pytest.raises(InputError, match="masked-words has no task"):
        compress(plan, system, tmp_path / "m")
