"""Calibrate a generator: what is asked of it, and Points that keep that (self-supervised exits page, 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from pydantic import Field, model_validator

from lessen.certificate import Generation
from lessen.errors import InputError
from lessen.hf import LessenGenerator
from lessen.model.digests import base_digest, heads_digest
from lessen.plan import Decay, Expectation, Point, Size
from lessen.promise.drafting import choose_drafts
from lessen.promise.language import Decoder, LanguageLoss, Thresholds, freeze_path, judge, measured, why_not
from lessen.promise.prompts import KeptTraces
from lessen.promise.record import Basis, count_attempt
from lessen.promise.settle import Asked, Calibration, check_enough, settle
from lessen.promise.traces import Traces
from lessen.promise.verdict import Loss
from lessen.runtime.decoding import MOST_EARLY


class LanguageAsked(Asked):
    """What is to be promised of a generator.

    Attributes:
        bounds: Shares allowed; 0.05 is a target agreement of 95 %.
        loss: `disagreement`, `selective` or `block`; see `promise.language.losses_of`.
        block: Tokens that must all be right, for the loss `block`.
        one_threshold: All exits have the same threshold (CALM).
        decay: Tau of a threshold that grows bolder along a text; see `depth/decay.py`.
    """

    bounds: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (0.05,)
    loss: Loss = "disagreement"
    block: Size = 32
    one_threshold: bool = False
    decay: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _is_of_tokens(self) -> LanguageAsked:
        if self.loss == "drop":
            raise ValueError("loss: text has no labels to lose; use disagreement, selective or block")
        return self

    def thresholds(self, new_tokens: int) -> Thresholds:
        """What paths are made of, for texts of at most so many tokens."""
        decay = None if self.decay is None else Decay(rate=self.decay, tokens=new_tokens)
        return Thresholds(self.one_threshold, decay)


def calibrate_generator(
    folder: Path, model: LessenGenerator, kept: KeptTraces, asked: LanguageAsked, *, dropped: int = 0
) -> Calibration:
    """Choose and record the Points of a generator whose weights lie in `folder`; see `settle`.

    Args:
        folder: Holds weights and `config.json`.
        model: Loaded from there, or saved there.
        kept: Traces to calibrate with.
        asked: What is to be promised.
        dropped: Documents left out because they had been seen.

    Raises:
        InputError: When too few prompts are left, or a block is longer than their continuations.
    """
    check_enough(len(kept.calibration), dropped, "prompts")
    if asked.loss == "block" and asked.block > kept.prompting.new_tokens:
        raise InputError(
            f"a block of {asked.block} tokens is longer than the {kept.prompting.new_tokens} new tokens of a "
            "continuation; give a smaller --block"
        )
    loss = cast(LanguageLoss, asked.loss)
    decoder = Decoder(model.config.facts(), model.config.form(), asked.block)
    thresholds = asked.thresholds(kept.prompting.new_tokens)
    path = freeze_path(kept.tune, decoder, asked.bounds[0], loss, thresholds)
    verdicts = judge(kept.calibration, path, decoder, asked.bounds, asked.delta, loss=loss, rule=asked.rule)
    reasons = {
        verdict.epsilon: why_not(kept.calibration, path, decoder, verdict, loss)
        for verdict in verdicts
        if verdict.chosen.step is None
    }
    basis = Basis(
        outputs=kept.calibration,
        dropped=dropped,
        path=path,
        loss=asked.loss,
        rule=asked.rule,
        delta=asked.delta,
        reference="full depth",
        reference_weights=None,
        score="agreement",
        precision=kept.precision,
        attempt=count_attempt(folder, kept.calibration, asked.model_dump(mode="json")),
        generation=Generation(
            prompt_tokens=kept.prompting.prompt_tokens,
            new_tokens=kept.prompting.new_tokens,
            block=asked.block,
            never_early=tuple(sorted(model.stop_tokens)),
            most_early=MOST_EARLY,
            heads=heads_digest(model.transformer),
            base=base_digest(model.transformer),
        ),
    )

    def expected(point: Point, tuning: bool) -> Expectation:
        traces, split = (kept.tune, "tuning") if tuning else (kept.calibration, "calibration")
        return expectation_of(traces, point, decoder, split)

    drafts = choose_drafts(kept.tune, decoder)
    model.config.drafts = None if drafts is None else drafts.model_dump(mode="json", exclude_none=True)
    step = verdicts[0].chosen.step
    dearer = None if step is None else dearer_than_full(kept.tune, path[step], decoder)
    return settle(folder, model, asked, basis, verdicts, reasons, expected, dearer)


def dearer_than_full(tune: Traces, point: Point, decoder: Decoder) -> str | None:
    """In a line, that a Point costs more than full depth on the tuning prompts; None where it does not."""
    cost, whole = decoder.cost(tune, point.exits), decoder.whole_cost
    if cost < whole:
        return None
    return (
        f"its exits cost more than they save: {cost:.1f} layers a token on the tuning prompts, {whole:.1f} "
        "at full depth; try fewer --exits or another --head"
    )


def expectation_of(traces: Traces, point: Point, decoder: Decoder, split: str) -> Expectation:
    """What a Point did on some prompts: agreement of all tokens, and layers before a token was named."""
    did = measured(traces, point.exits, decoder)
    return Expectation(
        split=split,
        rows=len(traces),
        metric="agreement",
        value=did["agreement"],
        full_value=1.0,
        mean_layers=did["mean_layers"],
    )
