"""Self-supervised exits on a generator: what each kind of head learns in a given time, and what is certified.

    python benchmarks/generator_exits.py [--model builtin:smollm2-135m] [--minutes 15] [--kinds tied,gate,...]

Heads are trained on IMDB reviews for so many minutes each, all kinds at the same depths. Reviews they were
not trained on say how often each agrees with the whole model, and 500 others certify 95 % agreement with 90 %
confidence (loss C2; C1 and C3 beside it). The tables show test prompts, which nothing was chosen on; the
violation rate is that of 1,000 draws from calibration and test prompts together. Work in layers is what
tokens cost where skipped layers are never made up for; with an exact cache they are, in fewer passes.

Finished kinds are kept in the results file, and models in `.cache/generator-exits/`: a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from results import CACHE, add_run, kept

from lessen.guarantee import certify, plug_in
from lessen.loading import depth_of, load
from lessen.plan import FULL
from lessen.promise.generators import KeptTraces, LanguageAsked, traces_of
from lessen.promise.kept import KEPT
from lessen.promise.language import Decoder, LanguageLoss, freeze_path, judge, losses_of, measured
from lessen.promise.traces import Traces
from lessen.systems.generator import (
    LEARNING_RATES,
    LanguagePlan,
    compress_generator,
    language_exits,
    read_documents,
)
from lessen.train.language_exits import LanguageRecipe

DATA = "builtin:imdb-reviews"
LOSSES: tuple[LanguageLoss, ...] = ("disagreement", "selective", "block")
BOUNDS: dict[LanguageLoss, float] = {"disagreement": 0.05, "selective": 0.05, "block": 0.2}
DELTA = 0.1
DRAWS = 1000


def plan_for(model: str, kind: Any, minutes: float, layers: Sequence[int] | None, seed: int) -> LanguagePlan:
    recipe = LanguageRecipe(
        steps=100_000, time_limit=60 * minutes, learning_rate=LEARNING_RATES[kind], seed=seed
    )
    return LanguagePlan(
        model=model,
        data=DATA,
        recipe=recipe,
        exits=language_exits(depth_of(model), layers, kind),
        promise=LanguageAsked(bounds=(BOUNDS["disagreement"],), confidence=1 - DELTA),
        seed=seed,
    )


def both(one: Traces, other: Traces) -> Traces:
    """Prompts of two sets as one pool."""
    return replace(
        one,
        scores=np.concatenate([one.scores, other.scores], 2),
        right=np.concatenate([one.right, other.right], 1),
        lengths=np.concatenate([one.lengths, other.lengths]),
        keys=(*one.keys, *other.keys),
    )


def violations(pool: Traces, path: Any, decoder: Decoder, loss: LanguageLoss) -> dict[str, float]:
    """Share of draws of half the pool that lead to a step over the bound on all of it."""
    bound = BOUNDS[loss]
    losses = losses_of(loss, pool, path, decoder, bound)
    over, generator = losses.risks > bound, np.random.default_rng(0)
    found = {"certified": 0, "plug-in": 0}
    for _ in range(DRAWS):
        drawn = losses.take(generator.integers(len(pool), size=len(pool) // 2))
        for rule, chosen in (
            ("certified", certify(drawn, bound, DELTA)),
            ("plug-in", plug_in(drawn, bound)),
        ):
            found[rule] += chosen.step is not None and bool(over[chosen.step])
    return {rule: count / DRAWS for rule, count in found.items()}


def measure(plan: LanguagePlan, folder: Path) -> dict[str, Any]:
    """One kind of head: trained if it is not there, then certified for every loss and tested."""
    if not (folder / "training.json").exists():
        compress_generator(plan, folder)
    model = load(folder, promises=False)
    found = KeptTraces.load(folder / KEPT)
    test = traces_of(model, read_documents(plan)["test"], plan.prompting, plan.criteria)
    decoder = Decoder(model.config.facts(), model.config.form(), plan.promise.block)
    pool, lines = both(found.calibration, test), []
    for loss in LOSSES:
        path = freeze_path(found.tune, decoder, BOUNDS[loss], loss)
        verdict = judge(found.calibration, path, decoder, (BOUNDS[loss],), DELTA, loss=loss)[0]
        step = FULL if verdict.chosen.step is None else path[verdict.chosen.step]
        lines.append(
            {
                "loss": loss,
                "epsilon": BOUNDS[loss],
                "steps": len(path),
                "certified": verdict.chosen.step is not None,
                "criterion": step.exits.criterion if step.exits else None,
                **measured(test, step.exits, decoder),
                "violations": violations(pool, path, decoder, loss) if path else None,
            }
        )
    return {"whole": decoder.whole_cost, "lines": lines}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """By kind: agreement of each exit on tuning text, and the certified step on test prompts."""
    fields = ("certified", "agreement", "early", "mean_layers", "violations")
    return {
        run["kind"]: {
            "exits": {row["layer"]: round(row["agreement"], 4) for row in run["exits"]},
            "points": {
                line["loss"]: {name: line[name] for name in fields}
                | {"work": line["block_equivalents"] / run["whole"]}
                for line in run["lines"]
            },
        }
        for run in runs
    }


def main() -> None:

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="builtin:smollm2-135m")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--kinds", default="tied,gate,shortlist,full")
    parser.add_argument("--exits", help="layers run before each, such as 8,15,22; spread evenly if not given")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    layers = [int(layer) for layer in options.exits.split(",")] if options.exits else None
    settings = {
        "model": options.model,
        "data": DATA,
        "minutes": options.minutes,
        "layers": layers,
        "seed": options.seed,
        "delta": DELTA,
        "bounds": BOUNDS,
    }
    for kind in options.kinds.split(","):
        if any(run["kind"] == kind for run in kept("generator_exits", settings)):
            continue
        name = options.model.split(":")[-1].replace("/", "-")
        places = "even" if layers is None else "-".join(map(str, layers))
        folder = CACHE / "generator-exits" / f"{name}-{kind}-{places}-{options.minutes:g}m-{options.seed}"
        plan = plan_for(options.model, kind, options.minutes, layers, options.seed)
        found = measure(plan, folder)
        training = json.loads((folder / "training.json").read_text())
        run = {"kind": kind, "training": training["training"], "exits": training["exits"], **found}
        add_run("generator_exits", settings, run, summary)
        print(kind, json.dumps(summary([run])[kind]), flush=True)


if __name__ == "__main__":
    main()
