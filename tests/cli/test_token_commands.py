"""The commands where tokens leave: compress, bench --speedups --fit, predict --explain."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run
from transformers import AutoModel

import lessen
from lessen.artefact import read_config
from lessen.cli.inspect import _rule
from lessen.errors import PlanError
from lessen.machine import processor
from lessen.plan import FULL, ExitRule, Point, Promise
from lessen.tokens.elimination import left_after_layers


def test_compress_leaves_a_profile_and_one_path(adjustable: Path) -> None:
    config = read_config(adjustable)
    profile = config["profile"]
    assert profile["family"] == "acc"
    assert profile["trained_at"] == 1.8
    assert len(profile["base"]) == 3
    plan = json.loads((adjustable / "plan.json").read_text())
    assert [stage["speedup"] for stage in plan["stages"]] == [1.0, 1.8]
    record = json.loads((adjustable / "training.json").read_text())
    assert len(record["training"]) == 2


def test_predict_explains(adjustable: Path) -> None:
    text = "good fine film number 7 and many other words"
    code, out, _ = run("predict", adjustable, text, "--speedup", 1.8, "--explain", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["point"] == "speedup-1.8x"
    (row,) = found["predictions"]
    read = row["read"]
    assert [each["token"] for each in read][:3] == ["[CLS]", "good", "fine"]
    assert read[0]["layers"] == row["layers"] == 3
    assert len(read) == row["tokens"]
    assert min(each["layers"] for each in read) < 3
    code, out, _ = run("predict", adjustable, text, "--speedup", 1.8, "--explain")
    assert code == 0
    assert "[CLS]₃ good" in out
    assert out.count("those that left on the way still count") == 1
    code, out, _ = run("predict", adjustable, text, "--point", "full", "--explain")
    assert "[CLS]₃ good₃" in out
    assert "still count" not in out, "none left"
    code, out, _ = run("predict", adjustable, text, "--point", "full", "--explain", "--json")
    assert {each["layers"] for each in json.loads(out)["predictions"][0]["read"]} == {3}


def test_bench_at_speedups_predicts_what_it_measures(adjustable: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(adjustable, folder)
    code, out, err = run(
        "bench", folder, "--data", data, "--speedups", "1,1.5", "--fit", "--against", "torch",
        "--batch", "1,4", "--rows", 8, "--seconds", 0.2, "--precision", "float32", "--json",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    ours = [row for row in found["rows"] if row["kind"] == "lessen"]
    assert {(row["speedup"], row["batch"]) for row in ours} == {(1.0, 1), (1.5, 1), (1.0, 4), (1.5, 4)}
    assert set(ours[0]) == {
        "kind", "speedup", "predicted_ms", "fit_error", "ms", "macs_ratio", "value", "batch", "length",
    }  # fmt: skip
    for row in ours:
        assert row["predicted_ms"] > 0
        assert row["fit_error"] >= 0
        assert row["macs_ratio"] >= row["speedup"] - 0.2
    assert [row["kind"] for row in found["rows"] if row["speedup"] is None] == ["torch", "torch"]
    assert [fit["batch"] for fit in json.loads(run("inspect", folder, "--json")[1])["retention"]["fits"]] == [
        1,
        4,
    ]
    model = lessen.load(folder)
    assert model.dial(latency_ms=1000).point.name == "full"
    (folder / "latency.json").write_text('{"version": 1, "fits"')
    code, out, _ = run(
        "bench", folder, "--data", data, "--speedups", "1", "--fit", "--against", "none", "--batch", "1",
        "--rows", 4, "--seconds", 0.1, "--precision", "float32",
    )  # fmt: skip
    assert code == 0, "a damaged fit is replaced"
    assert "predicted" in out


def test_what_compress_and_inspect_say_of_tokens(adjustable: Path) -> None:
    code, out, _ = run("inspect", adjustable)
    assert code == 0
    most = json.loads(run("inspect", adjustable, "--json")[1])["retention"]["most"]
    assert (
        f"tokens may leave by mean (profile acc, trained for up to 1.8x): dial any speed-up up to {most:.2f}x"
        in out
    )
    lessen.load(adjustable).dial(speedup=most)
    record = json.loads((adjustable / "training.json").read_text())
    assert "speedup-1.8x" in [result["name"] for result in record["test"]]


def test_quality_at_speedups(adjustable: Path, data: Path) -> None:
    code, out, err = run("evaluate", adjustable, "--data", data, "--speedups", "1,1.5", "--json")
    assert code == 0, err
    points = json.loads(out)["points"]
    assert [point["name"] for point in points] == ["full", "speedup-1.5x"]
    assert points[1]["macs_ratio"] > 1.3


def test_a_fit_that_missed_by_much_is_not_used_in_silence(adjustable: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(adjustable, folder)
    model = lessen.load(folder)
    fit = {"threads": torch.get_num_threads(), "precision": "float32", "batch": 1, "error": 0.14}
    known = {"processor": processor(), "date": "2026-01-01", "fits": [fit | {"factors": [0, 0, 0, 0, 1, 1]}]}
    (folder / "latency.json").write_text(json.dumps(known))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.dial(speedup=1.5, by="latency")
    known["fits"][0]["error"] = 0.48
    (folder / "latency.json").write_text(json.dumps(known))
    with pytest.warns(UserWarning, match="may be off by 48 %; run lessen bench --fit again"):
        model.dial(speedup=1.5, by="latency")


def compressed(tiny_checkpoint: Path, data: Path, out: Path, *options: object) -> dict:
    """Trained a little with tokens leaving; its config."""
    code, _, err = run(
        "compress", tiny_checkpoint, "--data", data, "--out", out, "--system", "latency-adjustable",
        "--epochs", 0.2, "--max-drop", "30%", *options,
    )  # fmt: skip
    assert code == 0, err
    return read_config(out)


def test_shares_that_are_given_are_trained_as_they_are(
    tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    shares = (0.8, 0.6, 0.4)
    given = ("--retention", ",".join(map(str, shares)))
    profile = compressed(tiny_checkpoint, data, tmp_path / "given", *given)["profile"]
    point = lessen.load(tmp_path / "given").dial(speedup=profile["trained_at"]).point
    for length in profile["lengths"]:
        assert left_after_layers(point.retention, length) == left_after_layers(shares, length)
    scaled = compressed(tiny_checkpoint, data, tmp_path / "scaled", *given, "--speedup", 1.2)["profile"]
    assert scaled["trained_at"] == 1.2
    assert profile["trained_at"] > 1.2


def test_the_papers_way(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """As the system's docstring says: one head that reads [CLS], one retention, an envelope."""
    config = compressed(
        tiny_checkpoint, data, tmp_path / "out", "--exits", 3, "--pool", "cls", "--objective", "last",
        "--rates", "one", "--retention", "envelope",
    )  # fmt: skip
    assert config["profile"]["family"] == "envelope"
    (exit,) = lessen.load(tmp_path / "out").config.form().exits
    assert (exit.layer, exit.pool) == (3, "cls")


def test_states_of_all_tokens_of_a_trained_folder(adjustable: Path) -> None:
    """Through the Auto class: a token that left keeps the last state it had."""
    model = AutoModel.from_pretrained(adjustable)
    ids = torch.tensor([[2, *range(5, 25), 3]])
    whole = model(ids).last_hidden_state
    some = model.dial(speedup=1.8)(ids).last_hidden_state
    assert some.shape == whole.shape == (1, 22, model.config.facts().hidden_size)
    assert some.isfinite().all()
    assert not torch.allclose(some, whole, atol=1e-3)


RETENTION = (0.5, 0.125, 0.004)
RULES = {
    "tokens": (
        Point(name="x", retention=RETENTION),
        "every layer, keeps 50%, 12%, <1% of the tokens, by mean",
    ),
    "both": (
        Point(
            name="x",
            exits=ExitRule(criterion="margin", threshold=0.5),
            retention=RETENTION,
            token_score="cumulative",
            promise=Promise(kind="certified", epsilon=0.02, certificate="c"),
        ),
        "margin threshold 0.5, keeps 50%, 12%, <1% of the tokens, by cumulative (certified, max drop 0.02)",
    ),
    "dialled": (
        Point(name="x", retention=(0.9,) * 12, promise=Promise(rule="dial")),
        "every layer, keeps 90%, 90%, 90%, ..., 90%, 90%, 90% of the tokens, by mean",
    ),
    "exits": (Point(name="x", exits=ExitRule(criterion="margin", threshold=0.5)), "margin threshold 0.5"),
    "full": (FULL, "every layer"),
}


@pytest.mark.parametrize("kind", RULES)
def test_a_rule_says_which_tokens_leave(kind: str) -> None:
    point, said = RULES[kind]
    assert _rule(point) == said


def test_inspect_says_of_every_point_how_tokens_leave(adjustable: Path) -> None:
    code, out, _ = run("inspect", adjustable, "--json")
    assert code == 0
    points = lessen.load(adjustable).points
    assert any(point.retention for point in points.values())
    for said in json.loads(out)["points"]:
        point = points[said["name"]]
        assert said["retention"] == (None if point.retention is None else list(point.retention))
        assert said["token_score"] == (None if point.retention is None else point.token_score or "mean")


WISHES = {
    "nothing": {},
    "two": {"speedup": 2.0, "max_drop": 0.1},
    "undefined": {"speedup": float("nan")},
    "endless": {"latency_ms": float("inf")},
    "slower": {"speedup": 0.5},
    "negative": {"max_drop": -0.1},
    "text": {"speedup": "2"},
    "true": {"speedup": True},
    "no row": {"latency_ms": 1.0, "tokens": -3},
    "tokens for nothing": {"speedup": 2.0, "tokens": 5},
}


@pytest.mark.parametrize("kind", WISHES)
def test_the_dial_refuses_what_cannot_be_meant(kind: str, adjustable: Path) -> None:
    model = lessen.load(adjustable)
    before = model.dial(speedup=np.float32(1.5)).point
    with pytest.raises(PlanError, match=r"dial takes one|must be a number|for latency_ms only"):
        model.dial(**WISHES[kind])
    assert model.point == before


BAD = {
    "no profile": (["bench", "SMALL", "--speedups", "2"], "--system latency-adjustable"),
    "nonsense": (["bench", "FAST", "--speedups", "2,x"], "expected numbers of at least 1"),
    "below one": (["bench", "FAST", "--speedups", "0.5"], "expected numbers of at least 1"),
    "not a number": (["bench", "FAST", "--speedups", "nan"], "expected numbers of at least 1"),
    "undefined": (["predict", "FAST", "x", "--speedup", "nan"], "must be a number of at least 1"),
    "slower than whole": (["predict", "FAST", "x", "--speedup", "0.3"], "must be a number of at least 1"),
    "beyond the cap": (["bench", "FAST", "--speedups", "500"], "at most on rows of 6 to 8 tokens, not 500"),
    "twice": (["bench", "FAST", "--speedups", "2,2.0000001"], "two of them are the same"),
    "quality, no profile": (["evaluate", "SMALL", "--data", "DATA", "--speedups", "2"], "latency-adjustable"),
    "quality, both": (
        ["evaluate", "FAST", "--data", "DATA", "--speedups", "2", "--point", "full"],
        "not both",
    ),
    "quality of documents": (["evaluate", "FAST", "--data", "DATA", "--new-tokens", "3"], "is a classifier"),
    "answers to nothing": (["evaluate", "FAST", "--data", "DATA", "--answers", "no,yes"], "--prompt"),
    "both": (["bench", "FAST", "--speedups", "2", "--point", "full"], "not both"),
    "fit nowhere": (["bench", "builtin:minilm-l6", "--fit"], "has no classifier"),
    "two wishes": (["predict", "FAST", "x", "--point", "full", "--speedup", "2"], "not both"),
    "too fast": (["predict", "FAST", "x", "--speedup", "900"], "at most on rows of 6 to 8 tokens"),
    "no tokens": (["compress", "CHECK", "--data", "DATA", "--speedup", "2"], "use the system latency-adj"),
    "no profile to choose": (
        ["compress", "CHECK", "--data", "DATA", "--retention", "tilt"],
        "use the system latency-adj",
    ),
    "slower": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--speedup", "0.5"],
        "--speedup 0.5: no token would leave",
    ),
    "out of reach": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--speedup", "70"],
        "at most on rows of 6 to 8 tokens, not 70",
    ),
    "nothing leaves": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--speedup", "1"],
        "no token would leave",
    ),
    "all stay": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--retention", "1,1,1"],
        "no token would leave",
    ),
    "family": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--retention", "cubic"],
        "choose acc, envelope, geometric, tilt",
    ),
    "rising": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--retention", ".5,.9,.1"],
        "none above the one before",
    ),
    "too short": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--retention", "0.5,0.4"],
        "2 shares for a model of 3 layers",
    ),
    "no share": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--retention", "1,nan,0"],
        "--retention 1,nan,0: expected shares",
    ),
    "undefined ratio": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--speedup", "nan"],
        "--speedup nan",
    ),
    "nothing to imitate": (
        ["compress", "CHECK", "--data", "DATA", "--objective", "self_supervised"],
        "use the system self-exit",
    ),
    "score": (
        ["compress", "CHECK", "--data", "DATA", "--system", "latency-adjustable", "--token-score", "loud"],
        "--token-score loud: choose mean",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_gets_one_clear_line(
    kind: str, small: Path, adjustable: Path, tiny_checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    places = {"SMALL": small, "FAST": adjustable, "CHECK": tiny_checkpoint, "DATA": data}
    arguments, message = BAD[kind]
    given = [places.get(each, each) for each in arguments]
    if given[0] == "compress":
        given += ["--out", tmp_path / "out"]
    code, _, err = run(*given)
    assert code == 2
    last = [line for line in err.strip().splitlines() if line.startswith("lessen: ")]
    assert len(last) == 1, err
    assert message in last[0]
    assert not list(tmp_path.iterdir()), "refused before any work"
