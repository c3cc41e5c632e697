"""Which profile, which score and which training: one choice changed at a time, one seed, on tuning rows.

    LESSEN_DATA=/path/to/data python benchmarks/token_ablation.py [--tasks sst2,mrpc]

Starts from the models of `token_quality.py`; test rows are not touched.
"""

from __future__ import annotations

import argparse
import json
import shutil
from typing import Any

import torch
from results import CACHE, write_results
from tasks import prepare
from token_quality import MODEL, PRECISION, SPEEDUPS, STAGE, at_task, fine_tuned

from lessen.artefact import write_json
from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.evaluation import evaluate
from lessen.runtime.text import encode
from lessen.systems.token_stages import TokenPlan, give_profile, passes_of
from lessen.train.fine_tuning import Recipe, fine_tune

CHOICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "acc (the default)": ({}, {}),
    "envelope": ({"family": "envelope"}, {}),
    "geometric": ({"family": "geometric"}, {}),
    "tilt": ({"family": "tilt"}, {}),
    "acc, mass 0.9": ({"mass": 0.9}, {}),
    "one epoch": ({}, {"epochs": 1.0}),
    "drawn, up to 3x": ({}, {"speedup": 3.0}),
    **{f"at {s:g}x only": ({}, {"speedup": s, "rates": "one"}) for s in (2.0, 3.0, 4.0, 4.8)},
    "sandwich": ({}, {"rates": "sandwich"}),
    "at 3x only, random": ({"score": "random"}, {"speedup": 3.0, "rates": "one"}),
    **{
        f"score {score}": ({"score": score}, {})
        for score in ("offdiag", "max_head", "last_query", "window", "cumulative", "random", "first_k")
    },
}
"""Changes to the token plan and to the recipe, by name."""


def measured(task: str, name: str) -> dict[str, float]:
    """Quality on the tuning rows at every speed-up; kept once measured."""
    place = CACHE / "tokens" / task / "ablation" / f"{name}.json"
    if place.exists():
        return json.loads(place.read_text())
    tokens, changes = CHOICES[name]
    model = load(fine_tuned(task, 0), promises=False)
    recipe = Recipe.model_validate(at_task(STAGE, task, 0).model_dump() | changes)
    parts = {
        part: read(str(prepare(task)[part])).with_labels_of(model.label_names) for part in ("train", "tune")
    }
    work = place.with_suffix(".work")
    give_profile(model, parts["train"], recipe, TokenPlan.model_validate(tokens), work)
    torch.manual_seed(0)
    fine_tune(model, parts["train"], recipe, work / "checkpoints", passes=passes_of(model, recipe))
    model = model.to(getattr(torch, PRECISION))
    encoded = encode(model.tokenizer, parts["tune"].texts, model.config.facts().max_tokens)
    labels = parts["tune"].labels or []
    found = {
        f"{speedup:g}": evaluate(model, encoded, labels, model.dial(speedup=speedup).point).value
        for speedup in SPEEDUPS
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    write_json(place, found)
    shutil.rmtree(work)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="sst2,mrpc")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task in options.tasks.split(","):
        for name in CHOICES:
            found.setdefault(task, {})[name] = measured(task, name)
            print(task, name, found[task][name], flush=True)
            write_results("token_ablation", {"model": MODEL, "seed": 0, "rows": "tune", "tasks": found})


if __name__ == "__main__":
    main()
