"""What a batch costs in ms on one machine: a model of few numbers, fitted to runs of the transformer there.

`t = start + layer L + leaving E + groups G + linear M + attention A`: layers run, layers in which tokens
leave, groups of rows of one length (summed over layers), and MACs of both kinds. Our attention
kernel takes all groups of a layer in one call; each is a call of its own where that kernel is not used: with
MKL from `LONG` tokens on in layers that no token leaves, by scores that are not `Counted` in those that some
do (`model/attention.py`). All factors are at least 0. They hold for one processor, number of threads,
precision and number of rows (latency-adjustable page, 1.7).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.optimize import nnls

from lessen.artefact import read_json
from lessen.errors import LessenWarning, PlanError
from lessen.machine import processor
from lessen.model.macs import attention_macs, layer_macs, source_macs
from lessen.model.transformer import Transformer
from lessen.plan import Point, Precision, Size
from lessen.records import Strict, parse
from lessen.runtime.retention import left_at
from lessen.tokens.profile import Cost

FILE = "latency.json"

HONEST = 0.15
"""A fit that misses a run by more is not to be relied on."""

TERMS = ("start", "layer", "leaving", "groups", "linear", "attention")

Factor = Annotated[float, Field(ge=0)]


class Fit(Strict):
    """The model for one way of running.

    Attributes:
        threads: Of the processor.
        precision: Of the weights.
        batch: Rows given at once.
        factors: ms for each of `TERMS`; for MACs, ms per million.
        error: Largest share by which it missed one of the runs it was fitted to.
    """

    threads: Size
    precision: Precision
    batch: Size
    factors: tuple[Factor, Factor, Factor, Factor, Factor, Factor]
    error: Annotated[float, Field(ge=0)]


class LatencyModel(Strict):
    """`latency.json`: fits of one model on one machine.

    Attributes:
        processor: Of the machine.
        date: Of the last fit, UTC.
        fits: One for each way of running.
    """

    version: Literal[1] = 1
    processor: str
    date: str
    fits: Annotated[tuple[Fit, ...], Field(min_length=1)]

    def fit_for(self, threads: int, precision: str, batch: int) -> Fit:
        """The fit for a way of running on this machine; a warning where it is not to be relied on.

        Raises:
            PlanError: When there is none; the message says how to make it.
        """
        if self.processor != processor():
            raise PlanError(
                f"latencies were fitted on another machine ({self.processor}); run lessen bench --fit here"
            )
        for fit in self.fits:
            if (fit.threads, fit.precision, fit.batch) == (threads, precision, batch):
                if fit.error > HONEST:
                    warnings.warn(
                        f"latencies were fitted on a busy machine and may be off by {100 * fit.error:.0f} %; "
                        "run lessen bench --fit again",
                        LessenWarning,
                        stacklevel=4,
                    )
                return fit
        raise PlanError(
            f"no latency was fitted for {threads} threads, {precision}, batch {batch}; "
            "run lessen bench --fit with these"
        )


def terms_of(model: Transformer, lengths: Sequence[int], left: Sequence[Sequence[int] | None]) -> list[float]:
    """What a batch consists of, in the order of `TERMS`, all rows going through every layer.

    Of prompts it is what comes before the first token: of an encoder-decoder model also the keys and values
    of what its encoder left, and one token's attention to them. What is the same for every prompt is `start`.

    Args:
        model: The transformer.
        lengths: Tokens of each row.
        left: For each row, the tokens that leave each layer; None: all.
    """
    depth = model.depth
    rows = [each or [length] * depth for length, each in zip(lengths, left, strict=True)]
    now = list(lengths)
    leaving = groups = 0
    linear = attention = 0.0
    for place, layer in enumerate(model.shape.layers):
        after = [row[place] for row in rows]
        scores = sum(attention_macs(model.architecture, layer, tokens) for tokens in now)
        both = sum(layer_macs(model.architecture, layer, *pair) for pair in zip(now, after, strict=True))
        attention += scores
        linear += both - scores
        leaving += after != now
        groups += len(set(now))
        now = after
    if model.decoder is not None:
        linear += source_macs(model.architecture, model.shape) * sum(now)
        read = sum(len(layer.heads) for layer in model.shape.decoder_layers) * model.architecture.head_dim
        attention += 2 * read * sum(now)
    return [1.0, float(depth), float(leaving), float(groups), linear / 1e6, attention / 1e6]


def fit(terms: Sequence[Sequence[float]], ms: Sequence[float]) -> tuple[tuple[float, ...], float]:
    """Factors, none negative, with the least squared relative errors; and the largest relative error.

    Args:
        terms: Of each run, as in `terms_of`.
        ms: Measured.
    """
    table, target = np.asarray(terms, float), np.asarray(ms, float)
    scale = np.maximum(table.max(0), 1e-12)
    factors, _ = nnls(table / scale / target[:, None], np.ones(len(target)))
    error = np.abs(table / scale @ factors / target - 1).max()
    return tuple(float(each) for each in factors / scale), float(error)


def milliseconds(fit: Fit, terms: Sequence[float]) -> float:
    """Predicted time of a batch."""
    return float(np.dot(fit.factors, terms))


def predicted_ms(model: Transformer, fit: Fit, lengths: Sequence[int], point: Point) -> float:
    """Predicted milliseconds per row for rows of these lengths, given `fit.batch` at once in this order.

    Exits are not looked at.
    """
    total = 0.0
    for start in range(0, len(lengths), fit.batch):
        some = lengths[start : start + fit.batch]
        left = [left_at(model, point, length) for length in some]
        total += milliseconds(fit, terms_of(model, some, left))
    return total / len(lengths)


def ms_cost(model: Transformer, fit: Fit) -> Cost:
    """Milliseconds per row in a batch of rows of one length: a cost that offline tuning can solve for."""

    def cost(tokens: int, left: Sequence[int] | None) -> float:
        return milliseconds(fit, terms_of(model, [tokens] * fit.batch, [left] * fit.batch)) / fit.batch

    return cost


def read_latency(folder: Path) -> LatencyModel | None:
    """The latency model of a folder, or None if none was fitted.

    Raises:
        ArtefactError: When it is damaged.
    """
    place = folder / FILE
    if not place.exists():
        return None
    return parse(LatencyModel, read_json(place, "delete it or fit again"), str(place))
