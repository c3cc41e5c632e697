"""The commands, run in process on a tiny model: JSON keys, exit codes, one-line errors, resumable work."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import run

import lessen


def test_compress_makes_a_folder_whose_figures_repeat(small: Path, data: Path) -> None:
    assert {p.name for p in small.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "plan.json",
        "training.json",
    }
    assert not small.with_name("small.work").exists()
    plan = json.loads((small / "plan.json").read_text())
    assert plan["promise"]["bounds"] == [0.2, 0.1]
    record = json.loads((small / "training.json").read_text())
    assert sum(record["rows"].values()) == 400
    code, out, _ = run("evaluate", small, "--data", data, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["n"] == 400
    assert {"name", "metric", "value", "mean_layers", "layers", "macs_ratio"} <= answer["points"][0].keys()
    assert [point["name"] for point in answer["points"]] == ["full", "drop-20%", "drop-10%"]
    assert answer["points"][0]["macs_ratio"] == 1.0
    assert answer["points"][0]["value"] > 0.9


def test_a_plan_replays_to_the_same_model(small: Path, tmp_path: Path) -> None:
    code, out, _ = run("compress", "--plan", small / "plan.json", "--out", tmp_path / "again", "--json")
    assert code == 0
    assert json.loads(out)["points"] == json.loads((small / "training.json").read_text())["test"]
    first, second = (lessen.load(folder).state_dict() for folder in (small, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_calibrate_with_kept_answers_and_on_new_rows(small: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    code, out, err = run("calibrate", folder, "--max-drop", "15%", "--resplits", 20, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert {"certified", "epsilon", "delta", "n", "loss", "points", "violations", "violations_plug_in"} <= (
        answer.keys()
    )
    assert answer["certified"]
    assert answer["points"][0]["name"] == "drop-15%"
    assert list(lessen.load(folder).points) == ["full", "drop-15%"]
    code, out, _ = run("calibrate", folder, "--max-drop", "15%")
    assert code == 0
    assert "90% confidence" in out
    code, out, err = run("calibrate", folder, "--data", data, "--max-drop", "15%", "--json")
    assert code == 0
    assert json.loads(out)["n"] == 100
    assert "300 rows were left out" in err
    before = (folder / "certificate.json").read_bytes()
    for rule in ("certified", "plug-in"):
        code, out, _ = run("calibrate", folder, "--max-drop", "0.1%", "--rule", rule, "--json")
        assert code == 0
        answer = json.loads(out)
        assert not answer["certified"]
        assert answer["earlier"]
        assert (folder / "certificate.json").read_bytes() == before, "a failure takes nothing away"
        assert lessen.load(folder).point.name == "drop-15%"
        assert lessen.load(folder).point.promise.kind == "certified"
    code, out, _ = run("calibrate", folder, "--max-drop", "0.1%")
    assert "the certificate of before stays" in out
    (folder / "certificate.json").unlink()
    code, out, _ = run("calibrate", folder, "--max-drop", "0.1%", "--json")
    assert code == 0
    assert json.loads(out)["reasons"]["0.1%"]
    assert lessen.load(folder).point.name == "full"


def test_the_first_bound_is_the_defaults(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    code, out, _ = run("calibrate", folder, "--max-drop", "0.1%", "--max-drop", "20%", "--json")
    assert code == 0
    answer = json.loads(out)
    assert not answer["certified"]
    assert [point["name"] for point in answer["points"]] == ["drop-20%"]
    assert lessen.load(folder).point.name == "full", "a bolder bound is not what was asked for first"
    assert lessen.load(folder).points["drop-20%"].promise.kind == "certified"


def test_unfinished_work_of_another_plan_is_not_mixed_in(
    tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    work = tmp_path / "m.work"
    work.mkdir()
    (work / "plan.json").write_text("{}")
    code, _, err = run("compress", tiny_checkpoint, "--data", data, "--out", tmp_path / "m")
    assert code == 2
    assert "holds the unfinished work of another plan" in err


def test_unfinished_work_from_before_a_field_was_known_goes_on(
    tiny_checkpoint: Path, data: Path, tmp_path: Path, monkeypatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    options = ("compress", tiny_checkpoint, "--data", data, "--out", tmp_path / "m", "--epochs", "1")
    with monkeypatch.context() as patch:
        patch.setattr("lessen.systems.pipeline.fine_tune", stopped)
        assert run(*options)[0] == 130
    place = tmp_path / "m.work" / "plan.json"
    plan = json.loads(place.read_text())
    del plan["stages"][0]["rates"]
    place.write_text(json.dumps(plan))
    code, _, err = run(*options)
    assert code == 0, err


def test_unfinished_work_on_other_rows_is_refused(
    tiny_checkpoint: Path, data: Path, tmp_path: Path, monkeypatch
) -> None:
    """Rows drawn anew would be certified by a model that has learned them."""

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    rows = tmp_path / "rows.csv"
    rows.write_bytes(data.read_bytes())
    options = ("compress", tiny_checkpoint, "--data", rows, "--out", tmp_path / "m", "--epochs", "1")
    with monkeypatch.context() as patch:
        patch.setattr("lessen.systems.pipeline.fine_tune", stopped)
        assert run(*options)[0] == 130
    head, *lines = data.read_text().splitlines()
    rows.write_text("\n".join([head, *reversed(lines)]) + "\n")
    code, _, err = run(*options)
    assert code == 2
    assert "m.work holds unfinished work on what has changed since (rows: " in err
    assert (tmp_path / "m.work" / "plan.json").exists()


def test_a_run_that_is_refused_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    code, _, err = run("compress", tmp_path / "nowhere", "--data", data, "--out", tmp_path / "m")
    assert code == 2
    assert "no such model folder" in err
    assert not list(tmp_path.iterdir())


def test_predict(small: Path, tmp_path: Path) -> None:
    code, out, _ = run("predict", small, "good fine film", "--json")
    assert code == 0
    found = json.loads(out)
    said = found["predictions"]
    assert {"text", "label", "probability", "layers", "tokens", "truncated"} <= said[0].keys()
    assert found["certified"]
    assert f"point {found['point']!r} keeps this" in found["promise"]
    lines = tmp_path / "texts.txt"
    lines.write_text("good fine film\nbad dull film\n")
    code, out, _ = run("predict", small, "--file", lines, "--point", "full")
    assert code == 0
    assert out.startswith("at point 'full': the whole model\n")
    assert len(out.strip().splitlines()) == 4


def test_predict_by_a_wish_says_what_is_promised(small: Path, data: Path) -> None:
    code, out, _ = run("predict", small, "--data", data, "--max-drop", "15%", "--json")
    assert code == 0
    found = json.loads(out)
    assert (len(found["predictions"]), found["point"], found["certified"]) == (400, "drop-10%", True)
    code, out, err = run("predict", small, "a film", "--max-drop", "1%")
    assert code == 0
    assert "no point is certified to lose at most 1%; every row goes through all layers" in err
    assert "at point 'full'" in out
    code, out, _ = run("predict", small, "a film", "--latency-ms", 1e4)
    assert code == 0
    assert "at point 'full'" in out
    speed = lessen.load(small).dial(speedup=1.4).point
    code, out, _ = run("predict", small, "a film", "--speedup", 1.4, "--json")
    assert code == 0
    assert json.loads(out)["certified"] == (speed.promise.kind == "certified")


UNREADABLE = {
    "empty": (["a film", " "], "", "text 2 is empty"),
    "blank line": (["--file", "FILE"], "a film\n\nanother\n", "FILE, line 2: there is no text"),
    "half a pair": (["--file", "FILE"], "a\tb\na film\t\n", "FILE, line 2: there is no text on one side"),
    "three": (["--file", "FILE"], "a\tb\tc\n", "FILE, line 1: 2 tabs; one parts the two of a pair"),
    "empty pair": (["a", "--pair", ""], "", "--pair 1 is empty"),
    "pairs": (["--file", "FILE"], "a film\tanother\n", "trained on single texts, and these are pairs"),
    "a pair": (["a", "--pair", "b"], "", "trained on single texts, and these are pairs"),
    "both": (["a film", "--file", "FILE"], "a film\tanother\n", "some of these are pairs of texts"),
    "columns of nothing": (["a film", "--text-column", "text"], "", "say how to read --data"),
    "wishes": (["a", "--speedup", "2", "--max-drop", "1%"], "", "give --speedup or --max-drop, not both"),
    "share": (["a", "--max-drop", "2"], "", "must be at least 0 and below 100%"),
    "time": (["a", "--latency-ms", "-1"], "", "latency_ms -1.0: must be a number of at least 0"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_answered_is_named(case: str, small: Path, tmp_path: Path) -> None:
    arguments, content, problem = UNREADABLE[case]
    place = tmp_path / "texts.txt"
    place.write_text(content)
    code, out, err = run("predict", small, *(str(place) if each == "FILE" else each for each in arguments))
    assert (code, out) == (2, "")
    assert problem.replace("FILE", str(place)) in err


def test_long_text_is_cut_or_refused(small: Path) -> None:
    code, out, _ = run("predict", small, "word " * 100, "--json")
    assert code == 0
    assert json.loads(out)["predictions"][0]["truncated"]
    code, _, err = run("predict", small, "word " * 100, "--strict")
    assert code == 2
    assert "text 1 has 102 tokens, the model takes 66" in err


def test_inspect(small: Path, tiny_checkpoint: Path) -> None:
    code, out, _ = run("inspect", small, "--json")
    assert code == 0
    facts = json.loads(out)
    assert {"parameters", "bytes", "macs", "layers"} <= facts.keys()
    assert facts["layers"][0] == {
        "heads": 4,
        "ffn": 64,
        "keep": 1.0,
        "bits": 32,
        "activation_bits": 32,
        "exit": True,
    }
    model = lessen.load(small)
    assert facts["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert facts["bytes"] == (small / "model.safetensors").stat().st_size
    assert run("inspect", tiny_checkpoint)[0] == 0


def test_bench(small: Path, data: Path) -> None:
    code, out, _ = run(
        "bench", small, "--data", data, "--against", "torch", "--batch", "1,4", "--rows", 8,
        "--seconds", 0.2, "--threads", 1, "--json",
    )  # fmt: skip
    assert code == 0
    answer = json.loads(out)
    assert answer["threads"] == 1
    assert answer["machine"]
    assert {"kind", "name", "batch", "length", "ms", "value"} <= answer["rows"][0].keys()
    assert {row["kind"] for row in answer["rows"]} == {"lessen", "lessen-bf16", "torch"}
    assert {row["batch"] for row in answer["rows"]} == {1, 4}
    assert all(row["value"] is not None and row["ms"] > 0 for row in answer["rows"])
    code, out, err = run(
        "bench", small, "--data", data, "--against", "none", "--batch", "4", "--rows", 10_000,
        "--seconds", 0.2, "--precision", "float32", "--json",
    )  # fmt: skip
    assert code == 0
    assert "rows are new to the model; the quality column stays empty" in err
    assert {row["value"] for row in json.loads(out)["rows"]} == {None}


BAD_INPUT = {
    "no such file": ("text,label\na,b\n", ["--data", "nowhere.csv"], "nowhere.csv: there is no such file"),
    "no such column": ("txt,label\na,b\n", [], "no text column"),
    "empty text": ("text,label\na,x\n,y\n", [], "row 2"),
    "one class": ("text,label\na,x\nb,x\n", [], "at least two classes"),
    "nan": ("text,label\na,0.5\nb,nan\n", ["--task", "regression"], "row 2"),
    "too few": ("text,label\na,x\nb,y\nc,x\nd,y\n", [], "rows are too few"),
    "bad share": ("text,label\na,x\nb,y\n", ["--max-drop", "abc"], "--max-drop abc: expected a share"),
    "too large share": ("text,label\na,x\nb,y\n", ["--max-drop", "100%"], "below 100%"),
    "unknown system": (
        "text,label\na,x\nb,y\n",
        ["--system", "magic"],
        "no system 'magic'; there is",
    ),
    "unknown objective": ("text,label\na,x\nb,y\n", ["--objective", "magic"], "unknown objective 'magic'"),
    "unknown criterion": (
        "text,label\na,x\nb,y\n",
        ["--criterion", "magic"],
        "unknown exit criterion 'magic'",
    ),
    "exit beyond the model": ("text,label\na,x\nb,y\n", ["--exits", "1,9"], "the model has layers 1 to 3"),
    "criterion of another task": (
        "text,label\n" + "".join(f"a{i},{i % 2}\n" for i in range(300)),
        ["--criterion", "regression_patience"],
        "does not fit single_label_classification",
    ),
    "the same bound twice": (
        "text,label\na,x\nb,y\n",
        ["--max-drop", "1%", "--max-drop", "0.01"],
        "the same bound is given twice",
    ),
    "no epochs": ("text,label\na,x\nb,y\n", ["--epochs", "0"], "--epochs 0: should be greater"),
    "no learning": ("text,label\na,x\nb,y\n", ["--learning-rate", "0"], "--learning-rate 0: should be"),
    "negative seed": ("text,label\na,x\nb,y\n", ["--seed", "-1"], "--seed"),
    "no early exit": (
        "text,label\n" + "".join(f"a{i},{i % 2}\n" for i in range(300)),
        ["--system", "deebert", "--exits", "3"],
        "trains exits before the last layer",
    ),
    "confidence": ("text,label\na,x\nb,y\n", ["--confidence", "0%"], "--confidence 0%"),
    "loss": ("text,label\na,x\nb,y\n", ["--loss", "magic"], "--loss magic: choose drop"),
    "unknown option": ("text,label\na,x\nb,y\n", ["--wat"], "--wat"),
}


@pytest.mark.parametrize("kind", BAD_INPUT)
def test_bad_input_gets_one_clear_line(tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    content, options, message = BAD_INPUT[kind]
    path = tmp_path / "d.csv"
    path.write_text(content)
    given = options if "--data" in options else ["--data", str(path), *options]
    code, out, err = run("compress", tiny_checkpoint, *given, "--out", tmp_path / "m")
    said = err.strip().splitlines()
    assert code == 2, err
    assert out == ""
    assert message in said[-1]
    assert said[-1].startswith("lessen: ")
    assert not (tmp_path / "m").exists()


def test_labels_unseen_in_training_are_named(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("text,label\na,pos\nb,meh\n")
    code, _, err = run("evaluate", small, "--data", path)
    assert code == 2
    assert "row 2: the model was not trained on label 'meh'; it knows neg, pos" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "builtin:minilm-l6", "--data", "builtin:trec"], "has no classifier to evaluate"),
        (["predict", "builtin:minilm-l6", "hi"], "has no classifier"),
        (["predict"], "Missing argument"),
        (["nonsense"], "No such command"),
    ],
)
def test_bad_usage(arguments: list[str], message: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("evaluate", "--new-tokens"), ("evaluate", "--prompts"), ("bench", "--prompt-tokens"),
        ("report", "--prompts"), ("calibrate", "--block"),
    ],
)  # fmt: skip
def test_options_of_generators_are_refused(small: Path, data: Path, command: str, option: str) -> None:
    code, _, err = run(command, small, "--data", data, option, 30)
    assert code == 2
    assert f"{option} is for models that" in err


def test_unknown_point_and_nothing_to_predict(small: Path) -> None:
    code, _, err = run("predict", small, "hi", "--point", "fastest")
    assert code == 2
    assert "no point named 'fastest'; this model has full, drop-20%, drop-10%" in err
    code, _, err = run("predict", small)
    assert code == 2
    assert "nothing to predict" in err


def test_audit_on_newer_rows(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    newer = tmp_path / "newer.csv"
    newer.write_text("text,label\n" + "".join(f"a great story told {i},pos\n" for i in range(60)))
    code, out, err = run("calibrate", folder, "--audit", "--data", newer, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert {"verdict", "confidence", "rows", "labelled", "new", "dropped", "points"} <= answer.keys()
    assert answer["rows"] == 60
    before = (folder / "certificate.json").read_bytes()
    code, out, err = run("calibrate", folder, "--audit", "--data", newer)
    assert code == 0
    assert "60 newer rows audited so far" in out
    assert "Point 'drop-20%'" in out
    assert "60 rows were left out" in err
    assert (folder / "certificate.json").read_bytes() == before
    for extra in (
        ["--max-drop", "1%"],
        ["--resplits", "5"],
        ["--rule", "plug-in"],
        ["--loss", "selective"],
        ["--confidence", "99%"],
        ["--precision", "bfloat16"],
        ["--seed", "1"],
    ):
        code, _, err = run("calibrate", folder, "--audit", "--data", newer, *extra)
        assert code == 2
        assert extra[0] in err
    code, _, err = run("calibrate", folder, "--audit")
    assert code == 2
    assert "--audit needs newer rows" in err


def test_calibrations_on_the_same_rows_are_counted(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    code, out, _ = run("calibrate", folder, "--max-drop", "15%")
    assert code == 0
    assert "This is calibration 2 on these rows" in out
    code, out, _ = run("calibrate", folder, "--max-drop", "15%", "--json")
    assert json.loads(out)["attempt"] == 3
    assert json.loads((folder / "certificate.json").read_text())["attempt"] == 3
