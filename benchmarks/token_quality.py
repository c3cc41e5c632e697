"""Quality against speed-up when tokens leave: ACC beside random tokens and the first ones, on four tasks.

    LESSEN_DATA=/path/to/data python benchmarks/token_quality.py [--tasks imdb,sst2,mrpc,stsb] [--seeds 0,1,2]

Models stay in `.cache/tokens/`; what is there, or in the results already, is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from results import CACHE, add_run, kept
from tasks import TASKS, prepare

from lessen.artefact import write_json
from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.evaluation import evaluate
from lessen.reshaping import with_exits
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.token_stages import TokenPlan, give_profile, passes_of
from lessen.train.fine_tuning import Recipe, fine_tune

MODEL = "builtin:minilm-l6"
TESTED = 2000
"""Test rows at most."""

PRECISION = "bfloat16"
"""Of the measurements on test rows, of what is lost too; hours are saved so where a CPU has it."""

SELECTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mean": ({}, {}),
    "random": ({"score": "random"}, {}),
    "first_k": ({"score": "first_k"}, {}),
    "one": ({}, {"rates": "one", "speedup": 3.0}),
}
"""Changes to the token plan and to the recipe; "one" is ACC in the paper's way, trained at 3x only."""

SPEEDUPS = (1.0, 1.5, 2.0, 3.0, 4.0, 4.8)
STAGE = system_of("latency-adjustable").stages[-1]

NAME = "token_quality"
SETTINGS = {
    "model": MODEL,
    "trained_for": STAGE.speedup,
    "selections": SELECTIONS,
    "precision": PRECISION,
    "test_rows": TESTED,
    "tasks": {name: asdict(TASKS[name]) for name in ("imdb", "sst2", "mrpc", "stsb")},
}
"""What all runs have in common."""


def fine_tuned(task: str, seed: int) -> Path:
    """The model before any token leaves: all exits trained, for every selection the same."""
    out = CACHE / "tokens" / task / f"full-seed{seed}"
    if not (out / "training.json").exists():
        train = read(str(prepare(task)["train"]))
        model = with_exits(
            load(MODEL), labels=train.label_names or ["score"], problem_type=train.kind, seed=seed
        )
        recipe = at_task(system_of("early-exit").stages[-1], task, seed)
        record = fine_tune(model, train, recipe, out.with_name(out.name + ".work"))
        save(model, out, record)
    return out


def at_task(stage: Recipe, task: str, seed: int) -> Recipe:
    """A stage as `lessen compress` does it, at the task's epochs and longest text."""
    setting = TASKS[task]
    changes = {"seed": seed, "epochs": setting.epochs, "max_tokens": setting.max_tokens}
    return stage.model_copy(update=changes)


def save(model: Any, out: Path, record: dict[str, Any]) -> None:
    """Write a trained model's folder; its working folder is not needed any more."""
    model.save_pretrained(out)
    write_json(out / "training.json", {"training": [record]})
    shutil.rmtree(out.with_name(out.name + ".work"))


def taught(task: str, seed: int, selection: str) -> Path:
    """The same model after as many epochs again with tokens leaving."""
    tokens, changes = SELECTIONS[selection]
    out = CACHE / "tokens" / task / f"{selection}-seed{seed}"
    if not (out / "training.json").exists():
        model = load(fine_tuned(task, seed), promises=False)
        recipe = at_task(STAGE.model_copy(update=changes), task, seed)
        train = read(str(prepare(task)["train"])).with_labels_of(model.label_names)
        work = out.with_name(out.name + ".work")
        give_profile(model, train, recipe, TokenPlan.model_validate(tokens), work)
        torch.manual_seed(seed)
        record = fine_tune(model, train, recipe, work / "checkpoints", passes=passes_of(model, recipe))
        save(model, out, record)
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
    for selection in SELECTIONS:
        folder = taught(task, seed, selection)
        place = folder / "curve.json"
        if not place.exists():
            write_json(place, curve(load(folder, precision=PRECISION), task))
        curves[selection] = json.loads(place.read_text())
    full = load(fine_tuned(task, seed), promises=False, precision=PRECISION)
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
        for name in (*SELECTIONS, "untrained"):
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
    parser.add_argument("--tasks", default=",".join(SETTINGS["tasks"]))
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    for seed in map(int, options.seeds.split(",")):
        for task in options.tasks.split(","):
            if not any((run["task"], run["seed"]) == (task, seed) for run in kept(NAME, SETTINGS)):
                run = {"task": task, "seed": seed, "curves": measured(task, seed)}
                add_run(NAME, SETTINGS, run, summary)


if __name__ == "__main__":
    main()
