"""Quality against speed-up when tokens leave: ACC beside random tokens and the first ones, on four tasks.

    LESSEN_DATA=/path/to/data python benchmarks/token_quality.py [--tasks imdb,sst2,mrpc,stsb] [--seeds 0,1,2]

Models stay in `.cache/tokens/`; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from results import CACHE, write_results
from tasks import TASKS, prepare

from lessen.artefact import write_json
from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.evaluation import evaluate
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.pipeline import compress
from lessen.systems.planning import plan_for
from lessen.systems.token_stages import TokenPlan, give_profile, passes_of
from lessen.train.fine_tuning import Recipe, fine_tune

MODEL = "builtin:minilm-l6"
TESTED = 2000
"""Test rows at most."""

SCORES = ("mean", "random", "first_k")
SPEEDUPS = (1.0, 1.5, 2.0, 3.0, 4.0, 4.8)
STAGE = system_of("latency-adjustable").stages[-1]


def fine_tuned(task: str, seed: int) -> Path:
    """The model before any token leaves: all exits trained, for every selection the same."""
    out = CACHE / "tokens" / task / f"full-seed{seed}"
    if not (out / "training.json").exists():
        files = {name: str(path) for name, path in prepare(task).items()}
        system = system_of("early-exit")
        plan = plan_for(
            system,
            seed=seed,
            recipe={"epochs": TASKS[task].epochs, "max_tokens": TASKS[task].max_tokens},
            model=MODEL,
            data=files["train"],
            tune_data=files["tune"],
            calibration_data=files["calibration"],
            test_data=files["test"],
        )
        compress(plan, system, out)
    return out


def stage_of(task: str, seed: int) -> Recipe:
    """Training with tokens leaving, as `lessen compress` does it, at the task's epochs and longest text."""
    setting = TASKS[task]
    changes = {"seed": seed, "epochs": setting.epochs, "max_tokens": setting.max_tokens}
    return STAGE.model_copy(update=changes)


def taught(task: str, seed: int, score: str) -> Path:
    """The same model after as many epochs again with tokens leaving, chosen by this score."""
    out = CACHE / "tokens" / task / f"{score}-seed{seed}"
    if not (out / "training.json").exists():
        model = load(fine_tuned(task, seed), promises=False)
        recipe = stage_of(task, seed)
        train = read(str(prepare(task)["train"])).with_labels_of(model.label_names)
        work = out.with_name(out.name + ".work")
        give_profile(model, train, recipe, TokenPlan(score=score), work)
        torch.manual_seed(seed)
        record = fine_tune(model, train, recipe, work / "checkpoints", passes=passes_of(model, recipe))
        model.save_pretrained(out)
        write_json(out / "training.json", {"training": [record]})
        shutil.rmtree(work)
    return out


def curve(model: Any, task: str) -> dict[str, Any]:
    """Quality and MACs on the test rows at every speed-up; kept with the model once measured."""
    test = read(str(prepare(task)["test"])).with_labels_of(model.label_names)
    test = test.take(range(min(TESTED, len(test))))
    encoded = encode(model.tokenizer, test.texts, model.config.facts().max_tokens)
    found = {}
    for speedup in SPEEDUPS:
        point = model.dial(speedup=speedup).point
        result = evaluate(model, encoded, test.labels or [], point)
        found[f"{speedup:g}"] = {"value": result.value, "macs_ratio": result.macs_ratio}
    return found


def measured(task: str, seed: int) -> dict[str, Any]:
    """The curves of one seed: each selection trained and dialled, and ACC on the model that was not."""
    curves = {}
    for score in SCORES:
        folder = taught(task, seed, score)
        place = folder / "curve.json"
        if not place.exists():
            write_json(place, curve(load(folder), task))
        curves[score] = json.loads(place.read_text())
    full = load(fine_tuned(task, seed), promises=False)
    place = fine_tuned(task, seed) / "curve.json"
    if not place.exists():
        full.config.profile = json.loads((taught(task, seed, "mean") / "config.json").read_text())["profile"]
        write_json(place, curve(full, task))
    return curves | {"untrained": json.loads(place.read_text())}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task and selection: mean and standard deviation over seeds, and what was lost.

    The loss is against the fine-tuned model before any token left.
    """
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run["curves"] for run in runs if run["task"] == task]
        start = [curves["untrained"]["1"]["value"] for curves in of_task]
        for name in (*SCORES, "untrained"):
            for speedup in (f"{each:g}" for each in SPEEDUPS):
                values = [curves[name][speedup]["value"] for curves in of_task]
                lines.setdefault(task, {}).setdefault(name, {})[speedup] = {
                    "value": mean(values),
                    "sd": stdev(values) if len(values) > 1 else None,
                    "loss": mean(a - b for a, b in zip(start, values, strict=True)),
                    "macs_ratio": mean(curves[name][speedup]["macs_ratio"] for curves in of_task),
                    "seeds": len(values),
                }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    runs = []
    for seed in map(int, options.seeds.split(",")):
        for task in options.tasks.split(","):
            runs.append({"task": task, "seed": seed, "curves": measured(task, seed)})
            found = {"model": MODEL, "trained_at": STAGE.speedup, "runs": runs, "summary": summary(runs)}
            write_results("token_quality", found)


if __name__ == "__main__":
    main()
