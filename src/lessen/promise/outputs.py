"""What a model answered at every exit on some rows: all that calibration needs, without the texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lessen.data.table import Table, row_key
from lessen.depth.criteria import exit_of_every_row
from lessen.errors import ArtefactError, PlanError
from lessen.loading import Precision
from lessen.measure.evaluation import answers_of_every_exit
from lessen.measure.metrics import as_labels, row_scores
from lessen.plan import Point
from lessen.runtime.text import Encoded, encode

KEPT = "calibration.safetensors"

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


@dataclass(frozen=True)
class Outputs:
    """Answers of every exit on some rows.

    Attributes:
        logits: `[exits, rows, outputs]`.
        labels: `[rows]` or `[rows, labels]`; None where the rows have none.
        keys: Hash of each row's text, `[rows]`, as 16 hex digits.
        tokens: Mean number of tokens of a row.
        reference: Answers of the reference model, `[rows, outputs]`; the last exit's if None.
    """

    logits: Array
    labels: Array | None
    keys: tuple[str, ...]
    tokens: float | None = None
    reference: Array | None = None

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
            reference=None if self.reference is None else self.reference[chosen],
        )

    def reference_answers(self) -> Array:
        """`[rows, outputs]`."""
        return self.logits[-1] if self.reference is None else self.reference

    def exits_taken(self, path: Sequence[Point], task: Task) -> NDArray[np.int64]:
        """Index of the exit each row leaves at, at each step of a path, `[rows, steps]`.

        Raises:
            PlanError: For a Point that takes tokens away: these answers were given with all of them.
        """
        if taking := next((point.name for point in path if point.retention is not None), None):
            raise PlanError(f"point {taking!r} takes tokens away; answers given with all cannot judge it")
        answers = [torch.from_numpy(answer).float() for answer in self.logits]
        last = len(task.layers) - 1
        steps = [
            np.full(len(self), last)
            if point.exits is None
            else exit_of_every_row(point.exits, task.layers, answers).numpy()
            for point in path
        ]
        return np.stack(steps, 1) if steps else np.empty((len(self), 0), dtype=np.int64)

    def scores(self, task: Task, *, agreement: bool = False) -> tuple[Array, Array]:
        """Scores in [0, 1] of the reference, `[rows]`, and of every exit, `[rows, exits]`.

        Against the labels; or, with `agreement` or without labels, against the reference's own answers.
        """
        reference = self.reference_answers()
        truth = self.labels
        if agreement or truth is None:
            truth = as_labels(reference, task.problem_type)
        own = [row_scores(answer, truth, task.problem_type, task.label_range) for answer in self.logits]
        return row_scores(reference, truth, task.problem_type, task.label_range), np.stack(own, 1)


def task_of(model: Any, label_range: float = 1.0) -> Task:
    """The task of a `LessenForSequenceClassification`."""
    return Task(model.problem_type, model.transformer.shape.exit_layers, label_range)


def outputs_of(model: Any, table: Table, reference: Any = None) -> Outputs:
    """Run a model (and a reference, at its own full depth) over a table, once.

    Args:
        model: A `LessenForSequenceClassification` with a tokenizer.
        table: Rows, with labels numbered as the model's or none.
        reference: Another classifier of the same labels; None for the model's own full depth.
    """

    def encoded(one: Any) -> list[Encoded]:
        return encode(one.tokenizer, table.texts, one.config.facts().max_tokens)

    rows = encoded(model)
    return Outputs(
        logits=answers_of_every_exit(model, rows),
        labels=None if table.labels is None else np.asarray(table.labels, dtype=float),
        keys=tuple(row_key(text) for text in table.texts),
        tokens=float(np.mean([len(row.ids) for row in rows])) if rows else None,
        reference=None if reference is None else answers_of_every_exit(reference, encoded(reference))[-1],
    )


@dataclass(frozen=True)
class Kept:
    """`calibration.safetensors`: answers kept with a model, so that it can be calibrated without its data.

    Attributes:
        tune: On the rows paths are made from.
        calibration: On the rows promises are tested on.
        seen: Hashes of the rows training saw.
        criteria: Exit criteria to choose from.
        label_range: Regression: spread of the training labels.
        precision: Of the weights that answered.
        subject: SHA-256 of weights, tokenizer and form of the model that answered.
        pairs: Whether a row is a pair of texts; None if that is not known.
    """

    tune: Outputs
    calibration: Outputs
    seen: frozenset[str]
    criteria: tuple[str, ...]
    label_range: float
    precision: Precision
    subject: str
    pairs: bool | None = None

    def save(self, path: Path) -> None:
        """Write everything as one safetensors file."""
        tensors = {"seen": pack_keys(sorted(self.seen))}
        for name in ("tune", "calibration"):
            tensors |= _tensors(name, getattr(self, name))
        about = {
            "criteria": ",".join(self.criteria),
            "label_range": repr(self.label_range),
            "precision": self.precision,
            "subject": self.subject,
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
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(
                tune=_outputs("tune", tensors),
                calibration=_outputs("calibration", tensors),
                seen=frozenset(unpack_keys(tensors["seen"])),
                criteria=tuple(about["criteria"].split(",")),
                label_range=float(about["label_range"]),
                precision=cast(Precision, about["precision"]),
                subject=about["subject"],
                pairs=None if "pairs" not in about else about["pairs"] == "1",
            )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ArtefactError(f"{path}: cannot be read ({error}); calibrate with --data") from None


def _tensors(name: str, part: Outputs) -> dict[str, torch.Tensor]:
    tokens = None if part.tokens is None else np.asarray([part.tokens])
    arrays = {"logits": part.logits, "labels": part.labels, "reference": part.reference, "tokens": tokens}
    tensors = {
        f"{name}.{field}": torch.from_numpy(np.ascontiguousarray(array)).float()
        for field, array in arrays.items()
        if array is not None
    }
    return tensors | {f"{name}.keys": pack_keys(part.keys)}


def _outputs(name: str, tensors: dict[str, torch.Tensor]) -> Outputs:
    def array(field: str) -> Array | None:
        found = tensors.get(f"{name}.{field}")
        return None if found is None else found.double().numpy()

    tokens = array("tokens")
    return Outputs(
        logits=tensors[f"{name}.logits"].double().numpy(),
        labels=array("labels"),
        tokens=None if tokens is None else float(tokens.item()),
        keys=unpack_keys(tensors[f"{name}.keys"]),
        reference=array("reference"),
    )


def pack_keys(keys: Sequence[str]) -> torch.Tensor:
    """Hashes of 16 hex digits as bytes, `[rows, 8]`."""
    raw = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8)
    return torch.from_numpy(raw.reshape(len(keys), 8).copy())


def unpack_keys(packed: torch.Tensor) -> tuple[str, ...]:
    """The inverse."""
    return tuple(row.tobytes().hex() for row in packed.numpy())
