"""SST-2: accuracy and depth of MiniLM with exits, against the same recipe without exits; resumable.

Trains on the 67k phrases; makes rules from `validation.jsonl`, and certifies Points on 2,000 held-out rows
of `train_sentences.jsonl`. Every phrase contained in a held-out or test sentence leaves the training set.
Nothing is chosen on `test.jsonl`; the figures are its.

    LESSEN_DATA=/path/to/data python benchmarks/sst2_exits.py [--seeds 0,1,2] [--epochs 3]

Models stay in `.cache/sst2/` (for `exit_latency.py`); the table goes to `benchmarks/results/sst2_exits.json`.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from baselines import baselines
from results import CACHE, data_folder, write_results

from lessen.artefact import CONFIG, KEPT, write_json
from lessen.certificate import one_digest
from lessen.data.reading import read
from lessen.data.splits import without, without_contained
from lessen.data.table import Table
from lessen.loading import load
from lessen.measure.evaluation import answers_of_every_exit, evaluate
from lessen.measure.metrics import quality
from lessen.plan import FULL, Point
from lessen.promise.classifiers import calibrate_classifier
from lessen.promise.judging import judge
from lessen.promise.outputs import Kept, Outputs, task_of
from lessen.promise.paths import path_of
from lessen.promise.rows import keep
from lessen.promise.settle import Asked
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.pipeline import compress
from lessen.systems.planning import plan_for

MODEL = "builtin:minilm-l6"
HELD_OUT = 2000
ALLOWED = (0.005, 0.01, 0.02)
PARTS = ("train", "tune", "calibration", "test")


def prepare(folder: Path) -> dict[str, Path]:
    """Write the four files as `compress` reads them; once."""
    files = {name: folder / f"{name}.jsonl" for name in PARTS}
    if all(path.exists() for path in files.values()):
        return files
    source = data_folder() / "sst2"
    phrases, sentences, validation, test = (
        read(str(source / f"{name}.jsonl")) for name in ("train", "train_sentences", "validation", "test")
    )
    sentences, _ = without(sentences, [validation, test])
    held_out = sentences.take(random.Random(0).sample(range(len(sentences)), HELD_OUT))
    train, dropped = without_contained(phrases, [validation, held_out, test])
    print(f"{dropped:,} phrases contained in held-out or test sentences left the training set")
    for name, table in zip(PARTS, (train, validation, held_out, test), strict=True):
        _write(table, files[name])
    return files


def _write(table: Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(table.texts, table.labels or [], strict=True)
    path.write_text("".join(json.dumps({"sentence": t, "label": int(y)}) + "\n" for t, y in rows))


def run_seed(files: dict[str, Path], seed: int, epochs: float, objective: str) -> dict[str, Any]:
    """Train once and keep the model; make and test its Points anew at every call."""
    out = CACHE / "sst2" / f"{objective}-seed{seed}"
    system = system_of("early-exit")
    plan = plan_for(
        system,
        seed=seed,
        recipe={"epochs": epochs, "objective": objective, "max_tokens": 64},
        model=MODEL,
        data=str(files["train"]),
        tune_data=str(files["tune"]),
        calibration_data=str(files["calibration"]),
        test_data=str(files["test"]),
    )
    if not (out / "training.json").exists():
        compress(plan, system, out)
    record = json.loads((out / "training.json").read_text())
    model = load(out, promises=False)
    tables = {name: read(str(path)) for name, path in files.items()}
    encoded = encode(model.tokenizer, tables["test"].texts, 512)
    labels = tables["test"].labels or []
    points = [FULL, *(choose_points(model, tables, plan.criteria, out) if objective != "last" else [])]
    answers = answers_of_every_exit(model, encoded)
    return {
        "seed": seed,
        "objective": objective,
        "epochs": epochs,
        "rows": {name: len(table) for name, table in tables.items()},
        "training": record["training"],
        "accuracy_by_exit": [quality(answer, labels, model.problem_type) for answer in answers],
        "points": [evaluate(model, encoded, labels, point).as_dict() for point in points],
    }


def choose_points(model: Any, tables: dict[str, Table], criteria: tuple[str, ...], out: Path) -> list[Point]:
    """Points of both kinds, saved with the model for `exit_latency.py`.

    The certificate for 1 % stands alone on the calibration rows. The plug-in rule, which needs no rows of its
    own, makes its rules and takes its thresholds on tuning and calibration rows together.
    """
    kept = keep(model, tables, criteria, 1.0)
    replace(kept, subject=one_digest(out)).save(out / KEPT)
    certified = calibrate_classifier(out, model, kept, Asked(bounds=(0.01,))).points
    both = together(kept)
    task = task_of(model, 1.0)
    chosen = []
    paths = [path for criterion in criteria if (path := path_of(both, task, criterion))]
    for allowed in ALLOWED:
        found = [(judge(both, path, task, [allowed], 0.1, rule="plug-in")[0], path) for path in paths]
        verdict, path = min(found, key=lambda pair: pair[0].mean_layers)
        if verdict.chosen.step is not None:
            step = path[verdict.chosen.step]
            chosen.append(step.model_copy(update={"name": f"plug-in-{100 * allowed:g}%"}))
    points = [*certified, *chosen]
    model.config.points = [point.model_dump(mode="json", exclude_none=True) for point in points]
    write_json(out / CONFIG, model.config.to_diff_dict())
    return points


def together(kept: Kept) -> Outputs:
    """Tuning and calibration rows as one set."""
    parts = (kept.tune, kept.calibration)
    return Outputs(
        logits=np.concatenate([part.logits for part in parts], 1),
        labels=np.concatenate([part.labels for part in parts if part.labels is not None]),
        keys=tuple(key for part in parts for key in part.keys),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=float, default=3.0)
    options = parser.parse_args()
    files = prepare(CACHE / "sst2" / "data")
    trivial = baselines(files)
    runs = []
    for seed in map(int, options.seeds.split(",")):
        for objective in ("depth_weighted", "last"):
            runs.append(run_seed(files, seed, options.epochs, objective))
            content = {"model": MODEL, "runs": runs, "summary": summary(runs), "baselines": trivial}
            write_results("sst2_exits", content)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every Point's accuracy and depth, and of the dense
    model's.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        dense = run["objective"] == "last"
        for point in run["points"]:
            if dense and point["name"] != "full":
                continue
            name = "dense (no exits trained)" if dense else point["name"]
            lines.setdefault(name, []).append((point["value"], point["mean_layers"]))
        if not dense:
            middle = len(run["accuracy_by_exit"]) // 2
            fixed = (run["accuracy_by_exit"][middle - 1], float(middle))
            lines.setdefault(f"every row leaves after layer {middle}", []).append(fixed)
    return {
        name: {
            "accuracy": mean(v for v, _ in found),
            "accuracy_sd": stdev(v for v, _ in found) if len(found) > 1 else None,
            "mean_layers": mean(d for _, d in found),
            "seeds": len(found),
        }
        for name, found in lines.items()
    }


if __name__ == "__main__":
    main()
