"""Summaries, verdicts and tables of slender models, from made-up runs: each target met, missed, undecided."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ROWS, LAYERS = 1000, 6
FEWER = "SST-2: 8x and exits have 19 times fewer MACs"
CERTIFIED = f"{FEWER}, certified to lose at most 2 points to its own full depth"


@pytest.fixture
def made(monkeypatch):
    """`width_verdicts`, `width_tables`, `width_summary` and `paired`, which are no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("width_verdicts", "width_tables", "width_summary", "paired")
    return [importlib.import_module(name) for name in names]


def difference(mean: float, error: float = 0.002, seeds: int = 3) -> dict:
    return {"mean": mean, "se": error, "sd": 0.0, "error": error, "seeds": seeds}


def line(loss: float, above: float | None = None) -> dict:
    at = {"bound": 0.02, "certified": 2, "value": 0.8, "macs_ratios": [20.0, 19.5, 21.0]}
    return {
        "dense": 0.9,
        "loss": difference(loss),
        "above_last_only": None if above is None else difference(above),
        "certified": [at | {"bound": 0.01, "macs_ratios": [9.0, 9.0, 9.0]}, at],
        "at_fewer_macs": {"value": 0.85, "macs_ratios": [19.4] * 3, "loss": difference(0.053)},
    }


def models() -> dict:
    return {
        "calibrated 2x": line(0.001),
        "calibrated 4x": line(0.016),
        "calibrated 8x": line(0.06, 0.01),
    }


def test_every_target_is_held_against_its_figure(made) -> None:
    said = dict(made[0].width_verdicts("SST-2", models(), "builtin:minilm-l6"))
    assert said["SST-2: 2x smaller layers lose at most 0.5 points"] == "met, 0.1 ± 0.2 points lost, 3 seeds"
    assert said["SST-2: 4x smaller layers lose at most 1.5 points"].startswith("undecided, 1.6 ± 0.2")
    eight = "SST-2: 8x smaller layers lose at most 6% of the dense"
    assert said[eight].startswith("missed, 6.0 ± 0.2"), "6% of 90 are 5.4 points"
    calibrated = said["SST-2: calibrated scores above last-exit-only ones at exits 1-3"]
    assert calibrated == "met in 1 of 1 (1.0 ± 0.2 at 8x, 3 seeds)"
    certified = said[CERTIFIED]
    figures = "3 of 3 seeds (20.0, 19.5, 21.0 times fewer)"
    assert certified == f"missed, as the model itself loses 6.0 points, {figures}"
    kept = dict(made[0].width_verdicts("SST-2", {"calibrated 8x": line(0.05)}, "builtin:minilm-l6"))
    assert kept[CERTIFIED] == f"met, {figures}"
    chosen = said[f"{FEWER} and lose at most 6% of the dense"]
    assert chosen == "undecided, 5.3 ± 0.2 points lost, 3 seeds, 19.4, 19.4, 19.4 times fewer on test rows"
    models_of_fewer = models()
    models_of_fewer["calibrated 8x"]["at_fewer_macs"] |= {"macs_ratios": [15.0] * 3, "loss": difference(0.01)}
    few = dict(made[0].width_verdicts("SST-2", models_of_fewer, "builtin:minilm-l6"))
    assert few[f"{FEWER} and lose at most 6% of the dense"].startswith("missed, 1.0 ± 0.2 points lost")
    models_of_fewer["calibrated 8x"]["at_fewer_macs"] |= {"macs_ratios": [18.9, 20.0, 18.9]}
    few = dict(made[0].width_verdicts("SST-2", models_of_fewer, "builtin:minilm-l6"))
    assert few[f"{FEWER} and lose at most 6% of the dense"].startswith("undecided, 1.0 ± 0.2 points lost")
    mpnet = dict(made[0].width_verdicts("MRPC", {"calibrated 8x": line(0.03)}, "builtin:mpnet-l12"))
    assert mpnet["MRPC: 8x smaller layers lose at most 3.5% of the dense"].startswith("undecided, 3.0 ± 0.2")
    assert len(mpnet) == 3


def test_nothing_is_met_by_default(made) -> None:
    said = made[0].width_verdicts("SST-2", {}, "builtin:minilm-l6")
    assert len(said) == 6
    assert all(each == "not measured yet" for _, each in said)
    late = {"calibrated 8x": line(0.0)}
    late["calibrated 8x"] |= {"at_fewer_macs": None}
    late["calibrated 8x"]["certified"][1] |= {"macs_ratios": [18.0, 19.1, 5.0]}
    said = dict(made[0].width_verdicts("SST-2", late, "builtin:minilm-l6"))
    assert said[CERTIFIED].startswith("undecided, 1 of 3")
    assert said[f"{FEWER} and lose at most 6% of the dense"] == "missed: no step is so early"
    late["calibrated 8x"]["certified"][1] |= {"macs_ratios": [18.0]}
    said = dict(made[0].width_verdicts("SST-2", late, "builtin:minilm-l6"))
    assert said[CERTIFIED].startswith("undecided, 0 of 1"), "one seed decides nothing"


def test_one_seed_decides_nothing_but_where_one_is_all(made) -> None:
    alone = line(0.001) | {"loss": difference(0.001, seeds=1)}
    said = dict(made[0].width_verdicts("MRPC", {"calibrated 4x": alone}, "builtin:minilm-l6"))
    four = said["MRPC: 4x smaller layers lose at most 1.5 points"]
    assert four == "undecided, 0.1 ± 0.2 points lost, 1 seed"
    said = dict(made[0].width_verdicts("MRPC", {"calibrated 8x": alone}, "builtin:mpnet-l12"))
    assert said["MRPC: 8x smaller layers lose at most 3.5% of the dense"].startswith("met, 0.1 ± 0.2")


def test_time_follows_size(made) -> None:
    def timed(batch: int, *faster: float, high: float = 1.1) -> dict:
        ms = {"low_ms": 1.0, "high_ms": high, "median_ms": 1.05}
        return {"batch": batch, "size": 4, "faster": list(faster), "ms": ms}

    lines = [timed(8, 3.1, 3.2, 3.3), timed(8, 2.8, 2.9, 2.95), timed(8, 2.9, 3.0, 3.1, high=2.0)]
    said = dict(made[0].faster_verdicts(lines))
    eight = said["4x smaller layers are 3x faster at batch 8"]
    assert eight == "met in 1 of 3, undecided in 1, missed in 1, 2.90x at least, 1 of them noisy"
    assert said["4x smaller layers are 2.2x faster at batch 1"] == "not measured yet"


def run(paired, way: str, size: int, seed: int, wrong: int, exits: int = LAYERS, macs: float = 100.0) -> dict:
    """A run whose exits have their first rows wrong; shallow ones twice as many."""
    last = [np.arange(ROWS) >= wrong]
    each = [np.arange(ROWS) >= 2 * wrong] * (exits - 1) + last
    answers = [paired.packed_right(right) for right in each]
    step = {"tune_macs": 5.0, "macs": 5.2, "test": float(each[0].mean())}
    bold = step | {"tune_macs": 2.0, "macs": 2.0, "tune": 0.3}
    part = {"rows": ROWS, "macs": macs, "answers": answers}
    facts = {
        "parameters": {"total": 10**6, "encoder": 10**5},
        "heads": [2] * LAYERS,
        "neurons": [144] * LAYERS,
        "products": False,
        "embedding_rank": 64,
        "tune": part,
        "test": part,
        "exits": [float(right.mean()) for right in each],
        "f1": 0.9,
        "certified": []
        if way == "dense"
        else [
            {"bound": bound, "certified": True, "test_accuracy": 0.8, "macs_ratio": 2.0}
            for bound in (0.01, 0.02)
        ],
        "sweep": [bold, step | {"tune": 0.9}, step | {"tune": 0.95, "tune_macs": 50.0}],
        "sweep_answers": paired.packed_steps([each[0] & False, each[0], each[0]]),
    }
    assistant = {} if way == "dense" else {"assistant": {"made": "now", "weights": "same"}}
    return {"task": "mrpc", "seed": seed, "way": way, "size": size, "facts": facts} | assistant


def test_runs_are_brought_together_seed_by_seed(made) -> None:
    _, tables, summary, paired = made
    runs = [
        {
            "task": "mrpc",
            "seed": None,
            "way": "baselines",
            "size": None,
            "baselines": {"simple": 0.66},
            "f1": {"simple": 0.8},
        },
        run(paired, "calibrated", 8, 9, 50),  # without a dense model
    ]
    for seed, wrong in enumerate((60, 50, 70)):
        runs.append(run(paired, "dense", 1, seed, 10 + 10 * seed, exits=1))
        runs.append(run(paired, "assistant", 1, seed, 30))
        runs.append(run(paired, "calibrated", 8, seed, wrong, macs=12.5))
        runs.append(run(paired, "last exit only", 8, seed, wrong + 5, macs=12.5))
    found = summary.summary(runs)["mrpc"]["models"]
    slender = found["calibrated 8x"]
    assert slender["seeds"] == 3
    assert slender["loss"]["mean"] == pytest.approx(0.04)
    assert slender["loss"]["sd"] == pytest.approx(0.01), "50, 30 and 40 rows, each against its seed's"
    assert slender["macs_ratio"] == 8.0
    assert slender["above_last_only"]["mean"] == pytest.approx(0.01), "twice five rows of a thousand"
    assert slender["certified"][0]["macs_ratios"] == [16.0, 16.0, 16.0]
    at = slender["at_fewer_macs"]
    most_accurate = [pytest.approx(100 / 5.2)] * 3  # on tuning rows; the boldest has 50
    assert at["macs_ratios"] == most_accurate
    assert at["loss"]["mean"] == pytest.approx(0.1)
    assert found["dense"]["mean"] is None
    assert found["dense"]["loss"] is None, "its own"
    assert slender["remade"] == 0
    runs[-2]["assistant"] = {"made": "later", "weights": "other"}
    assert summary.summary(runs)["mrpc"]["models"]["calibrated 8x"]["remade"] == 1
    settings = {
        "model": "builtin:minilm-l6",
        "epochs": {"mrpc": 5.0},
        "product_epochs": {"mrpc": 6.9},
        "bounds": [0.01, 0.02],
        "delta": 0.1,
    }
    text = tables.width_quality_table({"settings": settings, "summary": summary.summary(runs)})
    table = [row for row in text.splitlines() if row.startswith("| MRPC, ")]
    assert len({row.count("|") for row in [*table, next(r for r in text.splitlines() if "F1 |" in r)]}) == 1
    dense = next(row for row in table if row.startswith("| MRPC, dense"))
    assert "| 98.0 ± 1.0 |  | 90.0 |  |  |  |  |  | 3 |" in dense, "heads that were not trained say nothing"
    assert "| MRPC, simple |  |  |  |  |  | 66.0 |  | 80.0 |" in text
    assert "MRPC 5, the product 6.9" in text
    assert "3, assistant made anew for 1" in text


def test_steps_are_chosen_on_tuning_rows_alone(monkeypatch) -> None:
    """The step that is best on test rows is not good enough on tuning rows to be looked at."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    measuring = importlib.import_module("width_measuring")
    right = {"tune": [[1, 1, 0], [1, 0, 0]], "test": [[0, 0, 1], [0, 1, 1]]}
    macs = {"tune": [[4, 2, 3], [4, 2, 3]], "test": [[9, 9, 1], [9, 9, 1]]}
    parts = {part: SimpleNamespace(part=part, answers_taken=lambda *_: None) for part in right}
    monkeypatch.setattr(measuring, "criteria_for", lambda _: ["entropy"])
    monkeypatch.setattr(measuring, "path_of", lambda outputs, *_: [outputs.part] * 3)
    monkeypatch.setattr(
        measuring, "taken_by", lambda of, *_: (np.array(right[of.part]), np.array(macs[of.part]))
    )
    found = measuring.sweep(parts, SimpleNamespace(problem_type="any"))
    assert [(step["tune"], step["tune_macs"], step["test"]) for step in found["sweep"]] == [
        (0.5, 2, 0.5),
        (1, 4, 0),
    ]
    paired = importlib.import_module("paired")
    said = [paired.right(paired.packed_step(found["sweep_answers"], step, 2), 2) for step in range(2)]
    assert np.array_equal(said, [[0, 1], [0, 0]])
