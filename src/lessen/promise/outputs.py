"""What a model answered at every exit on some rows: all that calibration needs, without the texts.

Where tokens may leave, every exit answers once for each of a few settings of how many do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from lessen.data.table import Table, row_key
from lessen.depth.criteria import exits_of_every_row
from lessen.errors import PlanError
from lessen.kept import content_of, keys_in, pack_keys, unpack_keys
from lessen.measure.evaluation import answers_of_every_exit
from lessen.measure.metrics import as_labels, row_scores
from lessen.model.macs import row_macs
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point, Precision
from lessen.records import parse
from lessen.runtime.retention import left_at
from lessen.runtime.text import Encoded, encode

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What it takes to score answers.

    Attributes:
        problem_type: As in transformers.
        layers: Depth of each exit (1-based), ascending.
        label_range: Regression: spread of the labels.
    """

    problem_type: str
    layers: tuple[int, ...]
    label_range: float = 1.0

    def depths(self, taken: NDArray[np.int64]) -> Array:
        """Layers an answer took, given its index among those of `Outputs`; any shape."""
        return np.asarray(self.layers, dtype=float)[taken % len(self.layers)]


@dataclass(frozen=True)
class Outputs:
    """Answers of every exit on some rows, from the one with least work to the whole model's.

    Attributes:
        logits: `[answers, rows, outputs]`; an answer for each exit of each setting, the whole model's last.
        labels: `[rows]` or `[rows, labels]`; None where the rows have none.
        keys: Hash of each row's text, `[rows]`, as 16 hex digits.
        tokens: Number of tokens of each row, `[rows]`.
        reference: Answers of the reference model, `[rows, outputs]`; the whole model's if None.
        settings: How many tokens leave: Points without exits, boldest first, "full" last.
        macs: MACs of each answer, `[answers, rows]`, exit heads asked in vain not counted.
    """

    logits: Array
    labels: Array | None
    keys: tuple[str, ...]
    tokens: Array | None = None
    reference: Array | None = None
    settings: tuple[Point, ...] = (FULL,)
    macs: Array | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def digest(self) -> str:
        """SHA-256 of the answers, with their rows."""
        content = hashlib.sha256(" ".join(self.keys).encode())
        for array in (self.logits, self.labels, self.reference):
            if array is not None:
                content.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
        return content.hexdigest()

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Outputs:
        """Some rows, in the order given."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            logits=self.logits[:, chosen],
            labels=None if self.labels is None else self.labels[chosen],
            keys=tuple(self.keys[i] for i in chosen),
            tokens=None if self.tokens is None else self.tokens[chosen],
            reference=None if self.reference is None else self.reference[chosen],
            macs=None if self.macs is None else self.macs[:, chosen],
        )

    def at(self, setting: int) -> Outputs:
        """The answers of one setting alone, as if it were the whole model."""
        exits = len(self.logits) // len(self.settings)
        first = exits * (setting % len(self.settings))
        part = slice(first, first + exits)
        macs = None if self.macs is None else self.macs[part]
        return replace(self, logits=self.logits[part], macs=macs, settings=(FULL,))

    def reference_answers(self) -> Array:
        """`[rows, outputs]`."""
        return self.logits[-1] if self.reference is None else self.reference

    def answers_taken(self, path: Sequence[Point], task: Task) -> NDArray[np.int64]:
        """Index of the answer each row gets, at each step of a path, `[rows, steps]`.

        Raises:
            PlanError: For a Point at which other numbers of tokens leave than in any of the settings.
        """
        places = {(setting.retention, setting.token_score): i for i, setting in enumerate(self.settings)}
        exits = len(task.layers)
        taken = np.empty((len(self), len(path)), dtype=np.int64)
        ruled: dict[int, list[int]] = {}
        for step, point in enumerate(path):
            place = places.get((point.retention, point.token_score))
            if place is None:
                raise PlanError(
                    f"point {point.name!r} takes tokens away in a way these answers were not given in"
                )
            taken[:, step] = place * exits + exits - 1
            if point.exits is not None:
                ruled.setdefault(place * exits, []).append(step)
        for first, steps in ruled.items():
            answers = [torch.from_numpy(each).float() for each in self.logits[first : first + exits]]
            rules = [rule for step in steps if (rule := path[step].exits) is not None]
            taken[:, steps] = first + exits_of_every_row(rules, task.layers, answers).numpy()
        return taken

    def cost_of(self, taken: NDArray[np.int64], task: Task) -> Array:
        """Work of each step as a share of the whole model's, `[steps]`: in MACs if known, else in layers."""
        if self.macs is None:
            return np.asarray(task.depths(taken).mean(0) / task.layers[-1])
        return np.asarray(np.take_along_axis(self.macs.T, taken, 1).mean(0) / self.macs[-1].mean())

    def scores(self, task: Task, *, agreement: bool = False) -> tuple[Array, Array]:
        """Scores in [0, 1] of the reference, `[rows]`, and of every answer, `[rows, answers]`.

        Against the labels; or, with `agreement` or without labels, against the reference's own answers.
        """
        reference = self.reference_answers()
        truth = self.labels
        if agreement or truth is None:
            truth = as_labels(reference, task.problem_type)
        own = [row_scores(answer, truth, task.problem_type, task.label_range) for answer in self.logits]
        return row_scores(reference, truth, task.problem_type, task.label_range), np.stack(own, 1)


def task_of(model: Any, label_range: float) -> Task:
    """The task of a `LessenForSequenceClassification`; `label_range` as in `Task`."""
    return Task(model.problem_type, model.transformer.shape.exit_layers, label_range)


def settings_of(points: Iterable[Point]) -> tuple[Point, ...]:
    """The different ways in which tokens leave at some Points, boldest first, "full" last."""
    ways: dict[object, Point] = {}
    for point in points:
        if point.retention is not None:
            ways.setdefault((point.retention, point.token_score), point)
    bold = sorted(ways.values(), key=lambda point: sum(point.retention or ()))
    plain = [Point(name=p.name, retention=p.retention, token_score=p.token_score) for p in bold]
    return (*plain, FULL)


def outputs_of(
    model: Any, table: Table, reference: Any = None, settings: Sequence[Point] = (FULL,)
) -> Outputs:
    """Run a model (and a reference, at its own full depth) over a table, once for each setting.

    Args:
        model: A `LessenForSequenceClassification` with a tokenizer.
        table: Rows, with labels numbered as the model's or none.
        reference: Another classifier of the same labels; None for the model's own full depth.
        settings: How many tokens leave, as in `settings_of`.
    """

    def encoded(one: Any) -> list[Encoded]:
        return encode(one.tokenizer, table.texts, one.config.facts().max_tokens)

    rows = encoded(model)
    tokens = np.array([len(row.ids) for row in rows], dtype=float)
    return Outputs(
        logits=np.concatenate([answers_of_every_exit(model, rows, setting) for setting in settings]),
        labels=None if table.labels is None else np.asarray(table.labels, dtype=float),
        keys=tuple(row_key(text) for text in table.texts),
        tokens=tokens,
        reference=None if reference is None else answers_of_every_exit(reference, encoded(reference))[-1],
        settings=tuple(settings),
        macs=_macs(model.transformer, tokens, settings),
    )


def _macs(model: Transformer, tokens: Array, settings: Sequence[Point]) -> Array:
    """MACs of each answer, `[answers, rows]`."""
    lengths, place = np.unique(tokens.astype(int), return_inverse=True)

    def of(setting: Point, depth: int, length: int) -> int:
        left = left_at(model, setting, length)
        left = None if left is None else left[:depth]
        parts = model.architecture, model.shape, model.outputs, length
        return row_macs(*parts, layers=depth, heads=[depth], left=left)

    table = [
        [of(setting, depth, int(length)) for length in lengths]
        for setting in settings
        for depth in model.shape.exit_layers
    ]
    return np.array(table, dtype=float)[:, place]


@dataclass(frozen=True)
class Kept:
    """`calibration.safetensors`: answers kept with a model, so that it can be calibrated without its data.

    Attributes:
        tune: On the rows paths are made from.
        calibration: On the rows promises are tested on.
        seen: Hashes of the rows the model has learned from.
        criteria: Exit criteria to choose from.
        label_range: Regression: spread of the training labels.
        precision: Of the weights that answered.
        subject: SHA-256 of weights, tokenizer and form of the model that answered.
        pairs: Whether a row is a pair of texts; None if that is not known.
        before: Those of `seen` it had learned from before the run that made it.
    """

    tune: Outputs
    calibration: Outputs
    seen: frozenset[str]
    criteria: tuple[str, ...]
    label_range: float
    precision: Precision
    subject: str
    pairs: bool | None = None
    before: frozenset[str] = frozenset()

    def save(self, path: Path) -> None:
        """Write everything as one safetensors file."""
        tensors = {"seen": pack_keys(sorted(self.seen)), "before": pack_keys(sorted(self.before))}
        for name in ("tune", "calibration"):
            tensors |= _tensors(name, getattr(self, name))
        about = {
            "criteria": ",".join(self.criteria),
            "label_range": repr(self.label_range),
            "precision": self.precision,
            "subject": self.subject,
            "settings": json.dumps(
                [p.model_dump(mode="json", exclude_none=True) for p in self.tune.settings]
            ),
        }
        if self.pairs is not None:
            about["pairs"] = str(int(self.pairs))
        save_file(tensors, path, metadata=about)

    @classmethod
    def load(cls, path: Path) -> Kept:
        """The inverse of `save`.

        Raises:
            ArtefactError: When the file is missing or damaged.
        """
        with content_of(path, "fetch it again, or compress again") as (about, tensors):
            raw = json.loads(about.get("settings", "null")) or [FULL.model_dump(mode="json")]
            settings = tuple(parse(Point, each, f"{path}: settings") for each in raw)
            return cls(
                tune=_outputs("tune", tensors, settings),
                calibration=_outputs("calibration", tensors, settings),
                seen=frozenset(unpack_keys(tensors["seen"])),
                criteria=tuple(about["criteria"].split(",")),
                label_range=float(about["label_range"]),
                precision=cast(Precision, about["precision"]),
                subject=about["subject"],
                pairs=None if "pairs" not in about else about["pairs"] == "1",
                before=keys_in(tensors, "before"),
            )


def _tensors(name: str, part: Outputs) -> dict[str, torch.Tensor]:
    arrays = {name: getattr(part, name) for name in ("logits", "labels", "reference", "tokens", "macs")}
    tensors = {
        f"{name}.{field}": torch.from_numpy(np.ascontiguousarray(array)).float()
        for field, array in arrays.items()
        if array is not None
    }
    return tensors | {f"{name}.keys": pack_keys(part.keys)}


def _outputs(name: str, tensors: dict[str, torch.Tensor], settings: tuple[Point, ...]) -> Outputs:
    def array(field: str) -> Array | None:
        found = tensors.get(f"{name}.{field}")
        return None if found is None else found.double().numpy()

    keys, tokens = unpack_keys(tensors[f"{name}.keys"]), array("tokens")
    return Outputs(
        logits=tensors[f"{name}.logits"].double().numpy(),
        labels=array("labels"),
        tokens=tokens if tokens is not None and len(tokens) == len(keys) else None,
        keys=keys,
        reference=array("reference"),
        settings=settings,
        macs=array("macs"),
    )
