"""Exits on: ms per review at batch 1, 8 and 32 against the same fine-tuned weights in other runtimes,
interleaved.

Uses the SST-2 model of `sst2_exits.py` (seed 0) and real test sentences. Accuracy of every Point and rival is
measured on all 1,821 test rows, time on a random sample of them. In int8 the model is certified anew.

    python benchmarks/exit_latency.py [--threads 2,1] [--rows 64] [--seconds 60]
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from results import CACHE, write_results

from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.evaluation import answers_at
from lessen.measure.metrics import quality
from lessen.measure.side_by_side import Contestant, build_rivals, compare
from lessen.runtime.text import encode

FOLDER = CACHE / "sst2"
RIVALS = (
    "torch",
    "torch-bf16",
    "onnxruntime",
    "onnxruntime-int8",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
)
POINTS = ("full", "drop-1%", "plug-in-0.5%")


def certified_in_int8(folder: Path) -> Path:
    """A copy of the model that was calibrated in int8, on the same rows."""
    copy = FOLDER / f"{folder.name}-int8"
    if not copy.exists():
        rows = str(FOLDER / "data" / "calibration.jsonl")
        asked = ["--precision", "int8", "--max-drop", "1%", "--out", str(copy)]
        command = ["calibrate", str(folder), "--data", rows, *asked]
        subprocess.run([str(Path(sys.executable).with_name("lessen")), *command], check=True)
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="2,1", help="one number after another")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    counts = sorted({int(each) for each in options.threads.split(",")}, reverse=True)
    folder = FOLDER / "depth_weighted-seed0"
    if not folder.exists():
        sys.exit("run benchmarks/sst2_exits.py first: it makes the model timed here")
    models: dict[str, Any] = {"lessen": load(folder), "lessen-bf16": load(folder, precision="bfloat16")}
    model = models["lessen"]
    test = read(str(FOLDER / "data" / "test.jsonl"))
    tune = read(str(FOLDER / "data" / "tune.jsonl"))
    everything = encode(model.tokenizer, test.texts, 512)
    points = [model.points[name] for name in POINTS if name in model.points]
    chosen = random.Random(0).sample(range(len(test)), options.rows)
    calibration = encode(model.tokenizer, tune.texts[:300], 512)
    few = load(certified_in_int8(folder), precision="int8")
    few_points = [few.points[name] for name in POINTS if name in few.points]
    timed_rows = [everything[i] for i in chosen]
    of_int8 = Contestant(
        models={"lessen-int8": few},
        reference=few,
        encoded=timed_rows,
        labels=None,
        points=few_points,
        rivals={},
    )
    timed: list[dict[str, Any]] = []
    for thread_count in counts:
        rivals = build_rivals(RIVALS, model, thread_count, calibration)
        contestant = Contestant(
            models=models,
            reference=model,
            encoded=timed_rows,
            labels=None,
            points=points,
            rivals=rivals,
        )
        found = compare(
            {"sst2": contestant, "int8": of_int8},
            batch_sizes=(1, 8, 32),
            thread_count=thread_count,
            seconds=options.seconds,
        )
        timed += [row.as_dict() | {"threads": thread_count} for row in found["sst2"] + found["int8"]]
    accuracy: dict[str, Any] = {}
    labels = test.labels or []
    answering = [(kind, each, points) for kind, each in models.items()]
    for kind, each, its_points in [*answering, ("lessen-int8", few, few_points)]:
        for point in its_points:
            logits, layers = answers_at(each, everything, point)
            value = quality(logits, labels, model.problem_type)
            accuracy[f"{kind} {point.name}"] = {
                "accuracy": value,
                "mean_layers": sum(layers) / len(layers),
            }
    for kind, rival in rivals.items():
        value = quality(rival(everything).double().numpy(), labels, model.problem_type)
        accuracy[f"{kind} dense"] = {"accuracy": value, "mean_layers": 6.0}
    table = [row | accuracy[f"{row['kind']} {row['name']}"] for row in timed]
    for row in table:
        print(*(row[name] for name in ("kind", "name", "threads", "batch", "ms", "accuracy")), sep="\t")
    write_results("exit_latency", {"model": "MiniLM-L6, SST-2, seed 0", "rows": table, "n": len(test)})


if __name__ == "__main__":
    main()
