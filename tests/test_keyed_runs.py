"""Runs of benchmarks are made once, under a key of what decides them, and none is ever lost."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """`keyed`, `results` and `paired`, with folders of their own."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = [importlib.import_module(name) for name in ("keyed", "results", "paired")]
    for module in found[:2]:
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(found[0], "CACHE", tmp_path / "cache")
    (tmp_path / "results").mkdir()
    return found


def ledger(keyed, epochs: float, name: str = "trial"):
    def decided_by(about: dict) -> dict | None:
        return None if about["variant"] == "gone" else {"epochs": epochs}

    def summary(runs: list) -> dict:
        return {"values": [run["value"] for run in runs]}

    return keyed.Ledger(name, ("task", "variant"), {"epochs": epochs}, decided_by, summary)


def content(results) -> dict:
    return json.loads((results.RESULTS / "trial.json").read_text())


def test_other_settings_are_made_anew_and_lose_nothing(modules) -> None:
    keyed, results, _ = modules
    wanted = [{"task": "trec", "variant": "W1A32"}, {"task": "trec", "variant": "W1A1"}]
    made = []

    def make(about: dict) -> dict:
        made.append(about)
        return {"value": len(made)}

    ledger(keyed, 0.1).once(wanted, make)
    ledger(keyed, 0.1).once(wanted, make)
    assert len(made) == 2, "what is there is not made again"
    ledger(keyed, 5.0).once(wanted[:1], make)
    assert len(made) == 3, "other epochs are another run"
    found = content(results)
    assert [run["value"] for run in found["runs"]] == [1, 2, 3]
    assert (found["summary"], found["stale"]) == ({"values": [3]}, 2)
    ledger(keyed, 0.1).sum_up()
    assert content(results)["summary"] == {"values": [1, 2]}
    assert len(content(results)["runs"]) == 3


def test_runs_of_variants_that_are_gone_stay_in_the_file(modules) -> None:
    keyed, results, _ = modules
    own = ledger(keyed, 1.0)
    own.add({"task": "trec", "variant": "W1A8"}, {"value": 7})
    found = content(results)
    found["runs"][0]["variant"] = "gone"
    (results.RESULTS / "trial.json").write_text(json.dumps(found))
    own.add({"task": "trec", "variant": "W1A32"}, {"value": 8})
    assert [run["value"] for run in content(results)["runs"]] == [7, 8]
    assert content(results)["summary"] == {"values": [8]}


def test_a_run_is_kept_even_where_the_summary_fails(modules) -> None:
    keyed, results, _ = modules
    with pytest.raises(KeyError):
        ledger(keyed, 1.0).once([{"task": "trec", "variant": "W1A32"}], lambda about: {"worth": 1})
    assert [run["worth"] for run in content(results)["runs"]] == [1]


def test_changes_from_the_command_line_have_a_file_of_their_own(modules) -> None:
    keyed, _, _ = modules
    assert keyed.named("bits", {}) == "bits"
    names = {keyed.named("bits", {"epochs": epochs}) for epochs in (0.1, 5.0)}
    assert len(names) == 2
    assert "bits" not in names


HOLD = """import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print(flush=True)
    input()
"""


def test_a_run_that_another_process_makes_is_left_for_the_end(modules) -> None:
    keyed, _, _ = modules
    own, wanted = ledger(keyed, 1.0), [{"task": "trec", "variant": each} for each in ("first", "second")]
    lock = keyed.CACHE / "locks" / f"trial-{own.key(wanted[0])}.lock"
    lock.parent.mkdir(parents=True)
    made = []

    def make(about: dict) -> dict:
        made.append(about["variant"])
        if other.poll() is None:
            other.communicate(b"\n")
        return {"value": 0}

    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline()
        own.once(wanted, make)
    assert made == ["second", "first"]


def test_a_results_file_of_other_settings_is_kept_aside(modules) -> None:
    _, results, _ = modules
    results.add_run("old", {"a": 1}, {"value": 1}, lambda runs: {"runs": len(runs)})
    results.add_run("old", {"a": 1}, {"value": 2}, lambda runs: {"runs": len(runs)})
    before = (results.RESULTS / "old.json").read_bytes()
    assert [run["value"] for run in results.kept("old", {"a": 1})] == [1, 2]
    assert results.kept("old", {"a": 2}) == []
    results.add_run("old", {"a": 2}, {"value": 3}, lambda runs: {"runs": len(runs)})
    aside = list(results.RESULTS.glob("old-*.json"))
    assert [path.read_bytes() for path in aside] == [before]
    assert [run["value"] for run in results.kept("old", {"a": 2})] == [3]


def test_a_difference_has_an_error_over_rows_and_over_seeds(modules) -> None:
    paired = modules[2]
    random = np.random.default_rng(0)
    ours, others = random.random((3, 200)) < 0.9, random.random((3, 200)) < 0.8
    ours[1] &= random.random(200) < 0.7
    packed = [[[paired.packed_right(row)] for row in each] for each in (ours, others)]
    found = paired.difference(*packed, 200)
    each = ours.astype(float) - others
    assert found["mean"] == pytest.approx(each.mean())
    assert found["se"] == pytest.approx(each.mean(0).std(ddof=1) / 200**0.5)
    assert found["sd"] == pytest.approx(each.mean(1).std(ddof=1))
    assert found["error"] == pytest.approx((found["se"] ** 2 + found["sd"] ** 2 / 3) ** 0.5)
    one = paired.difference(packed[0][:1], packed[1][:1], 200)
    assert one["sd"] is None
    assert one["error"] == one["se"]
    both = paired.difference([packed[0][0] + packed[0][1]], [packed[1][0] + packed[1][1]], 200)
    assert both["mean"] == pytest.approx(each[:2].mean())


def test_a_run_is_a_line_of_its_file(modules):
    _, results, _ = modules
    runs = [{"task": "a", "exits": [0.1, 0.2]}, {"task": 'b "runs": []', "exits": []}]
    said = {"summary": {"runs": [], "value": 1}, "runs": runs, "after": None}
    for content in (said, said | {"runs": []}, {"lines": [1]}):
        assert json.loads(results.as_text(content)) == content
    assert sum('"task"' in line for line in results.as_text(said).splitlines()) == 2
