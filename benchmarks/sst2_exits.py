"""SST-2: accuracy and depth of MiniLM with exits, against the same recipe without exits. 3 seeds, resumable.

Trains on the 67k phrases, tunes on `validation.jsonl` plus 2,000 held-out rows of `train_sentences.jsonl`,
and tests once on `test.jsonl`. Every phrase contained in a held-out or test sentence leaves the training set.

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

from results import CACHE, data_folder, write_results

from lessen.artefact import write_json
from lessen.data.reading import read
from lessen.data.splits import without, without_contained
from lessen.data.table import Table
from lessen.loading import load
from lessen.measure.metrics import quality
from lessen.plan import FULL
from lessen.runtime.evaluation import answers_of_every_exit, evaluate
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.pipeline import choose_points, compress, plan_for

MODEL = "builtin:minilm-l6"
HELD_OUT = 2000
MAX_DROPS = (0.005, 0.0025, 0.0, 0.01, 0.02)


def prepare(folder: Path) -> dict[str, Path]:
    """Write the train, tune and test files as `compress` reads them; once."""
    files = {name: folder / f"{name}.jsonl" for name in ("train", "tune", "test")}
    if all(path.exists() for path in files.values()):
        return files
    source = data_folder() / "sst2"
    phrases, sentences, validation, test = (
        read(str(source / f"{name}.jsonl")) for name in ("train", "train_sentences", "validation", "test")
    )
    sentences, _ = without(sentences, [validation, test])
    chosen = random.Random(0).sample(range(len(sentences)), HELD_OUT)
    held_out = sentences.take(chosen)
    tune = replace(
        validation,
        texts=validation.texts + held_out.texts,
        labels=(validation.labels or []) + (held_out.labels or []),
    )
    train, dropped = without_contained(phrases, [tune, test])
    print(f"{dropped:,} phrases contained in held-out or test sentences left the training set")
    for name, table in (("train", train), ("tune", tune), ("test", test)):
        _write(table, files[name])
    return files


def _write(table: Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = zip(table.texts, table.labels or [], strict=True)
    path.write_text("".join(json.dumps({"sentence": t, "label": int(y)}) + "\n" for t, y in rows))


def run_seed(files: dict[str, Path], seed: int, epochs: float, objective: str) -> dict[str, Any]:
    """Train once and keep the model; choose and test its Points anew at every call."""
    out = CACHE / "sst2" / f"{objective}-seed{seed}"
    system = system_of("early-exit")
    plan = plan_for(
        system,
        seed=seed,
        recipe={"epochs": epochs, "objective": objective, "max_tokens": 64},
        model=MODEL,
        data=str(files["train"]),
        tune_data=str(files["tune"]),
        test_data=str(files["test"]),
        max_drops=MAX_DROPS,
    )
    if not (out / "training.json").exists():
        compress(plan, system, out)
    record = json.loads((out / "training.json").read_text())
    model = load(out)
    tune, test = read(str(files["tune"])), read(str(files["test"]))
    points = choose_points(model, tune, plan) if objective != "last" else []
    model.config.points = [point.model_dump(mode="json", exclude_none=True) for point in points]
    write_json(out / "config.json", model.config.to_diff_dict())
    encoded = encode(model.tokenizer, test.texts, 512)
    labels = test.labels or []
    answers = answers_of_every_exit(model, encoded)
    return {
        "seed": seed,
        "objective": objective,
        "epochs": epochs,
        "rows": record["rows"],
        "training": record["training"],
        "accuracy_by_exit": [quality(answer, labels, model.problem_type) for answer in answers],
        "points": [evaluate(model, encoded, labels, point).as_dict() for point in (FULL, *points)],
    }


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


def baselines(files: dict[str, Path]) -> dict[str, float]:
    """Accuracy of the most frequent label, and of TF-IDF with logistic regression, on the same rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train, test = read(str(files["train"])), read(str(files["test"]))
    labels = test.labels or []
    frequent = max(labels.count(label) for label in set(labels)) / len(labels)
    words = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2), LogisticRegression(max_iter=1000, C=10)
    )
    words.fit(train.texts, train.labels)
    return {"most frequent label": frequent, "TF-IDF + logistic regression": words.score(test.texts, labels)}


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
