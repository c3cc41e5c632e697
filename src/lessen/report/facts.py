"""What a report says about a model, as plain numbers: its JSON, and all that its page is made from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessen.artefact import WEIGHTS
from lessen.certificate import read_certificate, repeated
from lessen.data.table import Table, Text
from lessen.measure.evaluation import macs_ratio
from lessen.measure.metrics import METRIC_OF, as_labels, quality, row_scores
from lessen.model.transformer import Transformer, parameter_counts
from lessen.plan import FULL, Point
from lessen.promise.audit import audit_facts
from lessen.promise.outputs import Outputs, Task, outputs_of, settings_of, task_of
from lessen.promise.rows import kept_in
from lessen.runtime.predict import after_leaving
from lessen.runtime.retention import left_at
from lessen.runtime.text import Encoded, encode

Array = NDArray[np.float64]

BINS = 10
FEWEST_IN_BIN = 10
"""Confidence bins with fewer rows are left out: their accuracy is noise."""

BUILT_IN = (
    "a gripping film",
    "two hours of my life that nobody will give back",
    "not a bad film, though it takes its time to get going",
    "it wants to be a thriller and a comedy, and ends up as neither",
    "Who wrote the first dictionary of the English language?",
    "The delivery came two days late, but the shop was very kind about it.",
)
"""Sentences shown where the user's own must not appear."""

NOT_SAID = (
    "It is a statement about the average over many texts. It promises nothing about a single text.",
    "It holds for texts drawn like the calibration rows. Other sources, topics or times are not covered; "
    "lessen calibrate --audit tests it on newer rows.",
    "It is about what is lost against the reference, not about how good the reference is.",
    "It is about these weights in this precision on a CPU; anything else loads without the certificate.",
    "Its confidence is that of one calibration. Trying bounds, losses or models on the same rows until "
    "something passes voids it.",
)


@dataclass(frozen=True)
class Spot:
    """A Point, or a step of the path, on the report's rows.

    Attributes:
        name: Of the Point.
        promise: `certified`, `uncertified`, or None for full depth.
        value: The main metric.
        mean_layers: Layers per row.
        layers: Share of the rows that left after each depth.
        work: MACs of the step as a share of the whole model's.
        macs_ratio: MACs of full depth over those spent, every exit asked counted; None for steps of the path.
        drop: Of the score against full depth: mean and a 95 % normal interval; None for full depth.
    """

    name: str
    promise: str | None
    value: float
    mean_layers: float
    layers: dict[int, float]
    work: float
    macs_ratio: float | None = None
    drop: dict[str, float] | None = None


@dataclass(frozen=True)
class Bin:
    """Rows whose confidence lies in one interval.

    Attributes:
        rows: How many.
        confidence: Their mean.
        accuracy: Share that is right.
    """

    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Exit:
    """One exit, asked about every row.

    Attributes:
        layer: Depth, 1-based.
        value: The main metric if every row left here.
        agreement: Mean agreement of its answers with the last exit's.
        calibration_error: Expected calibration error of its confidence; None where there is no such thing.
        bins: Confidence against accuracy.
    """

    layer: int
    value: float
    agreement: float
    calibration_error: float | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Example:
    """A text and where it left at the model's own Point.

    Attributes:
        text: As given; the two of a pair are joined by a bar.
        layer: Layers it went through.
        answer: For people.
        right: Whether the label agrees; None without one.
        read: Its tokens, each with the number of layers it went through.
    """

    text: str
    layer: int
    answer: str
    right: bool | None = None
    read: list[tuple[str, int]] | None = None


def task_in(folder: Path, model: Any, table: Table) -> Task:
    """A model's task, in which errors are the shares its certificate means.

    Args:
        folder: Where the model lies; without a certificate there, or answers to make one from, the spread of
            the report's own labels is the whole.
        model: A `LessenForSequenceClassification` loaded from there.
        table: The report's rows.
    """
    certificate = read_certificate(folder) if folder.is_dir() else None
    known = certificate or (kept_in(folder) if folder.is_dir() else None)
    return task_of(model, table.label_range if known is None else known.label_range)


def describe(
    name: str, folder: Path, model: Any, rows: Outputs, table: Table, *, with_examples: bool
) -> dict[str, Any]:
    """Everything a report says about one model, but for times.

    Args:
        name: Of the model in the report.
        folder: Where it lies.
        model: A `LessenForSequenceClassification` loaded from there.
        rows: Its answers on the report's rows.
        table: The report's rows.
        with_examples: Whether rows of `table` may be shown.
    """
    task = task_in(folder, model, table)
    encoded = encode(model.tokenizer, table.texts, model.config.facts().max_tokens)
    spots = [
        asdict(spot_of(point, rows, task)) | {"macs_ratio": ratio_of(model, point, rows, encoded, task)}
        for point in model.points.values()
    ]
    weights = folder / WEIGHTS
    return {
        "name": name,
        "metric": METRIC_OF[task.problem_type] if rows.labels is not None else "agreement",
        "unit": "row",
        "depth": task.layers[-1],
        "parameters": parameter_counts(model.transformer),
        "bytes": weights.stat().st_size if weights.is_file() else None,
        "point": model.point.name,
        "points": spots,
        "path": [asdict(spot_of(step, rows, task)) for step in model.config.steps()],
        "exits": [asdict(exit) for exit in exits_of(rows, task)],
        "tokens": tokens_of(model, rows, encoded, task),
        "certificate": promised(folder, NOT_SAID),
        "examples": [asdict(example) for example in examples_of(model, rows, table, task, with_examples)],
        "examples_at": example_point(model).name,
    }


def promised(folder: Path, not_said: Sequence[str]) -> dict[str, Any] | None:
    """What the certificate beside a model says, and what it does not; None without one."""
    certificate = read_certificate(folder) if folder.is_dir() else None
    if certificate is None:
        return None
    return {
        "sentences": [certificate.sentence(point) for point in certificate.points],
        "warning": repeated(certificate.attempt),
        "audit": audit_facts(folder, certificate),
        "rows": certificate.rows,
        "delta": certificate.delta,
        "reference": certificate.reference,
        "loss": certificate.loss,
        "not_said": list(not_said),
    }


def tokens_of(model: Any, rows: Outputs, encoded: Sequence[Encoded], task: Task) -> dict[str, Any] | None:
    """How tokens leave: shares left after each layer, quality as the dial turns; None if none do.

    Shares are means over the profile's lengths, or over the rows where there is no profile. Some tokens never
    leave, so a share of a Point can be less than what it leaves of a short row.
    """
    points = [point for point in model.points.values() if point.retention is not None]
    dialled = model.speeds()
    if not points and not dialled:
        return None
    dial = []
    for speedup, point in {1.0: FULL, **dialled}.items():
        spot = spot_of(point, rows, task)
        dial.append(
            {
                "name": spot.name,
                "speedup": speedup,
                "work": spot.work,
                "macs_ratio": ratio_of(model, point, rows, encoded, task),
                "value": spot.value,
            }
        )
    profile = model.config.retention_profile()
    lengths = [len(row.ids) for row in encoded] if profile is None else profile.lengths
    leaving = {point.name: point for point in [*points, *dialled.values()]}
    return {
        "left": {name: shares_left(model.transformer, point, lengths) for name, point in leaving.items()},
        "dial": dial,
        "trained_at": None if profile is None else profile.trained_at,
        "after_leaving": after_leaving(model.transformer.shape),
    }


def shares_left(model: Transformer, point: Point, lengths: Sequence[int]) -> list[float]:
    """The share of a row's tokens left after each layer, on average over rows of these lengths."""
    total = np.zeros(model.depth)
    for tokens in lengths:
        total += np.array(left_at(model, point, tokens) or tokens) / tokens
    return [float(share) for share in total / len(lengths)]


def ratio_of(model: Any, point: Point, rows: Outputs, encoded: Sequence[Encoded], task: Task) -> float:
    """MACs of full depth over those a Point spends on the rows."""
    depths = task.depths(rows.answers_taken([point], task)[:, 0]).astype(int).tolist()
    return macs_ratio(model.transformer, encoded, depths, point)


def example_point(model: Any) -> Point:
    """The model's own Point; where no token leaves at it but could, the dial's nearest to the training's."""
    own: Point = model.point
    profile, dialled = model.config.retention_profile(), model.speeds()
    if own.retention is not None or not dialled:
        return own
    wanted = profile.trained_at or 2.0
    return dialled[min(dialled, key=lambda speedup: abs(speedup - wanted))]


def spot_of(point: Point, rows: Outputs, task: Task) -> Spot:
    """A Point on the report's rows, from the answers of every exit."""
    taken = rows.answers_taken([point], task)[:, 0]
    reached = rows.logits[taken, np.arange(len(rows))]
    depths = task.depths(taken)
    return Spot(
        name=point.name,
        promise=None if point == FULL else point.promise.kind if point.promise else "uncertified",
        value=value_of(reached, rows, task),
        mean_layers=float(depths.mean()),
        layers={int(layer): float((depths == layer).mean()) for layer in task.layers},
        work=float(rows.cost_of(taken[:, None], task)[0]),
        drop=None if point == FULL else drop_of(taken, rows, task),
    )


def drop_of(taken: NDArray[np.int64], rows: Outputs, task: Task) -> dict[str, float]:
    """Score lost against full depth by leaving at these exits, with a 95 % normal interval."""
    scores = rows.scores(task)[1]
    lost = scores[:, -1] - scores[np.arange(len(rows)), taken]
    mean, error = float(lost.mean()), float(lost.std() / np.sqrt(len(lost)))
    return {"mean": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}


def value_of(logits: Array, rows: Outputs, task: Task) -> float:
    """The main metric; agreement with full depth where the rows have no labels."""
    if rows.labels is not None:
        return quality(logits, list(rows.labels), task.problem_type)
    own = as_labels(rows.logits[-1], task.problem_type)
    return float(row_scores(logits, own, task.problem_type, task.label_range).mean())


def exits_of(rows: Outputs, task: Task) -> list[Exit]:
    """Every exit, asked about every row."""
    last = as_labels(rows.logits[-1], task.problem_type)
    found = []
    for layer, logits in zip(task.layers, rows.at(-1).logits, strict=True):
        error, bins = reliability(logits, rows.labels, task)
        agreement = row_scores(logits, last, task.problem_type, task.label_range).mean()
        found.append(Exit(layer, value_of(logits, rows, task), float(agreement), error, bins))
    return found


def reliability(logits: Array, labels: Array | None, task: Task) -> tuple[float | None, tuple[Bin, ...]]:
    """Expected calibration error (Guo et al. 2017), and the bins it is made of.

    Confidence is the probability of the answer given; for multi-label tasks every label is an answer.
    """
    if labels is None or task.problem_type == "regression":
        return None, ()
    if task.problem_type == "single_label_classification":
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        confidence = shifted.max(-1) / shifted.sum(-1)
        right = logits.argmax(-1) == labels
    else:
        confidence = 1 / (1 + np.exp(-np.abs(logits))).ravel()
        right = ((logits > 0) == (labels > 0)).ravel()
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for each in range(BINS):
        inside = place == each
        count = int(inside.sum())
        if not count:
            continue
        mean, accuracy = float(confidence[inside].mean()), float(right[inside].mean())
        error += count / len(confidence) * abs(mean - accuracy)
        if count >= FEWEST_IN_BIN:
            bins.append(Bin(count, mean, accuracy))
    return error, tuple(bins)


def examples_of(
    model: Any, rows: Outputs, table: Table, task: Task, own: bool, each: int = 3
) -> list[Example]:
    """Texts and where they left: built-in ones, or rows that left first, last, and wrongly early."""
    if not own:
        texts: list[Text] = list(BUILT_IN)
        if isinstance(table.texts[0], tuple):
            texts = list(itertools.pairwise(BUILT_IN))
        found = model.predict(texts, point=example_point(model), explain=True)
        return [
            Example(_joined(text), each.layers, _said(each), read=each.read)
            for text, each in zip(texts, found, strict=True)
        ]
    taken = rows.answers_taken([example_point(model)], task)[:, 0]
    order = np.argsort(task.depths(taken), kind="stable")
    chosen = [*order[:each], *order[-each:]]
    scores = rows.scores(task)[1]
    lost = np.flatnonzero(scores[np.arange(len(rows)), taken] < scores[:, -1])
    chosen = list(dict.fromkeys(int(row) for row in [*chosen, *lost[:each]]))
    found = model.predict([table.texts[row] for row in chosen], point=example_point(model), explain=True)
    right = rows.labels is not None and task.problem_type != "regression"
    return [
        Example(
            _joined(table.texts[row]),
            answer.layers,
            _said(answer),
            bool(scores[row, taken[row]] == 1.0) if right else None,
            answer.read,
        )
        for row, answer in zip(chosen, found, strict=True)
    ]


def rows_of(model: Any, table: Table) -> Outputs:
    """The model's answers on the report's rows, labels numbered as the model's."""
    settings = settings_of([*model.points.values(), *model.config.steps(), *model.speeds().values()])
    return outputs_of(model, table.with_labels_of(model.label_names), settings=settings)


def spread(path: Sequence[Point], count: int) -> list[Point]:
    """A few steps of a path, evenly apart in layers as expected on the tuning rows."""
    steps = [step for step in path if step.expected is not None]
    if len(steps) <= count:
        return steps
    depths = np.array([step.expected.mean_layers for step in steps if step.expected])
    wanted = np.linspace(depths.max(), depths.min(), count + 1)[1:]
    return [steps[i] for i in sorted({int(np.abs(depths - depth).argmin()) for depth in wanted})]


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else " | ".join(text)


def _said(found: Any) -> str:
    if found.value is not None:
        return f"{found.value:.2f}" if math.isfinite(found.value) else "undefined"
    return found.label if isinstance(found.label, str) else ", ".join(found.label) or "(none)"
