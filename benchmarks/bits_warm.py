"""Binary weights for a pre-trained model: MiniLM taught by its float self, beside learning alone.

    LESSEN_DATA=/path/to/data python benchmarks/bits_warm.py [--tasks sst2,mrpc] [--seeds 0,1,2]

Every variant starts from the same fine-tuned model with exits (that of `token_quality.py`) and has the second
stage of `--system binarize`. Work stays in `.cache/bits/`; what is there is not made again.
"""

from __future__ import annotations

import argparse
from statistics import mean, stdev
from typing import Any

import torch
from results import CACHE, write_results
from tasks import TASKS, prepare
from token_quality import fine_tuned

from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.evaluation import answers_of_every_exit
from lessen.measure.metrics import quality
from lessen.reshaping import in_signs
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.binarizing import Binarizing, binarized
from lessen.systems.milestone import Milestone
from lessen.train.fine_tuning import fine_tune

VARIANTS: dict[str, dict[str, Any]] = {
    "W1A32": {},
    "W1A8": {"activation_bits": 8},
    "W1A1": {"activation_bits": 1},
    "W1A32, float embedding": {"embedding": False},
    "W1A32, alone": {"objective": "depth_weighted", "teacher": None},
    "W1A32, ste_clip": {"gradient": "ste_clip"},
}
"""Changes to the recipe."""


def trained(task: str, seed: int, variant: str) -> Any:
    """The packed model, made if it is not there yet."""
    dense = load(fine_tuned(task, seed), promises=False)
    place = f"{task}-seed{seed}", variant.replace(", ", "-").replace(" ", "-")
    milestone = Milestone(CACHE.joinpath("bits", "minilm-l6", *place))
    if not milestone.reached():
        own = {"max_tokens": TASKS[task].max_tokens, "seed": seed} | VARIANTS[variant]
        recipe = Binarizing.model_validate(system_of("binarize").stages[1].model_dump() | own)
        train = read(str(prepare(task)["train"])).with_labels_of(dense.label_names)
        torch.manual_seed(seed)
        model = binarized(dense, recipe)
        teacher = None if recipe.teacher is None else dense
        record = fine_tune(model, train, recipe, milestone.folder / "checkpoints", teacher=teacher)
        packed = in_signs(model)
        milestone.leave(packed.transformer.state_dict(), packed.config.form(), record)
    return milestone.model(dense)


def values(model: Any, task: str, part: str) -> list[float]:
    """Quality of every exit on a part of the rows."""
    table = read(str(prepare(task)[part])).with_labels_of(model.label_names)
    encoded = encode(model.tokenizer, table.texts, TASKS[task].max_tokens)
    found = answers_of_every_exit(model.eval(), encoded)
    return [quality(each, table.labels or [], model.problem_type) for each in found]


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over seeds, and what was lost against the dense model of the same seed."""
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        seeds = [run["variants"] for run in runs if run["task"] == task]
        for name in dict.fromkeys(name for variants in seeds for name in variants):
            found = [(v[name]["test"], v["dense"]["test"]) for v in seeds if name in v]
            last = [exits[-1] for exits, _ in found]
            lines.setdefault(task, {})[name] = {
                "seeds": len(found),
                "last": mean(last),
                "last_sd": stdev(last) if len(last) > 1 else None,
                "loss": mean(dense[-1] - exits[-1] for exits, dense in found),
                "exits": [mean(each) for each in zip(*(exits for exits, _ in found), strict=True)],
            }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="sst2,mrpc")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--variants", default="; ".join(VARIANTS))
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        for task in options.tasks.split(","):
            dense = load(fine_tuned(task, seed), promises=False)
            found = {"dense": {part: values(dense, task, part) for part in ("tune", "test")}}
            runs.append({"task": task, "seed": seed, "variants": found})
            for variant in (name.strip() for name in options.variants.split(";")):
                model = trained(task, seed, variant)
                found[variant] = {part: values(model, task, part) for part in ("tune", "test")}
                print(task, seed, variant, [round(each, 4) for each in found[variant]["tune"]], flush=True)
                write_results("bits_warm", {"runs": runs, "summary": summary(runs)})


if __name__ == "__main__":
    main()
