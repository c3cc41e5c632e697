"""Does the promise hold? 1,000 random calibration splits of cached answers, on four tasks and for every loss.

A split breaks the promise when the Point certified on it has a risk over the bound on the whole pool. Beside
that stand the plug-in rule's share, and how many rows leave early against the best step that keeps the bound.

    LESSEN_DATA=/path/to/data python benchmarks/promise.py [--tasks sst2,trec] [--count 1000]

Models are made once and stay in `.cache/promise/`; SST-2's is that of `sst2_exits.py`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from results import CACHE, data_folder, write_results

from lessen.artefact import KEPT
from lessen.data.reading import read
from lessen.loading import load
from lessen.promise.judging import judge
from lessen.promise.outputs import Kept, Outputs, Task, outputs_of, task_of
from lessen.promise.paths import freeze_path
from lessen.promise.resplits import resplit
from lessen.promise.verdict import LOSSES
from lessen.systems import system_of
from lessen.systems.dividing import read_splits
from lessen.systems.pipeline import compress
from lessen.systems.planning import CompressionPlan, plan_for

MODEL = "builtin:minilm-l6"
BOUNDS = (0.01, 0.02)
DELTA = 0.1
ROWS = 2000


def folder_of(task: str) -> Path:
    """The task's model, made now if it is not there."""
    if task == "sst2":
        return CACHE / "sst2" / "depth_weighted-seed0"
    out = CACHE / "promise" / task
    if not (out / "training.json").exists():
        data = str(data_folder() / "qnli" / "train.jsonl") if task == "qnli" else f"builtin:{task}"
        system = system_of("early-exit")
        plan = plan_for(
            system, seed=0, recipe={}, model=MODEL, data=data, calibration_share=0.25, test_share=0.2
        )
        compress(plan, system, out)
    return out


def pool_of(task: str, folder: Path, model: Any, kept: Kept) -> Outputs:
    """Calibration and test rows together: neither training nor the path saw them."""
    if task == "sst2":
        test = read(str(CACHE / "sst2" / "data" / "test.jsonl"))
    else:
        test = read_splits(CompressionPlan.model_validate_json((folder / "plan.json").read_text()))["test"]
    parts = (kept.calibration, outputs_of(model, test.with_labels_of(model.label_names)))
    return replace(
        kept.calibration,
        logits=np.concatenate([part.logits for part in parts], 1),
        labels=np.concatenate([part.labels for part in parts if part.labels is not None]),
        keys=tuple(key for part in parts for key in part.keys),
    )


def measure(name: str, count: int) -> dict[str, Any]:
    """All losses and bounds of one task."""
    folder = folder_of(name)
    model = load(folder, promises=False)
    kept = Kept.load(folder / KEPT)
    task = task_of(model, kept.label_range)
    pool = pool_of(name, folder, model, kept)
    lines = []
    for loss in LOSSES:
        for bound in BOUNDS:
            path = freeze_path(kept.tune, task, kept.criteria, bound, loss)
            found = resplit(pool, path, task, bound, DELTA, loss=loss, count=count, rows=ROWS)
            lines.append({"loss": loss, "epsilon": bound, "steps": len(path), **found})
            print(name, json.dumps(lines[-1]), flush=True)
    return {"pool": len(pool), "rows": ROWS, "tuning_rows": len(kept.tune), "lines": lines}


def seconds_for(rows: int) -> float:
    """Time to certify three bounds on so many rows of synthetic answers, path included."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, rows)
    logits = generator.normal(size=(6, rows, 2))
    logits[:, np.arange(rows), truth] += np.linspace(1, 3, 6)[:, None]
    answers = Outputs(logits, truth.astype(float), tuple(f"{i:016x}" for i in range(rows)))
    task = Task("single_label_classification", (1, 2, 3, 4, 5, 6))
    began = perf_counter()
    path = freeze_path(answers, task, ("max_probability", "entropy", "margin", "patience"), 0.01)
    judge(answers, path, task, [0.005, 0.01, 0.02], DELTA)
    return perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="sst2,movie-reviews,trec,qnli")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    content: dict[str, Any] = {"model": MODEL, "delta": DELTA, "tasks": {}}
    content["seconds_for_10000_rows"] = round(seconds_for(10_000), 2)
    for name in options.tasks.split(","):
        content["tasks"][name] = measure(name, options.count)
        write_results("promise", content)


if __name__ == "__main__":
    main()
