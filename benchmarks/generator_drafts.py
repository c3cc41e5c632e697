"""Drafts that other layers verify: as the product chose them, and by one exit a fixed number at a time.

The second way is tuned here, by the weights read for a token on tuning prompts: drafts change no text, so
nothing has to be promised of them (self-supervised exits page, 6.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from generator_texts import Batches, Prompts, counted, identity

from lessen.certificate import is_certified
from lessen.hf import LessenForCausalLM
from lessen.measure.decoded import decoded, rightness
from lessen.plan import ExitRule, Point
from lessen.promise.drafting import LENGTHS
from lessen.runtime.decoding import OFF, Decoding


def early_point(model: LessenForCausalLM) -> Point | None:
    """The first Point with a certificate at which tokens leave: the model's own need not be one.

    Without certificates, as in `--smoke`, the model's own if tokens leave at it.
    """
    points = [*model.points.values(), model.point]
    return next(
        (each for each in points if each.exits and is_certified(each)),
        model.point if model.point.exits else None,
    )


def drafted(batches: Batches, prompts: Prompts, decoding: Decoding) -> dict[str, Any]:
    """Texts of a way to draft: figures, and whether they are those of full depth."""
    model = batches.model
    off, whole = batches.continued(prompts, OFF)
    found, tally = batches.continued(prompts, decoding)
    right = rightness(model, prompts, found, off)
    line = decoded("spec", None, found, tally, right, off)
    return {**counted(line, tally, whole), **identity(model, prompts, off, found)}


def spec(batches: Batches, prompts: Prompts) -> dict[str, Any]:
    """Drafts as long as exits are sure, as we make them; by the Point where none was found to pay."""
    model = batches.model
    found = model.config.drafting()
    decoding = model.decoding("spec", None if found is not None else early_point(model))
    assert decoding.rule is not None
    rule = decoding.rule.model_dump(mode="json", exclude_none=True)
    foretold = None if found is None else found.weights_saved
    chosen = {"rule": rule, "most": decoding.most, "foretold": foretold}
    return {**chosen, **drafted(batches, prompts, decoding_of(chosen))}


def fixed(batches: Batches, tuning: Prompts, prompts: Prompts) -> dict[str, Any]:
    """Drafts by one exit for every token (LayerSkip's way, with our heads), exit and length tuned."""
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
    rule = always(chosen["layer"]) if "layer" in chosen else ExitRule(**chosen["rule"])
    return Decoding("spec", rule, most=chosen["most"])


def always(layer: int) -> ExitRule:
    """Every token leaves at one exit."""
    return ExitRule(criterion="entropy", thresholds={layer: 1e6})
