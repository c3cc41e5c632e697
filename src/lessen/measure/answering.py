"""How well a model that writes does tasks as text to text.

Of a few answers the likeliest counts, and nothing is generated. Numbers and sentences are written, read back
and compared: an answer that is no number is counted, and stands as the middle of the numbers wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lessen.data.prompts import Prompted, Template, needs_labels, number_of, prompted
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.measure.metrics import METRIC_OF, quality
from lessen.measure.rouge import rouge_l
from lessen.model.transformer import Transformer
from lessen.plan import Point
from lessen.runtime.answers import answer_ids, room_of, score_answers
from lessen.runtime.asking import encode_prompts
from lessen.runtime.completion import complete
from lessen.runtime.decoding import Decoding
from lessen.runtime.retention import ratio_at
from lessen.runtime.text import Encoded, batches

LONGEST = {"number": 8, "first sentence": 48}
"""Tokens that are written at most."""


@dataclass(frozen=True)
class Answered:
    """What one way to ask came to at one Point.

    Attributes:
        prompt: The way.
        point: Name of the Point.
        metric: The task's main metric.
        value: Its value; nan for a correlation of answers that are all alike.
        macs_ratio: MACs of reading whole prompts over those at this Point, on these rows; answers apart.
        tokens: Of a prompt, on average.
        truncated: Prompts whose texts were cut.
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
        """For JSON; a value that is none is null."""
        rounded = {
            "value": None if math.isnan(self.value) else round(self.value, 6),
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
    strict: bool = False,
    told: Callable[[int], None] | None = None,
) -> Answered:
    """Score every answer on every row, of which the likeliest counts; or let numbers or sentences be written.

    Args:
        model: A `LessenForSeq2SeqLM` or `LessenForCausalLM` with its tokenizer.
        table: Rows with what the template writes: one class each, a number, or any text.
        template: How they are put into words.
        point: How many tokens of the prompts leave on the way.
        batch_size: Rows read at once.
        per_token: As in `score_answers`.
        max_tokens: Texts are cut so that prompts have at most so many; as the model takes if None.
        strict: Refuse a longer prompt instead.
        told: Called now and then with the number of rows done since.

    Raises:
        InputError: When rows and template do not fit, there are no labels, or a prompt is too long.
        LessenError: When the model's logits are no numbers.
    """
    if table.labels is None and needs_labels([template]):
        raise InputError(f"{table.name} has no labels to evaluate against")
    asked = prompted(table, template)
    inner = model.eval().transformer
    answers = [answer_ids(model.tokenizer, answer, inner) for answer in asked.answers]
    longest = max(map(len, answers), default=LONGEST.get(template.writes, 1))
    room = room_of(inner, longest)
    most = min(room, max_tokens or room)
    encoded = encode_prompts(model.tokenizer, template, table.texts, most, strict=strict)
    if template.writes != "answer":
        texts = written(model, encoded, template, point, batch_size=batch_size, told=told)
        return _compared(inner, asked, template, point, encoded, texts)
    assert asked.labels is not None
    prompts = [row.ids for row in encoded]
    scores = score_answers(
        inner, prompts, answers, point, batch_size=batch_size, per_token=per_token, told=told
    )
    kind = "single_label_classification"
    value = quality(scores.double().numpy(), asked.labels, kind)
    return _answered(inner, template, point, encoded, METRIC_OF[kind], value)


def written(
    model: Any,
    encoded: Sequence[Encoded],
    template: Template,
    point: Point,
    *,
    batch_size: int = 16,
    told: Callable[[int], None] | None = None,
) -> list[str]:
    """What a model writes after each prompt: the likeliest tokens, as many as numbers or sentences have.

    Of a model that goes on with its prompt, which may never stop, the first line that says something.

    Args:
        model: As in `evaluate_answers`.
        encoded: The prompts.
        template: They are of; it writes numbers or sentences.
        point: As in `evaluate_answers`.
        batch_size: Rows written at once.
        told: As in `evaluate_answers`.
    """
    said: dict[int, str] = {}
    for batch in batches(encoded, batch_size):
        found = complete(
            model.eval().transformer,
            model.tokenizer,
            [encoded[row].ids for row in batch],
            max_new_tokens=LONGEST[template.writes],
            stop=model.stop_tokens,
            decoding=Decoding(prompts=point),
        )
        said |= {row: one.text for row, one in zip(batch, found, strict=True)}
        if told is not None:
            told(len(batch))
    texts = [said[row] for row in range(len(encoded))]
    if model.transformer.architecture.causal:
        return [text.strip().partition("\n")[0] for text in texts]
    return texts


def _compared(
    inner: Transformer,
    asked: Prompted,
    template: Template,
    point: Point,
    encoded: Sequence[Encoded],
    texts: Sequence[str],
) -> Answered:
    """What was written beside what was wanted."""
    assert asked.targets is not None
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
