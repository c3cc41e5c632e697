"""Quality against speed-up when tokens leave: ACC beside random tokens and the first ones, on four tasks.

    LESSEN_DATA=/path/to/data python benchmarks/token_quality.py [--tasks imdb,sst2,mrpc,stsb] [--seeds 0,1,2]
        [--selections untrained,mean,random,first_k,one]

Models stay in `.cache/tokens/`; what is there, or in the results already, is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from itertools import product
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
TASKS_SHOWN = ("imdb", "sst2", "mrpc", "stsb")
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

UNTRAINED = "untrained"
"""ACC on the model that was fine-tuned with all tokens there."""

SPEEDUPS = (1.0, 1.5, 2.0, 3.0, 4.0, 4.8)
STAGE = system_of("latency-adjustable").stages[-1]

NAME = "token_quality"
SETTINGS = {
    "model": MODEL,
    "trained_for": STAGE.speedup,
    "selections": SELECTIONS,
    "precision": PRECISION,
    "test_rows": TESTED,
    "tasks": {name: asdict(TASKS[name]) for name in TASKS_SHOWN},
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
    """Quality and MACs on the test rows at every speed-up."""
    test = read(str(prepare(task)["test"])).with_labels_of(model.label_names)
    test = test.take(range(min(TESTED, len(test))))
    encoded = encode(model.tokenizer, test.texts, model.config.facts().max_tokens)
    found = {}
    for speedup in SPEEDUPS:
        point = model.dial(speedup=speedup).point
        result = evaluate(model, encoded, test.labels or [], point)
        found[f"{speedup:g}"] = {"value": result.value, "macs_ratio": result.macs_ratio}
    return found


def measured(task: str, seed: int, selection: str) -> dict[str, Any]:
    """The curve of one training, or of ACC on the model that was not trained with tokens leaving."""
    if selection != UNTRAINED:
        return curve(load(taught(task, seed, selection), precision=PRECISION), task)
    full = load(fine_tuned(task, seed), promises=False, precision=PRECISION)
    full.config.profile = json.loads((taught(task, seed, "mean") / "config.json").read_text())["profile"]
    return curve(full, task)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task and selection: mean and standard deviation over seeds, and what was lost.

    The loss is against the fine-tuned model before any token left.
    """
    curves = {(run["task"], run["selection"], run["seed"]): run["curve"] for run in runs}
    lines: dict[str, Any] = {}
    for task, name in product(TASKS_SHOWN, (*SELECTIONS, UNTRAINED)):
        both = [
            (curves[task, UNTRAINED, seed]["1"]["value"], curve)
            for (its_task, its_name, seed), curve in curves.items()
            if (its_task, its_name) == (task, name) and (task, UNTRAINED, seed) in curves
        ]
        for speedup in (f"{each:g}" for each in SPEEDUPS if both):
            values = [curve[speedup]["value"] for _, curve in both]
            lines.setdefault(task, {}).setdefault(name, {})[speedup] = {
                "value": mean(values),
                "sd": stdev(values) if len(values) > 1 else None,
                "loss": mean(start - curve[speedup]["value"] for start, curve in both),
                "macs_ratio": mean(curve[speedup]["macs_ratio"] for _, curve in both),
                "seeds": len(values),
            }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(TASKS_SHOWN))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--selections", default=",".join((UNTRAINED, *SELECTIONS)))
    options = parser.parse_args()
    wanted = product(*(each.split(",") for each in (options.seeds, options.tasks, options.selections)))
    for seed, task, selection in wanted:
        run = {"task": task, "seed": int(seed), "selection": selection}
        if not any(run.items() <= each.items() for each in kept(NAME, SETTINGS)):
            add_run(NAME, SETTINGS, run | {"curve": measured(task, int(seed), selection)}, summary)


if __name__ == "__main__":
    main()
