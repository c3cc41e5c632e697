"""Binary weights for a pre-trained model: MiniLM taught by its float self, beside learning alone.

    LESSEN_DATA=/path/to/data python benchmarks/bits_warm.py [--tasks sst2,mrpc] [--seeds 0,1,2]

Every variant starts from the same fine-tuned model with exits (that of `token_quality.py`) and has the second
stage of `--system binarize`. Without a choice it does `SCHEDULE`. Each run (a task, a seed, a variant) is
kept in the results file; what is there is not done again, and several processes may share the work. Models
stay in `.cache/bits/`.

What it costs: a run on SST-2 (6,900 sentences of 25 tokens, six passes: 1,300 steps of 32, teacher included)
is about 10 minutes of two cores, the start it shares with the other variants of its seed 4; on MRPC as much.
The schedule is about 2 hours.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from statistics import mean, stdev
from typing import Any

import torch
from results import CACHE, add_run, kept
from tasks import TASKS, prepare, shuffled
from token_quality import fine_tuned

from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.evaluation import answers_of_every_exit
from lessen.measure.metrics import quality
from lessen.reshaping import in_signs
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.binarizing import Binarizing, binarized, turning
from lessen.systems.milestone import Milestone
from lessen.train.fine_tuning import fine_tune

VARIANTS: dict[str, dict[str, Any]] = {
    "W1A32": {},
    "W1A8": {"activation_bits": 8},
    "W1A1": {"activation_bits": 1},
    "W1A32, float embedding": {"embedding": False},
    "W1A32, alone": {"objective": "depth_weighted", "teacher": None},
    "W1A32, ste_clip": {"gradient": "ste_clip"},
    "W1A32, gradual": {"gradual": 0.5},
    "W1A1, gradual": {"activation_bits": 1, "gradual": 0.5},
}
"""Changes to the recipe."""

DENSE = "dense"
SCHEDULE: tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...] = (
    ("sst2", (0,), (DENSE, "W1A32", "W1A8", "W1A1")),
    ("sst2", (1, 2), (DENSE, "W1A32", "W1A8")),
    ("sst2", (0,), ("W1A32, gradual", "W1A32, alone", "W1A32, float embedding", "W1A1, gradual")),
    ("mrpc", (0,), (DENSE, "W1A32")),
)
"""Tasks, seeds and variants, what is wanted most first."""

NAME = "bits_warm"
STAGE = system_of("binarize").stages[1]
SETTINGS = {
    "model": "builtin:minilm-l6",
    "recipe": STAGE.model_dump(mode="json"),
    "tasks": {name: asdict(TASKS[name]) for name in ("sst2", "mrpc")},
}
"""What all runs have in common."""


def trained(task: str, seed: int, variant: str) -> Any:
    """The packed model, made if it is not there yet; or the dense one it started from."""
    dense = load(fine_tuned(task, seed), promises=False)
    if variant == DENSE:
        return dense
    place = f"{task}-seed{seed}", variant.replace(", ", "-").replace(" ", "-")
    milestone = Milestone(CACHE.joinpath("bits", "minilm-l6", *place))
    if not milestone.reached():
        own = {"max_tokens": TASKS[task].max_tokens, "seed": seed} | VARIANTS[variant]
        recipe = Binarizing.model_validate(STAGE.model_dump() | own)
        train = read(str(prepare(task)["train"])).with_labels_of(dense.label_names)
        torch.manual_seed(seed)
        model = binarized(dense, recipe)
        teacher = None if recipe.teacher is None else dense
        work, told = milestone.folder / "checkpoints", turning(model, recipe)
        record = fine_tune(model, train, recipe, work, teacher=teacher, told=told)
        packed = in_signs(model)
        milestone.leave(packed.transformer.state_dict(), packed.config.form(), record)
    return milestone.model(dense)


def values(model: Any, task: str) -> dict[str, Any]:
    """Quality of every exit on tuning and test rows, and of the last one on test rows with words shuffled."""
    found: dict[str, Any] = {}
    for part in ("tune", "test"):
        table = read(str(prepare(task)[part])).with_labels_of(model.label_names)
        found[part] = of_exits(model, task, table.texts, table.labels or [])
    found["shuffled"] = of_exits(model, task, shuffled(table.texts), table.labels or [])[-1]
    return found


def of_exits(model: Any, task: str, texts: list[Any], labels: list[Any]) -> list[float]:
    """Quality of every exit."""
    encoded = encode(model.tokenizer, texts, TASKS[task].max_tokens)
    return [
        quality(each, labels, model.problem_type) for each in answers_of_every_exit(model.eval(), encoded)
    ]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over seeds, and what was lost against the dense model of the same seed."""
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = {(run["variant"], run["seed"]): run["values"] for run in runs if run["task"] == task}
        for name in (name for name in (DENSE, *VARIANTS) if any(variant == name for variant, _ in of_task)):
            found = {seed: each for (variant, seed), each in of_task.items() if variant == name}
            last = [each["test"][-1] for each in found.values()]
            lost = [
                of_task[DENSE, seed]["test"][-1] - each["test"][-1]
                for seed, each in found.items()
                if (DENSE, seed) in of_task
            ]
            lines.setdefault(task, {})[name] = {
                "seeds": len(found),
                "last": mean(last),
                "last_sd": stdev(last) if len(last) > 1 else None,
                "loss": mean(lost) if lost else None,
                "shuffled": mean(each["shuffled"] for each in found.values()),
                "exits": [mean(each) for each in zip(*(e["test"] for e in found.values()), strict=True)],
            }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", help="of the schedule")
    parser.add_argument("--seeds", help="instead of the schedule's")
    parser.add_argument("--variants", help="instead of the schedule's, parted by ;")
    options = parser.parse_args()
    for task, seeds, names in SCHEDULE:
        if options.tasks is not None and task not in options.tasks.split(","):
            continue
        if options.variants is not None:
            names = tuple(name.strip() for name in options.variants.split(";"))
        for seed in seeds if options.seeds is None else map(int, options.seeds.split(",")):
            for name in names:
                done = {(run["task"], run["variant"], run["seed"]) for run in kept(NAME, SETTINGS)}
                if (task, name, seed) not in done:
                    found = values(trained(task, seed, name), task)
                    print(task, seed, name, [round(each, 4) for each in found["tune"]], flush=True)
                    run = {"task": task, "variant": name, "seed": seed, "values": found}
                    add_run(NAME, SETTINGS, run, summary)


if __name__ == "__main__":
    main()
