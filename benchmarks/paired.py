"""Answers row by row, packed into text, and what one way loses against another on the same rows.

Rows are the same for all seeds, so a standard error is one over rows: what other test rows like these would
change, with the same trained models.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lessen.measure.metrics import Array, row_scores

DRAWS = 1000
"""Of the bootstrap, where a metric is not a mean over rows."""

REGRESSION = "regression"

DEFLATED = "deflated:"

Run = Mapping[str, Any]
"""What `curve` of token_quality.py returns, among other things: `rows`, `labels` of a regression, and `curve`
with `value` and `answers` for each speed-up."""


def packed(logits: Array, labels: Sequence[object], problem_type: str) -> str:
    """A bit for each row, 1 where it is right; of a regression, what it says in float16. In base64.

    Args:
        logits: `[rows, outputs]`.
        labels: Of a classification with one label, or a regression.
        problem_type: As in transformers.
    """
    if problem_type == REGRESSION:
        return packed_numbers(logits[:, 0])
    return packed_right(row_scores(logits, labels, problem_type) > 0)


def packed_numbers(values: Sequence[Any] | Array) -> str:
    """Numbers in float16, little-endian, in base64; deflated, and marked so, where that is shorter."""
    raw = np.asarray(values, dtype="<f2").tobytes()
    small = zlib.compress(raw, 9)
    short, plain = DEFLATED + b64encode(small).decode(), b64encode(raw).decode()
    return min(short, plain, key=len)


def numbers(text: str) -> Array:
    """What `packed_numbers` packed."""
    raw = b64decode(text.removeprefix(DEFLATED))
    raw = zlib.decompress(raw) if text.startswith(DEFLATED) else raw
    return np.frombuffer(raw, dtype="<f2").astype(float)


def right(text: str, rows: int) -> Array:
    """What `packed` packed of a classification: 1 or 0 for each row."""
    bits = np.unpackbits(np.frombuffer(b64decode(text), dtype=np.uint8), count=rows)
    return bits.astype(float)


def compared(ours: Sequence[Run], at: str, others: Sequence[Run], others_at: str) -> dict[str, float]:
    """By how much the metric of some runs is above that of others, on average over seeds.

    Args:
        ours: One run for each seed.
        at: Its speed-up.
        others: Runs on the same rows, of the same seeds in the same order.
        others_at: Their speed-up.

    Returns:
        `mean`, and `se`: its standard error over rows. Accuracy: a row's difference is averaged over seeds
        first. Pearson's correlation: the deviation over bootstrap draws of the rows, always the same ones.
    """
    pairs = [(run["curve"][at], other["curve"][others_at]) for run, other in zip(ours, others, strict=True)]
    above = mean(own["value"] - other["value"] for own, other in pairs)
    rows, labels = ours[0]["rows"], ours[0]["labels"]

    def seen(one: Mapping[str, Any]) -> Array:
        return right(one["answers"], rows) if labels is None else correlations(one["answers"], labels)

    differences = np.mean([seen(own) - seen(other) for own, other in pairs], axis=0)
    error = differences.std(ddof=1)
    return {"mean": above, "se": float(error / np.sqrt(rows) if labels is None else error)}


def difference(
    ours: Sequence[Sequence[str]], others: Sequence[Sequence[str]], rows: int
) -> dict[str, float | None]:
    """By how much the accuracy of some models is above that of others, mean over seeds.

    Args:
        ours: For each seed, packed answers of a classification; those of several exits are averaged.
        others: On the same rows, of the same seeds in the same order.
        rows: How many.

    Returns:
        As `mean_of`.
    """
    each = np.array(
        [
            np.mean([right(text, rows) for text in own], axis=0)
            - np.mean([right(text, rows) for text in other], axis=0)
            for own, other in zip(ours, others, strict=True)
        ]
    )
    return mean_of(each)


def mean_of(each: Array) -> dict[str, float | None]:
    """The mean of what rows came to with some seeds, and how sure it is.

    Args:
        each: `[seeds, rows]`, such as differences.

    Returns:
        `mean`; `se`, its standard error over rows, a row's number averaged over seeds first; `sd` over seeds,
        None with one; `error`, of both: other rows and other seeds; and the number of `seeds`.
    """
    se = float(each.mean(0).std(ddof=1) / np.sqrt(each.shape[1]))
    sd = float(each.mean(1).std(ddof=1)) if len(each) > 1 else None
    error = float(np.hypot(se, 0.0 if sd is None else sd / np.sqrt(len(each))))
    return {"mean": float(each.mean()), "se": se, "sd": sd, "error": error, "seeds": len(each)}


def packed_right(right: Sequence[bool] | NDArray[np.bool_]) -> str:
    """A bit for each row, in base64."""
    return b64encode(np.packbits(np.asarray(right, dtype=bool)).tobytes()).decode()


def packed_steps(right: Sequence[NDArray[np.bool_]]) -> str:
    """A bit for each row at each step, `[steps, rows]`: neighbours say nearly the same, so it is deflated."""
    bits = np.packbits(np.asarray(right, dtype=bool), axis=1)
    return b64encode(zlib.compress(bits.tobytes(), 9)).decode()


def packed_step(text: str, step: int, rows: int) -> str:
    """One step of what `packed_steps` packed, as `packed_right` packs it."""
    size = -(-rows // 8)
    return b64encode(zlib.decompress(b64decode(text))[step * size : (step + 1) * size]).decode()


@cache
def correlations(answers: str, labels: str) -> Array:
    """Pearson's correlation on each draw of the rows, `[draws]`."""
    said, truth = numbers(answers), numbers(labels)
    said, truth = said - said.mean(), truth - truth.mean()
    shares = drawn_shares(len(said))
    of_said, of_truth = shares @ said, shares @ truth
    together = shares @ (said * truth) - of_said * of_truth
    spread = (shares @ said**2 - of_said**2) * (shares @ truth**2 - of_truth**2)
    return together / np.sqrt(spread)


@cache
def drawn_shares(rows: int) -> Array:
    """How much of each draw each row is, `[draws, rows]`: rows drawn with replacement."""
    counts = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=DRAWS)
    return counts / rows
