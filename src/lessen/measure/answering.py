"""How well a model that writes does tasks as text to text.

Of a few answers the likeliest counts, and nothing is generated. Numbers and sentences are written, read back
and compared: an answer that is no number is counted, and stands as the middle of the numbers wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lessen.data.prompts import Prompted, Template, number_of, prompted
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.measure.metrics import METRIC_OF, quality
from lessen.measure.rouge import rouge_l
from lessen.model.transformer import Transformer
from lessen.plan import Point
from lessen.runtime.answers import answer_ids, score_answers
from lessen.runtime.completion import complete
from lessen.runtime.decoding import Decoding
from lessen.runtime.retention import ratio_at
from lessen.runtime.text import Encoded, encode

LONGEST = {"number": 8, "first sentence": 48}
"""Tokens that are written at most."""


@dataclass(frozen=True)
class Answered:
    """What one way to ask came to at one Point.

    Attributes:
        prompt: The way.
        point: Name of the Point.
        metric: The task's main metric.
        value: Its value.
        macs_ratio: MACs of reading whole prompts over those at this Point, on these rows; answers apart.
        tokens: Of a prompt, on average.
        truncated: Prompts that were cut.
        unread: Of numbers, how many answers were none.
    """

    prompt: str
    point: str
    metric: str
    value: float
    macs_ratio: float
    tokens: float
    truncated: int
    unread: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rounded = {
            "value": round(self.value, 6),
            "macs_ratio": round(self.macs_ratio, 4),
            "tokens": round(self.tokens, 2),
        }
        return vars(self) | rounded


def evaluate_answers(
    model: Any,
    table: Table,
    template: Template,
    point: Point,
    *,
    batch_size: int = 16,
    per_token: bool = False,
    max_tokens: int | None = None,
) -> Answered:
    """Score every answer on every row, of which the likeliest counts; or let numbers or sentences be written.

    Args:
        model: A `LessenForSeq2SeqLM` or `LessenForCausalLM` with its tokenizer.
        table: Rows with what the template writes: one class each, a number, or any text.
        template: How they are put into words.
        point: How many tokens of the prompts leave on the way.
        batch_size: Rows read at once.
        per_token: As in `score_answers`.
        max_tokens: Prompts are cut to this; to what the model takes if None.

    Raises:
        InputError: When rows and template do not fit, or there are no labels.
    """
    asked = prompted(table, template)
    if asked.targets is None:
        raise InputError(f"{table.name} has no labels to evaluate against")
    if template.writes != "answer":
        return _written(model, asked, template, point, batch_size, max_tokens)
    assert asked.labels is not None
    inner = model.eval().transformer
    answers = [answer_ids(model.tokenizer, answer, inner) for answer in asked.answers]
    most = inner.architecture.max_tokens
    room = most if inner.decoder is not None else most - max(map(len, answers)) + 1
    encoded = encode(model.tokenizer, asked.prompts, min(room, max_tokens or room))
    prompts = [row.ids for row in encoded]
    scores = score_answers(inner, prompts, answers, point, batch_size=batch_size, per_token=per_token)
    kind = "single_label_classification"
    value = quality(scores.double().numpy(), asked.labels, kind)
    return _answered(inner, template, point, encoded, METRIC_OF[kind], value)


def _written(
    model: Any,
    asked: Prompted,
    template: Template,
    point: Point,
    batch_size: int,
    max_tokens: int | None,
) -> Answered:
    """Let the model write, the likeliest tokens, and compare."""
    inner, most = model.eval().transformer, LONGEST[template.writes]
    assert asked.targets is not None
    room = inner.architecture.max_tokens - (0 if inner.decoder is not None else most - 1)
    encoded = encode(model.tokenizer, asked.prompts, min(room, max_tokens or room))
    said: dict[int, str] = {}
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].ids))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        found = complete(
            inner,
            model.tokenizer,
            [encoded[row].ids for row in batch],
            max_new_tokens=most,
            stop=model.stop_tokens,
            decoding=Decoding(prompts=point),
        )
        said |= {row: one.text for row, one in zip(batch, found, strict=True)}
    texts = [said[row] for row in range(len(encoded))]
    if template.writes == "first sentence":
        pairs = zip(texts, asked.targets, strict=True)
        value = sum(rouge_l(*pair) for pair in pairs) / len(texts)
        return _answered(inner, template, point, encoded, "rouge_l", value)
    wanted = [float(label) for label in asked.labels or []]
    middle = (min(wanted) + max(wanted)) / 2
    read = [number_of(text) for text in texts]
    numbers = np.array([middle if number is None else number for number in read])
    value = quality(numbers[:, None], wanted, "regression")
    unread = sum(number is None for number in read)
    return _answered(inner, template, point, encoded, METRIC_OF["regression"], value, unread)


def _answered(
    model: Transformer,
    template: Template,
    point: Point,
    encoded: Sequence[Encoded],
    metric: str,
    value: float,
    unread: int = 0,
) -> Answered:
    lengths = [len(row.ids) for row in encoded]
    return Answered(
        prompt=template.prompt,
        point=point.name,
        metric=metric,
        value=value,
        macs_ratio=ratio_at(model, point, lengths),
        tokens=sum(lengths) / len(lengths),
        truncated=sum(row.truncated for row in encoded),
        unread=unread,
    )
