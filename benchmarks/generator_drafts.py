"""Drafts that other layers verify: by thresholds, and by one exit a fixed number at a time, both tuned.

Both are chosen on the same tuning prompts, by the weights read for a token: drafts change no text, so nothing
has to be promised of them (self-supervised exits page, 6.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generator_texts import Batches, Prompts, counted, identity

from lessen.measure.decoded import decoded, rightness
from lessen.plan import ExitRule, Point
from lessen.promise.generators import KeptTraces
from lessen.promise.kept import KEPT
from lessen.promise.language import path_of, sets_of_exits
from lessen.runtime.decoding import OFF, Decoding

LENGTHS = (2, 4, 8, 16)
"""Tokens of a draft at most."""

MIDDLE = 8
"""The length thresholds are chosen at, before the length is."""

STEPS = 5
"""Of each path that are tried, evenly from the most careful to the boldest."""


def drafted(batches: Batches, prompts: Prompts, decoding: Decoding) -> dict[str, Any]:
    """Texts of a way to draft: figures, and whether they are those of full depth."""
    model = batches.model
    off, whole = batches.continued(prompts, OFF)
    found, tally = batches.continued(prompts, decoding)
    right = rightness(model, prompts, found, off)
    line = decoded("spec", None, found, tally, right, off)
    return {**counted(line, tally, whole), **identity(model, prompts, off, found)}


def spec(batches: Batches, folder: str, tuning: Prompts, prompts: Prompts) -> dict[str, Any]:
    """Drafts as long as exits are sure, by the thresholds and the length that read the fewest weights."""
    form = batches.model.config.form()
    path = Path(folder) / KEPT
    rules = rules_to_try(path, form.exit_layers) if path.exists() else [batches.model.point.exits]
    tried = [each for rule in rules if rule is not None for each in [taken(batches, tuning, rule, MIDDLE)]]
    rule = ExitRule(**least(tried)["rule"])
    tried += [taken(batches, tuning, rule, most) for most in LENGTHS if most != MIDDLE]
    best = least(tried)
    point = Point(name="drafts", exits=ExitRule(**best["rule"])).model_dump(mode="json", exclude_none=True)
    chosen = {"point": point, "most": best["most"]}
    return {"tried": tried, **chosen, **drafted(batches, prompts, decoding_of(chosen))}


def rules_to_try(kept: Path, layers: Sequence[int]) -> list[ExitRule]:
    """Of the traces on tuning prompts: some steps of the path of every set of exits."""
    tune = KeptTraces.load(kept).tune
    rules: list[ExitRule] = []
    for asked in sets_of_exits(len(layers)):
        path = path_of(tune, tune.criteria[0], layers, asked=asked)
        places = sorted(
            {round(step * (len(path) - 1) / (STEPS - 1)) for step in range(STEPS)} if path else ()
        )
        rules += [rule for place in places if (rule := path[place].exits) is not None]
    return rules


def fixed(batches: Batches, tuning: Prompts, prompts: Prompts) -> dict[str, Any]:
    """Drafts by one exit for every token (LayerSkip's way, with our heads), exit and length chosen alike."""
    tried = [
        {"layer": layer} | taken(batches, tuning, always(layer), most)
        for layer in batches.model.config.form().exit_layers
        for most in LENGTHS
    ]
    best = least(tried)
    chosen = {"layer": best["layer"], "most": best["most"]}
    return {"tried": tried, **chosen, **drafted(batches, prompts, decoding_of(chosen))}


def taken(batches: Batches, tuning: Prompts, rule: ExitRule, most: int) -> dict[str, Any]:
    """What a way to draft takes on tuning prompts."""
    _, tally = batches.continued(tuning, Decoding("spec", rule, most=most))
    named = ("weights_per_token", "weight_passes", "acceptance", "draft_length")
    figures = {name: getattr(tally, name) for name in named}
    return {"rule": rule.model_dump(mode="json", exclude_none=True), "most": most, **figures}


def least(tried: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What read the fewest weights for a token."""
    return min(tried, key=lambda each: each["weights_per_token"])


def decoding_of(chosen: dict[str, Any]) -> Decoding:
    """How to draft, from a part's result."""
    rule = always(chosen["layer"]) if "layer" in chosen else ExitRule(**chosen["point"]["exits"])
    return Decoding("spec", rule, most=chosen["most"])


def always(layer: int) -> ExitRule:
    """Every token leaves at one exit."""
    return ExitRule(criterion="entropy", thresholds={layer: 1e6})
