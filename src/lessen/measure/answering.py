"""How often a model that writes finds the right answer likeliest: classification as text to text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lessen.data.prompts import Template, prompted
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.measure.metrics import METRIC_OF, quality
from lessen.plan import Point
from lessen.runtime.answers import answer_ids, score_answers
from lessen.runtime.retention import macs_cost
from lessen.runtime.text import encode
from lessen.tokens.elimination import fewest_left, left_after_layers


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
    """

    prompt: str
    point: str
    metric: str
    value: float
    macs_ratio: float
    tokens: float
    truncated: int

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
) -> Answered:
    """Score every answer on every row; the likeliest counts.

    Args:
        model: A `LessenForSeq2SeqLM` or `LessenForCausalLM` with its tokenizer.
        table: Labelled rows of one class each.
        template: How they are put into words.
        point: How many tokens of the prompts leave on the way.
        batch_size: Rows read at once.
        per_token: As in `score_answers`.

    Raises:
        InputError: When rows and template do not fit, or there are no labels.
    """
    asked = prompted(table, template)
    if asked.labels is None:
        raise InputError(f"{table.name} has no labels to evaluate against")
    inner = model.eval().transformer
    answers = [answer_ids(model.tokenizer, answer, inner) for answer in asked.answers]
    most = inner.architecture.max_tokens
    room = most if inner.decoder is not None else most - max(map(len, answers)) + 1
    encoded = encode(model.tokenizer, asked.prompts, room)
    prompts = [row.ids for row in encoded]
    scores = score_answers(inner, prompts, answers, point, batch_size=batch_size, per_token=per_token)
    kind = "single_label_classification"
    cost, fewest = macs_cost(inner), fewest_left(inner.shape, inner.architecture)
    lengths = [len(ids) for ids in prompts]
    spent = sum(cost(n, left_after_layers(point.retention, n, fewest)) for n in lengths)
    return Answered(
        prompt=template.prompt,
        point=point.name,
        metric=METRIC_OF[kind],
        value=quality(scores.double().numpy(), asked.labels, kind),
        macs_ratio=sum(cost(n, None) for n in lengths) / spent,
        tokens=sum(lengths) / len(lengths),
        truncated=sum(row.truncated for row in encoded),
    )
