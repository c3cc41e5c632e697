"""The prompts a generator is judged by: made of documents, and what was found on them, kept in its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file

from lessen.artefact import KEPT
from lessen.certificate import check_kept, keys_of
from lessen.data.splits import without_keys, without_repeats
from lessen.data.table import Table, row_key
from lessen.errors import InputError
from lessen.hf import LessenGenerator
from lessen.history import learned_by, texts_learned
from lessen.kept import content_of, keys_in, pack_keys, unpack_keys
from lessen.loading import load
from lessen.plan import Precision, Size
from lessen.promise.batches import CALIBRATING
from lessen.promise.traces import Traces, trace
from lessen.records import Strict
from lessen.runtime.text import encode


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
    check_kept(folder, kept.subject)
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
