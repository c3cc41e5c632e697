"""Which profile, which score, which training and which pooling: one choice changed at a time, on tuning rows.

    LESSEN_DATA=/path/to/data python benchmarks/token_ablation.py [--tasks sst2]

One seed. Starts from the models of `token_quality.py`, which pool by the mean; "cls" starts from one whose
exits read the first token alone, as the page has it. Test rows are not touched. What is in the results, made
with the same settings, is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import torch
from paired import compared
from results import CACHE, add_run, kept
from tasks import TASKS, prepare
from token_quality import (
    MODEL,
    PRECISION,
    SPEEDUPS,
    STAGE,
    START,
    TESTED,
    Pool,
    at_task,
    curve,
    fine_tuned,
)

from lessen.data.reading import read
from lessen.loading import load
from lessen.systems.token_stages import TokenPlan, give_profile, passes_of
from lessen.train.fine_tuning import Recipe, fine_tune

SEED = 0


@dataclass(frozen=True)
class Choice:
    """What one line of the table changes.

    Attributes:
        tokens: In the token plan.
        recipe: In the stage in which tokens leave.
        pool: What exits read, from the start on.
        trained: Whether there is such a stage; else tokens leave the start as it is.
    """

    tokens: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    pool: Pool = "mean"
    trained: bool = True


START_OF: dict[Pool, str] = {"mean": "not trained so", "cls": "cls, not trained so"}
"""Choices whose model at 1x is the one that others lose against."""

USUAL: dict[Pool, str] = {"mean": "acc (the default)", "cls": "cls, acc"}
"""Choices that others are held against."""

CHOICES = {
    START_OF["mean"]: Choice(trained=False),
    USUAL["mean"]: Choice(),
    START_OF["cls"]: Choice(pool="cls", trained=False),
    USUAL["cls"]: Choice(pool="cls"),
    "cls, random": Choice({"score": "random"}, pool="cls"),
    "cls, first_k": Choice({"score": "first_k"}, pool="cls"),
    "envelope": Choice({"family": "envelope"}),
    "geometric": Choice({"family": "geometric"}),
    "tilt": Choice({"family": "tilt"}),
    "acc, mass 0.9": Choice({"mass": 0.9}),
    "one epoch": Choice(recipe={"epochs": 1.0}),
    "drawn, up to 3x": Choice(recipe={"speedup": 3.0}),
    **{f"at {s:g}x only": Choice(recipe={"speedup": s, "rates": "one"}) for s in (2.0, 3.0, 4.0, 4.8)},
    "sandwich": Choice(recipe={"rates": "sandwich"}),
    "at 3x only, random": Choice({"score": "random"}, {"speedup": 3.0, "rates": "one"}),
    **{
        f"score {score}": Choice({"score": score})
        for score in ("offdiag", "max_head", "last_query", "window", "cumulative", "random", "first_k")
    },
}

NAME = "token_ablation"
SETTINGS = {
    "model": MODEL,
    "start": START.model_dump(mode="json"),
    "stage": STAGE.model_dump(mode="json"),
    "speedups": SPEEDUPS,
    "precision": PRECISION,
    "seed": SEED,
    "rows": ["tune", TESTED],
}
"""What all runs have in common; what a choice changes is in its run's key."""


def plan_of(task: str, choice: Choice) -> tuple[TokenPlan, Recipe]:
    """How tokens are to leave, and the stage they leave in."""
    recipe = at_task(STAGE, task, SEED).model_dump() | choice.recipe
    return TokenPlan.model_validate(choice.tokens), Recipe.model_validate(recipe)


def key_of(task: str, name: str) -> str:
    """Of everything a run depends on: a run with another key is stale, and so is its unfinished work."""
    plan, recipe = plan_of(task, CHOICES[name])
    facts = {
        "settings": SETTINGS,
        "task": asdict(TASKS[task]),
        "tokens": plan.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "pool": CHOICES[name].pool,
        "trained": CHOICES[name].trained,
    }
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def measured(task: str, name: str) -> dict[str, Any]:
    """What `curve` finds on the tuning rows."""
    choice = CHOICES[name]
    plan, recipe = plan_of(task, choice)
    model = load(fine_tuned(task, SEED, choice.pool), promises=False)
    train = read(str(prepare(task)["train"])).with_labels_of(model.label_names)
    work = CACHE / "tokens" / task / "ablation" / f"{name}-{key_of(task, name)}.work"
    give_profile(model, train, recipe, plan, work)
    if choice.trained:
        torch.manual_seed(SEED)
        fine_tune(model, train, recipe, work / "checkpoints", passes=passes_of(model, recipe))
    found = curve(model.to(getattr(torch, PRECISION)), task, "tune")
    shutil.rmtree(work)
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task and choice, at each speed-up: quality, what was lost, and what is above the usual choice.

    The loss is against the model of the same pooling before any token left. Standard errors are paired, over
    rows; a comparison is None until both of its runs are there, and with itself. Stale runs are left out.
    """
    current = {
        (run["task"], run["choice"]): run
        for run in runs
        if run["choice"] in CHOICES and run["key"] == key_of(run["task"], run["choice"])
    }
    lines: dict[str, Any] = {}
    for task in sorted({task for task, _ in current}):
        for name in (name for name in CHOICES if (task, name) in current):
            run, pool = current[task, name], CHOICES[name].pool
            start = current.get((task, START_OF[pool]))
            usual = None if name == USUAL[pool] else current.get((task, USUAL[pool]))
            lines.setdefault(task, {})[name] = {
                speedup: {
                    "value": cell["value"],
                    "macs_ratio": cell["macs_ratio"],
                    "loss": compared([start], "1", [run], speedup) if start else None,
                    "above_usual": compared([run], speedup, [usual], speedup) if usual else None,
                }
                for speedup, cell in run["curve"].items()
            }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", default="sst2")
    options = parser.parse_args()
    for task in options.tasks.split(","):
        for name in CHOICES:
            run = {"task": task, "choice": name, "key": key_of(task, name)}
            if not any(run.items() <= each.items() for each in kept(NAME, SETTINGS)):
                run |= measured(task, name)
                add_run(NAME, SETTINGS, run, summary)
                values = {speedup: round(cell["value"], 4) for speedup, cell in run["curve"].items()}
                print(task, name, values, flush=True)


if __name__ == "__main__":
    main()
