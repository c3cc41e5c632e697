"""Self-supervised exits on a generator: what each kind of head learns in a given time, what is certified.

    python benchmarks/generator_exits.py [--runs tied:3,gate:3:8-20,shortlist:3::8192] [--smoke]

Heads are trained on IMDB reviews, all four kinds at the same depths and short lists at others and of other
lengths, for 3 minutes each. The kind and the places whose tokens cost the fewest layers at the bound on
tuning prompts, heads included, are then trained for 15, at those exits only at which tokens are asked there:
what costs more than it saves is no headline. Reviews they were not trained on say how often each agrees with
the whole model, and others certify 95 % agreement with 90 % confidence (loss C2; C1 and C3 beside it), on 500
prompts after 15 minutes of training and 100 after 3. The tables show test prompts, which nothing was chosen
on; the violation rate is that of 1,000 draws from calibration and test prompts together. Work in layers is
what tokens cost where skipped layers are never made up for; with an exact cache they are, in fewer passes.

Finished runs are kept in the results file under a key of their whole plan, and models in
`.cache/generator-exits/`: a stopped run goes on, in the middle of training or of continuing prompts.
`--smoke` runs two kinds on a tiny random model and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keyed
import numpy as np
import results
from generator_decode import plain
from keyed import About, Ledger

from lessen.artefact import KEPT
from lessen.loading import facts_of, load
from lessen.plan import FULL, Point
from lessen.promise.generators import LanguageAsked
from lessen.promise.language import (
    Decoder,
    LanguageLoss,
    evidently_within,
    freeze_path,
    judge,
    losses_of,
    measured,
)
from lessen.promise.prompts import KeptTraces, Prompting, traces_of
from lessen.promise.resplits import resplit_prompts
from lessen.promise.traces import Traces
from lessen.systems.generator import (
    LEARNING_RATES,
    LanguagePlan,
    compress_generator,
    language_exits,
    read_documents,
)
from lessen.train.language_exits import LanguageRecipe

NAME = "generator_exits"
DATA = "builtin:imdb-reviews"
LOSSES: tuple[LanguageLoss, ...] = ("disagreement", "selective", "block")
BOUNDS: dict[LanguageLoss, float] = {"disagreement": 0.05, "selective": 0.05, "block": 0.2}
DELTA = 0.1
DRAWS = 1000
RUNS = (
    "tied:3,gate:3,full:3,shortlist:3:8-16-23,"
    "shortlist:3,shortlist:3:20-24-27-29,shortlist:3::2048,shortlist:3::8192"
)
"""Kinds of heads, minutes of training; after which layers if not where the product puts them, separated by
dashes; and how many words, if not as many as there."""

FIELDS = ("kind", "minutes", "places", "words", "chosen")
"""What a run is called by."""

LONG = 15.0
"""Minutes of training of the kind that was chosen."""

PROMPTS = {"tune": 150, "calibration": 500, "test": 200}
FEWER = {"tune": 50, "calibration": 100, "test": 100}
"""Continued at most; fewer after short trainings, which only say which kind learns best."""

SHORT = 10
"""Minutes of training, below which it is short."""


def plan_for(model: str, about: About, seed: int) -> LanguagePlan:
    kind, minutes = about["kind"], about["minutes"]
    recipe = LanguageRecipe(
        steps=100_000, time_limit=60 * minutes, learning_rate=LEARNING_RATES[kind], seed=seed
    )
    most = FEWER if minutes < SHORT else PROMPTS
    return LanguagePlan(
        model=model,
        data=DATA,
        recipe=recipe,
        exits=language_exits(facts_of(model), about["places"], kind, words=about["words"]),
        promise=LanguageAsked(bounds=(BOUNDS["disagreement"],), confidence=1 - DELTA),
        tune_prompts=most["tune"],
        calibration_prompts=most["calibration"],
        test_prompts=most["test"],
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


def measure(plan: LanguagePlan, folder: Path) -> dict[str, Any]:
    """One kind of head: trained if it is not there, then certified for every loss and tested."""
    made = None if (folder / "training.json").exists() else compress_generator(plan, folder)
    model = load(folder, promises=False)
    found = KeptTraces.load(folder / KEPT)
    if made is None:
        documents, kept_in = read_documents(plan)["test"], folder.with_name(f"{folder.name}.test")
        test = traces_of(model, documents, plan.prompting, plan.criteria, kept_in=kept_in)
    else:
        test = made.tested
    decoder = Decoder(model.config.facts(), model.config.form(), plan.promise.block)
    pool, lines, tuned = both(found.calibration, test), [], {}
    for loss in LOSSES:
        path = freeze_path(found.tune, decoder, BOUNDS[loss], loss)
        if loss == "disagreement":
            tuned = at_bound(found.tune, path, decoder)
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
                "draws": draws(pool, path, decoder, loss) if path else None,
            }
        )
    prompts = {"calibration": len(found.calibration), "test": len(test)}
    return {
        "whole": decoder.whole_cost,
        "layers": len(decoder.shape.layers),
        "prompts": prompts,
        "tuned": tuned,
        "lines": lines,
    }


def at_bound(tune: Traces, path: Sequence[Point], decoder: Decoder) -> dict[str, Any]:
    """What a token costs at the boldest step that stays within the bound on tuning prompts, and its exits."""
    bound = BOUNDS["disagreement"]
    passed = evidently_within(losses_of("disagreement", tune, path, decoder, bound), bound) if path else 0
    rule = path[passed - 1].exits if passed else None
    asked = (
        [] if rule is None else [layer for layer in decoder.shape.exit_layers if rule.at(layer) is not None]
    )
    return {"block_equivalents": decoder.cost(tune, rule), "exits": asked}


def chosen_of(runs: Sequence[dict[str, Any]]) -> About:
    """Kind of head, places and words of the run that costs the fewest layers at the bound on tuning prompts.

    A run in which no token could leave is none of them, unless there is no other: then its places are all.
    """
    able = [run for run in runs if run["tuned"]["exits"]] or list(runs)
    best = min(able, key=lambda run: run["tuned"]["block_equivalents"])
    places = best["tuned"]["exits"] or [row["layer"] for row in best["exits"]]
    return {"kind": best["kind"], "places": places, "words": best["words"]}


def draws(pool: Traces, path: Any, decoder: Decoder, loss: LanguageLoss) -> dict[str, float]:
    """Shares of draws of half the pool that lead to a step over the bound on all of it."""
    return resplit_prompts(pool, path, decoder, BOUNDS[loss], DELTA, loss=loss, count=DRAWS)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """By run: agreement of each exit on tuning text, and the certified step on test prompts."""
    fields = ("epsilon", "certified", "criterion", "agreement", "early", "mean_layers", "exact", "draws")
    return {
        label(run): {
            "prompts": run["prompts"],
            "training": {name: run["training"][0][name] for name in ("steps", "tokens")},
            "chosen": run["chosen"],
            "tuned": run["tuned"] | {"whole": run["whole"]},
            "layers": run["layers"],
            "exits": {row["layer"]: round(row["agreement"], 4) for row in run["exits"]},
            "points": {
                line["loss"]: {name: line[name] for name in fields}
                | {"work": line["block_equivalents"] / run["whole"]}
                for line in run["lines"]
            },
        }
        for run in runs
    }


def label(run: About) -> str:
    """As tables call it; they show the places with how well each does."""
    words = "" if run["words"] is None else f" of {run['words']:,}"
    placed = "" if run["places"] is None else f" at {', '.join(map(str, run['places']))}"
    return f"{run['kind']}{words}{placed}, {run['minutes']:g} min"


def wanted(text: str) -> list[About]:
    """Of `--runs`."""
    runs = []
    for each in text.split(","):
        kind, minutes, places, words = (*each.split(":"), "", "")[:4]
        runs.append(
            {
                "kind": kind,
                "minutes": float(minutes),
                "places": [int(layer) for layer in places.split("-")] if places else None,
                "words": int(words) if words else None,
                "chosen": False,
            }
        )
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="builtin:smollm2-135m")
    parser.add_argument("--runs", default=RUNS, help="kind:minutes[:layer-...[:words]], separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        with tempfile.TemporaryDirectory() as place:
            for module in (results, keyed):
                vars(module).update(RESULTS=Path(place), CACHE=Path(place))
            smoke(plain(Path(place) / "tiny"))
        return
    every_run(options.model, DATA, wanted(options.runs), options.seed, {}, LONG)


def smoke(model: str) -> None:
    """All of it, with hardly any text."""
    few = {"prompting": Prompting(prompt_tokens=6, new_tokens=4), "criteria": ("entropy",)}
    prompts = dict.fromkeys(("tune_prompts", "calibration_prompts", "test_prompts"), 30)
    every_run(model, "builtin:movie-reviews", wanted("tied:0.05:1-2,full:0.05:1-2"), 0, few | prompts, 0.06)


def every_run(
    model: str, data: str, runs: Sequence[About], seed: int, changes: dict[str, Any], long: float
) -> None:
    """Every run not kept yet, then the one chosen, for `long` minutes; `changes` are of plans."""
    settings = {"model": model, "data": data, "seed": seed, "delta": DELTA, "draws": DRAWS, "bounds": BOUNDS}

    def plan_of(about: About) -> LanguagePlan:
        return plan_for(model, about, seed).model_copy(update={"data": data, **changes})

    def decides(about: About) -> dict[str, Any]:
        return settings | {"plan": plan_of(about).model_dump(mode="json")}

    def one(about: About) -> dict[str, Any]:
        name = f"{Path(model.split(':')[-1]).name}-{about['kind']}-{about['minutes']:g}m-{book.key(about)}"
        folder = results.CACHE / "generator-exits" / name
        found = measure(plan_of(about), folder)
        training = json.loads((folder / "training.json").read_text())
        return {"folder": name, "training": training["training"], "exits": training["exits"], **found}

    book = Ledger(NAME, FIELDS, settings, decides, summary)
    book.once(runs, one)
    short = [run for run in book.current(book.everything()) if not run["chosen"]]
    best = chosen_of(short) | {"minutes": long, "chosen": True}
    print(f"chosen on tuning prompts: {label(best)}", file=sys.stderr)
    book.once([best], one)
    book.sum_up()


if __name__ == "__main__":
    main()
