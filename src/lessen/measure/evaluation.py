"""Evaluate a model on labelled rows: at a Point as it really runs, or at every exit for choosing Points."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lessen.depth.criteria import CRITERIA
from lessen.depth.exits import every_exit
from lessen.measure.metrics import METRIC_OF, Array, quality
from lessen.model.macs import row_macs
from lessen.model.transformer import Transformer
from lessen.plan import FULL, ExitRule, Point
from lessen.runtime.engine import elimination_of, run
from lessen.runtime.retention import left_at
from lessen.runtime.text import Encoded, batches, collate


@dataclass(frozen=True)
class Result:
    """What a Point did on some rows.

    Attributes:
        name: Of the Point.
        metric: The task's main metric.
        value: Its value.
        mean_layers: Layers per row, on average.
        layers: Rows that left after each depth.
        macs_ratio: MACs of the full model over this Point's, on the same rows.
    """

    name: str
    metric: str
    value: float
    mean_layers: float
    layers: dict[int, int]
    macs_ratio: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a value that is none is null."""
        return {
            "name": self.name,
            "metric": self.metric,
            "value": None if math.isnan(self.value) else round(self.value, 6),
            "mean_layers": round(self.mean_layers, 4),
            "layers": {str(depth): count for depth, count in self.layers.items()},
            "macs_ratio": round(self.macs_ratio, 4),
        }


def evaluate(
    model: Any, encoded: Sequence[Encoded], labels: Sequence[object], point: Point, batch_size: int = 32
) -> Result:
    """Run a `LessenForSequenceClassification` at a Point over encoded rows, as it would serve them."""
    return result_of(model, encoded, labels, point, *answers_at(model, encoded, point, batch_size))


def result_of(
    model: Any,
    encoded: Sequence[Encoded],
    labels: Sequence[object],
    point: Point,
    logits: Array,
    layers: Sequence[int],
) -> Result:
    """What the answers of `answers_at` amount to."""
    return Result(
        name=point.name,
        metric=METRIC_OF[model.problem_type],
        value=quality(logits, labels, model.problem_type),
        mean_layers=float(np.mean(layers)),
        layers=dict(sorted(Counter(layers).items())),
        macs_ratio=macs_ratio(model.transformer, encoded, layers, point),
    )


@torch.inference_mode()
def answers_at(
    model: Any, encoded: Sequence[Encoded], point: Point, batch_size: int = 32
) -> tuple[Array, list[int]]:
    """Logits `[rows, outputs]` and layers used, in the order of `encoded`."""
    model.eval()
    outputs = model.config.num_labels
    logits = np.empty((len(encoded), outputs))
    layers = [0] * len(encoded)
    for batch in batches(encoded, batch_size):
        answers = run(model.transformer, *collate([encoded[i] for i in batch], model.device), point)
        logits[batch] = answers.logits.double().cpu().numpy()
        for place, depth in zip(batch, answers.layers.tolist(), strict=True):
            layers[place] = depth
    return logits, layers


@torch.inference_mode()
def answers_of_every_exit(
    model: Any, encoded: Sequence[Encoded], point: Point = FULL, batch_size: int = 32
) -> Array:
    """Logits of every exit for every row, `[exits, rows, outputs]`, in the order of `encoded`.

    Tokens leave as the Point says; its exit rule is not looked at.
    """
    model.eval()
    exits = model.transformer.shape.exits
    logits = np.empty((len(exits), len(encoded), model.config.num_labels))
    for batch in batches(encoded, batch_size):
        ids, rows, segments = collate([encoded[i] for i in batch], model.device)
        leave = elimination_of(point, model.transformer, ids, rows)
        answers = every_exit(model.transformer, ids, rows, segments, in_layer=leave)
        for place, answer in enumerate(answers):
            logits[place, batch] = answer.double().cpu().numpy()
    return logits


def macs_ratio(model: Transformer, encoded: Sequence[Encoded], layers: Sequence[int], point: Point) -> float:
    """MACs of the whole model over MACs spent, heads included, for rows that used `layers` layers each."""
    cost: dict[tuple[int, int], int] = {}
    spent = dense = 0
    for row, depth in zip(encoded, layers, strict=True):
        tokens = len(row.ids)
        for key in ((tokens, depth), (tokens, 0)):
            if key not in cost:
                full = key[1] == 0
                cost[key] = row_macs(
                    model.architecture,
                    model.shape,
                    model.outputs,
                    tokens,
                    layers=None if full else depth,
                    heads=None if full else heads_evaluated(model, point.exits, depth),
                    left=None if full else left_at(model, point, tokens),
                )
        spent += cost[tokens, depth]
        dense += cost[tokens, 0]
    return dense / spent


def heads_evaluated(model: Transformer, rule: ExitRule | None, depth: int) -> list[int]:
    """Depths of the heads a row that leaves after `depth` layers has been shown to."""
    last = model.depth
    if rule is None:
        return [last]
    remembers = CRITERIA[rule.criterion].remembers
    return [
        place
        for place in model.shape.exit_layers
        if place <= depth and (place == last or remembers or rule.at(place) is not None)
    ]
