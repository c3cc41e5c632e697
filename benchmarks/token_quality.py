"""Quality against speed-up when tokens leave: ACC beside random tokens and the first ones, on four tasks.

    LESSEN_DATA=/path/to/data python benchmarks/token_quality.py [--tasks imdb,sst2,mrpc,stsb] [--seeds 0,1,2]
        [--selections untrained,mean,random,first_k,one]

Models stay in `.cache/tokens/`; what is there, or in the results already, is not made again. Each run keeps
what every row got, so that losses have a standard error over rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch
from paired import REGRESSION, compared, packed, packed_numbers
from results import CACHE, add_run, alone, kept
from tasks import TASKS, prepare

from lessen.artefact import write_json
from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.evaluation import answers_at, result_of
from lessen.plan import ExitShape, Precision
from lessen.reshaping import with_exits
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.token_stages import TokenPlan, give_profile, passes_of
from lessen.train.fine_tuning import Recipe, fine_tune

Pool = Literal["mean", "cls"]

MODEL = "builtin:minilm-l6"
TASKS_SHOWN = ("imdb", "sst2", "mrpc", "stsb")
TESTED = 2000
"""Test rows at most."""

PRECISION: Precision = "bfloat16"
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
START = system_of("early-exit").stages[-1]
STAGE = system_of("latency-adjustable").stages[-1]

NAME = "token_quality"
SETTINGS = {
    "model": MODEL,
    "start": START.model_dump(mode="json"),
    "stage": STAGE.model_dump(mode="json"),
    "trained_for": STAGE.speedup,
    "speedups": SPEEDUPS,
    "selections": SELECTIONS,
    "precision": PRECISION,
    "test_rows": TESTED,
    "tasks": {name: asdict(TASKS[name]) for name in TASKS_SHOWN},
}
"""What all runs have in common."""


def fine_tuned(task: str, seed: int, pool: Pool = "mean") -> Path:
    """The model before any token leaves: all exits trained, for every selection the same.

    Args:
        task: What it learns.
        seed: Of the heads and of the training.
        pool: What the exits read.
    """
    out = CACHE / "tokens" / task / (f"full-seed{seed}" if pool == "mean" else f"full-{pool}-seed{seed}")
    recipe = at_task(START, task, seed)
    with alone(out.with_name(out.name + ".lock")):
        if not made(out, recipe):
            train, plain = read(str(prepare(task)["train"])), load(MODEL)
            exits = [ExitShape(layer=layer, pool=pool) for layer in range(1, plain.transformer.depth + 1)]
            names = train.label_names or ["score"]
            model = with_exits(plain, exits=exits, labels=names, problem_type=train.kind, seed=seed)
            save(model, out, recipe, fine_tune(model, train, recipe, out.with_name(out.name + ".work")))
    return out


def made(out: Path, recipe: Recipe) -> bool:
    """Whether a model is there; one that was made by another recipe stops everything.

    Those made before recipes were written down are taken as they are.
    """
    place = out / "training.json"
    if not place.exists():
        return False
    before = json.loads(place.read_text()).get("recipe")
    if before is not None and type(recipe).model_validate(before) != recipe:
        sys.exit(f"{out} was trained by another recipe; move it away, and what was made from it")
    return True


def at_task(stage: Recipe, task: str, seed: int) -> Recipe:
    """A stage as `lessen compress` does it, at the task's epochs and longest text."""
    setting = TASKS[task]
    changes = {"seed": seed, "epochs": setting.epochs, "max_tokens": setting.max_tokens}
    return stage.model_copy(update=changes)


def save(model: Any, out: Path, recipe: Recipe, record: dict[str, Any]) -> None:
    """Write a trained model's folder; its working folder is not needed any more."""
    model.save_pretrained(out)
    write_json(out / "training.json", {"recipe": recipe.model_dump(mode="json"), "training": [record]})
    shutil.rmtree(out.with_name(out.name + ".work"))


def taught(task: str, seed: int, selection: str) -> Path:
    """The same model after as many epochs again with tokens leaving."""
    tokens, changes = SELECTIONS[selection]
    out = CACHE / "tokens" / task / f"{selection}-seed{seed}"
    recipe = at_task(STAGE.model_copy(update=changes), task, seed)
    with alone(out.with_name(out.name + ".lock")):
        if not made(out, recipe):
            model = load(fine_tuned(task, seed), promises=False)
            train = read(str(prepare(task)["train"])).with_labels_of(model.label_names)
            work = out.with_name(out.name + ".work")
            give_profile(model, train, recipe, TokenPlan.model_validate(tokens), work)
            torch.manual_seed(seed)
            record = fine_tune(model, train, recipe, work / "checkpoints", passes=passes_of(model, recipe))
            save(model, out, recipe, record)
    return out


def curve(model: Any, task: str, part: str = "test") -> dict[str, Any]:
    """Quality, MACs and every row's answer at every speed-up, as `paired.py` reads them.

    Args:
        model: A classifier with a retention profile.
        task: Whose rows.
        part: Which of them; at most `TESTED`.
    """
    table = read(str(prepare(task)[part])).with_labels_of(model.label_names)
    table = table.take(range(min(TESTED, len(table))))
    encoded = encode(model.tokenizer, table.texts, model.config.facts().max_tokens)
    labels = table.labels or []
    found = {}
    for speedup in SPEEDUPS:
        point = model.dial(speedup=speedup).point
        logits, layers = answers_at(model, encoded, point)
        result = result_of(model, encoded, labels, point, logits, layers)
        found[f"{speedup:g}"] = {
            "value": result.value,
            "macs_ratio": result.macs_ratio,
            "answers": packed(logits, labels, model.problem_type),
        }
    truth = packed_numbers(labels) if model.problem_type == REGRESSION else None
    return {"rows": len(labels), "labels": truth, "curve": found}


def measured(task: str, seed: int, selection: str) -> dict[str, Any]:
    """What `curve` finds of one training, or of ACC on the model that was not trained with tokens leaving."""
    if selection != UNTRAINED:
        return curve(load(taught(task, seed, selection), precision=PRECISION), task)
    full = load(fine_tuned(task, seed), promises=False, precision=PRECISION)
    full.config.profile = json.loads((taught(task, seed, "mean") / "config.json").read_text())["profile"]
    return curve(full, task)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task and selection: mean and standard deviation over seeds, and what was lost.

    The loss is against the fine-tuned model before any token left; `over_random` is what ACC has above
    random tokens. Both have a paired standard error over rows.
    """
    found = {(run["task"], run["selection"], run["seed"]): run for run in runs}
    lines: dict[str, Any] = {}
    for task, name in product(TASKS_SHOWN, (*SELECTIONS, UNTRAINED)):
        own, start = both(found, (task, name), (task, UNTRAINED))
        for speedup in (f"{each:g}" for each in SPEEDUPS if own):
            values = [run["curve"][speedup]["value"] for run in own]
            loss = compared(start, "1", own, speedup)
            cell = {
                "value": mean(values),
                "sd": stdev(values) if len(values) > 1 else None,
                "loss": loss["mean"],
                "loss_se": loss["se"],
                "macs_ratio": mean(run["curve"][speedup]["macs_ratio"] for run in own),
                "seeds": len(values),
            }
            acc, random = both(found, (task, "mean"), (task, "random"))
            if name == "mean" and acc:
                cell["over_random"] = compared(acc, speedup, random, speedup) | {"seeds": len(acc)}
            lines.setdefault(task, {}).setdefault(name, {})[speedup] = cell
    return lines


def both(
    found: dict[tuple[str, str, int], dict[str, Any]], ours: tuple[str, str], others: tuple[str, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The runs of two selections, for the seeds there are of both."""
    seeds = sorted(seed for *which, seed in found if tuple(which) == ours and (*others, seed) in found)
    return [found[*ours, seed] for seed in seeds], [found[*others, seed] for seed in seeds]


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
            add_run(NAME, SETTINGS, run | measured(task, int(seed), selection), summary)


if __name__ == "__main__":
    main()
