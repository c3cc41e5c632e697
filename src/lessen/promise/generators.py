"""Calibrate a generator with the traces kept in its folder, or on new text (self-supervised exits, 6)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import save_file

from lessen.artefact import KEPT
from lessen.certificate import Generation, keys_of, one_digest
from lessen.data.splits import without_keys, without_repeats
from lessen.data.table import Table, row_key
from lessen.errors import InputError
from lessen.hf import LessenGenerator
from lessen.history import learned_by, texts_learned
from lessen.kept import content_of, keys_in, pack_keys, unpack_keys
from lessen.loading import load
from lessen.model.digests import base_digest, heads_digest
from lessen.plan import Decay, Expectation, Point, Precision, Size
from lessen.promise.batches import CALIBRATING
from lessen.promise.calibrate import Loss
from lessen.promise.drafting import choose_drafts
from lessen.promise.language import Decoder, LanguageLoss, Thresholds, freeze_path, judge, measured, why_not
from lessen.promise.record import Basis, count_attempt
from lessen.promise.settle import Asked, Calibration, check_enough, settle
from lessen.promise.traces import Traces, trace
from lessen.records import Strict
from lessen.runtime.decoding import MOST_EARLY
from lessen.runtime.text import encode


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


class Prompting(Strict):
    """How documents become prompts and continuations.

    Attributes:
        prompt_tokens: The beginning of each document, at most so long.
        new_tokens: What the model adds, at most (T of the page).
    """

    prompt_tokens: Size = 64
    new_tokens: Size = 64


@dataclass(frozen=True)
class KeptTraces:
    """`calibration.safetensors` of a generator: traces, so that it can be calibrated without its text.

    Attributes:
        tune: On the prompts paths are made from.
        calibration: On the prompts promises are tested on.
        seen: Hashes of the documents the model has learned from.
        prompting: How prompts were made.
        precision: Of the weights.
        subject: SHA-256 of weights, tokenizer and form of the model.
        before: Those of `seen` it had learned from before the run that made it.
    """

    tune: Traces
    calibration: Traces
    seen: frozenset[str]
    prompting: Prompting
    precision: Precision
    subject: str
    before: frozenset[str] = frozenset()

    def save(self, path: Path) -> None:
        """Write everything as one safetensors file."""
        tensors = {"seen": pack_keys(sorted(self.seen)), "before": pack_keys(sorted(self.before))}
        for name, part in (("tune", self.tune), ("calibration", self.calibration)):
            tensors |= {
                f"{name}.scores": torch.from_numpy(np.ascontiguousarray(part.scores)),
                f"{name}.right": torch.from_numpy(np.ascontiguousarray(part.right)),
                f"{name}.lengths": torch.from_numpy(part.lengths),
                f"{name}.keys": pack_keys(part.keys),
            }
        about = {
            "criteria": ",".join(self.tune.criteria),
            "prompting": self.prompting.model_dump_json(),
            "precision": self.precision,
            "subject": self.subject,
        }
        save_file(tensors, path, metadata=about)

    @classmethod
    def load(cls, path: Path) -> KeptTraces:
        """The inverse of `save`.

        Raises:
            ArtefactError: When the file is missing or damaged.
        """
        with content_of(path, "compress again") as (about, tensors):
            criteria = tuple(about["criteria"].split(","))

            def part(name: str) -> Traces:
                scores, right, lengths = (
                    tensors[f"{name}.{field}"].numpy() for field in ("scores", "right", "lengths")
                )
                return Traces(criteria, scores, right, lengths, unpack_keys(tensors[f"{name}.keys"]))

            return cls(
                tune=part("tune"),
                calibration=part("calibration"),
                seen=frozenset(unpack_keys(tensors["seen"])),
                prompting=Prompting(**json.loads(about["prompting"])),
                precision=cast(Precision, about["precision"]),
                subject=about["subject"],
                before=keys_in(tensors, "before"),
            )


def check_room(model: LessenGenerator, prompting: Prompting) -> None:
    """Refuse prompts that with their continuation are longer than the model.

    Raises:
        InputError: With both lengths.
    """
    facts, wanted = model.config.facts(), prompting.prompt_tokens + prompting.new_tokens - 1
    most = facts.max_tokens
    if facts.decoder is not None:  # each side has positions of its own
        wanted = max(prompting.prompt_tokens, prompting.new_tokens)
    if wanted > most:
        raise InputError(f"prompts and what is added come to {wanted} tokens, the model takes {most}")


def traces_of(
    model: LessenGenerator,
    table: Table,
    prompting: Prompting,
    criteria: Sequence[str],
    **going_on: Any,
) -> Traces:
    """Traces of the beginnings of documents, a prompt from each.

    Args:
        model: With language exits.
        table: Documents.
        prompting: How they become prompts.
        criteria: Names of those to score by.
        going_on: `kept_in` and `watch`, as in `trace`.

    Raises:
        InputError: When prompt and continuation are longer than the model.
    """
    check_room(model, prompting)
    prompts, keys = prompts_of(model, table, prompting), [row_key(text) for text in table.texts]
    return trace(
        model.eval().transformer,
        prompts,
        keys,
        criteria=criteria,
        new_tokens=prompting.new_tokens,
        stop=model.stop_tokens,
        **going_on,
    )


def prompts_of(model: LessenGenerator, table: Table, prompting: Prompting) -> list[list[int]]:
    """The beginning of each document; where it is continued, without tokens that end a text."""
    encoded = encode(model.tokenizer, table.texts, prompting.prompt_tokens)
    if model.config.facts().decoder is not None:
        return [list(row.ids) for row in encoded]
    ends = model.stop_tokens
    return [[token for token in row.ids if token not in ends] or list(row.ids) for row in encoded]


def unseen(folder: Path, table: Table) -> tuple[Table, int]:
    """Documents that training, tuning and calibration did not see, as far as a folder tells; how many did.

    Raises:
        InputError: When none is left.
    """
    seen = {*keys_of(folder), *learned_by(folder)}
    if (folder / KEPT).exists():
        kept = KeptTraces.load(folder / KEPT)
        seen |= set(kept.tune.keys) | set(kept.calibration.keys)
    fresh, known = without_keys(table, seen)
    if not len(fresh):
        raise InputError(f"{table.name}: the model was trained, tuned or calibrated on every document of it")
    return fresh, known


def prompting_of(folder: Path, prompt_tokens: int | None = None, new_tokens: int | None = None) -> Prompting:
    """How prompts are made: as a folder's were to calibrate it, but for what is given."""
    kept = KeptTraces.load(folder / KEPT).prompting if (folder / KEPT).exists() else Prompting()
    given = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
    return kept.model_copy(update={name: value for name, value in given.items() if value is not None})


def keep_traces(
    model: LessenGenerator,
    tables: dict[str, Table],
    prompting: Prompting,
    criteria: Sequence[str],
    going_on: Callable[[str], AbstractContextManager[dict[str, Any]]] = lambda part: nullcontext({}),
    before: frozenset[str] = frozenset(),
) -> KeptTraces:
    """Traces on the `tune` and `calibration` tables, and hashes of what the model has learned from.

    Args:
        model: With language exits.
        tables: By name.
        prompting: How documents become prompts.
        criteria: Names of those to score by.
        going_on: For each of the two names, `kept_in` and `watch` of `trace` while its prompts are continued.
        before: Hashes of what the model had learned from before these tables.
    """

    def traced(part: str, table: Table) -> Traces:
        with going_on(part) as options:
            return traces_of(model, table, prompting, criteria, **options)

    return KeptTraces(
        tune=traced("tune", tables["tune"]),
        calibration=traced("calibration", without_repeats(tables["calibration"])),
        seen=texts_learned(tables, before),
        before=before,
        prompting=prompting,
        precision=cast(Precision, model.precision),
        subject="",
    )


def traces_for(
    folder: Path,
    data: Table | None,
    precision: Precision | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
    again: Callable[[], Table] | None = None,
    work: Path | None = None,
) -> tuple[LessenGenerator, KeptTraces, int]:
    """A generator, the traces to calibrate it with, and how many documents were left out as seen.

    Args:
        folder: Written by `lessen compress`.
        data: New documents; None for the traces kept with the model.
        precision: Of the weights; as stored if None.
        watch: Told how many prompts are finished, of how many.
        again: Reads the documents of the kept traces, where these are another precision's.
        work: Where continued prompts are kept until all are, so that a stopped call goes on; `FOLDER.work`
            if None.

    Raises:
        InputError: When there are no kept traces, or they are another precision's or another model's.
    """
    model = load(folder, precision=precision, promises=False)
    if not isinstance(model, LessenGenerator) or not model.config.form().language_exits:
        raise InputError(f"{folder} has no language exits to calibrate")
    own = cast(Precision, model.precision)
    if not (folder / KEPT).exists():
        raise InputError(f"{folder} has no {KEPT}; only a folder made by `lessen compress` can be calibrated")
    kept = KeptTraces.load(folder / KEPT)
    if one_digest(folder) != kept.subject:
        raise InputError(
            f"{folder / KEPT}: it belongs to other weights, or another tokenizer or form; compress again"
        )
    if data is None:
        if own == kept.precision:
            return model, kept, 0
        if again is None:
            raise InputError(
                f"the kept traces are those of {kept.precision}; give --data to calibrate in {own}"
            )
        data = again()
    seen = kept.seen | set(kept.tune.keys)
    fresh = without_repeats(without_keys(data, seen)[0])
    if not len(fresh):
        raise InputError(f"{data.name}: training or the making of exit rules saw every document of it")
    work = (work or folder.resolve().with_name(f"{folder.resolve().name}.work")) / CALIBRATING
    options = {"kept_in": work, "watch": watch}
    traces = traces_of(model, fresh, kept.prompting, kept.tune.criteria, **options)
    shutil.rmtree(work)
    if not any(work.parent.iterdir()):
        work.parent.rmdir()
    return model, replace(kept, calibration=traces, precision=own), len(data) - len(fresh)


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
