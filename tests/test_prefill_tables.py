"""The table of the small T5, from made-up runs: what is lost, how much faster it is, and its target."""

import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ROWS = 1000
FASTER = {1.0: 1.0, 1.5: 1.3, 2.0: 1.7, 3.0: 2.1, 4.0: 2.6}


@pytest.fixture
def made(monkeypatch):
    """`seq2seq_quality`, `prefill_tables` and `paired`, which are no package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return [importlib.import_module(name) for name in ("seq2seq_quality", "prefill_tables", "paired")]


def run(paired, way: str, score: str, seed: int, lost: int, *, timed: bool = False) -> dict:
    """Of a model that is right on 900 rows at 1x, and on `lost` fewer for each further speed-up."""
    curve = {}
    for place, speedup in enumerate(FASTER):
        right = np.arange(ROWS) < 900 - lost * place
        cell = {"value": right.mean(), "macs_ratio": speedup, "answers": paired.packed_right(right)}
        curve[f"{speedup:g}"] = cell
    found = {"rows": ROWS, "labels": None, "curve": curve}
    made = {"way": way, "score": score, "seed": seed, "tasks": {"sentiment": found, "question": found}}
    if timed:
        lines = [
            {"kind": "lessen", "speedup": each, "first_token_ms": 10 / faster, "total_ms": 30 / faster}
            for each, faster in FASTER.items()
        ]
        rival = {"kind": "transformers", "speedup": None, "first_token_ms": 20.0, "total_ms": 60.0}
        made["time"] = [*lines, rival]
    return made


def every(paired, lost: int) -> list[dict]:
    """Two seeds of all ways and scores; the third seed has no control yet."""
    runs = [
        run(paired, way, score, seed, lost, timed=(way, score) == ("leaving", "mean"))
        for seed in (0, 1)
        for way in ("leaving", "plain")
        for score in ("mean", "random", "first_k")
    ]
    return [*runs, run(paired, "leaving", "mean", 2, 500)]


@pytest.mark.parametrize(("lost", "said"), [(1, "met: 0.3 ± 0.2"), (5, "missed: 1.5 ± 0.4")])
def test_the_target_is_read_where_answers_come_twice_as_fast(made, lost: int, said: str) -> None:
    quality, tables, paired = made
    found = quality.summary(every(paired, lost))
    assert found["target"] == f"{said} points lost at 3x, 2 seeds"
    assert found["time"]["transformers"]["total"] == pytest.approx(0.5)
    assert set(found["tasks"]["question"]) == {
        f"{way}, {score}" for way in ("leaving", "plain") for score in ("mean", "random", "first_k")
    }
    text = tables.seq2seq_table({"summary": found, "settings": {"speedups": list(FASTER)}})
    assert found["target"] in text
    assert "| times faster, whole answer | 1.00x | 1.30x | 1.70x | 2.10x | 2.60x |" in text
    value = 90 - 0.1 * lost
    assert f"{value:.1f} ± 0.0 ({0.1 * lost:.1f} ± {paired_error(lost):.1f})" in text


def paired_error(lost: int) -> float:
    """In points, of a share of rows that only one of two models is right about."""
    share = lost / ROWS
    return 100 * (share * (1 - share) / (ROWS - 1)) ** 0.5


def test_what_was_not_run_is_not_claimed(made) -> None:
    quality, _, paired = made
    assert quality.summary([run(paired, "leaving", "mean", 0, 1)])["target"] == "not measured yet"
    slow = [run(paired, "plain", "mean", 0, 1), run(paired, "leaving", "mean", 0, 1, timed=True)]
    for line in slow[1]["time"]:
        line["total_ms"] = 30.0
    assert quality.summary(slow)["target"].startswith("missed: no speed-up here makes answers twice as fast")
