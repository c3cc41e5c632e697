"""Answers for people: label, probability and layers used, one record per text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lessen.data.table import Text
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point, Shape
from lessen.runtime.engine import run
from lessen.runtime.text import batches, collate, encode
from lessen.tokens.elimination import layers_passed


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        label: The most probable label; for multi-label tasks all labels with probability at least one half.
        probability: Of that label; for multi-label tasks a probability per label. None for regression.
        value: The predicted number, for regression only.
        layers: Layers the text went through.
        tokens: Tokens it has, special tokens included.
        truncated: Whether it was cut to fit the model.
        read: Its tokens, each with the number of layers it went through, where that was asked for.
    """

    label: str | list[str] | None
    probability: float | list[float] | None
    value: float | None
    layers: int
    tokens: int
    truncated: bool
    read: list[tuple[str, int]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The record without fields that do not apply to the task."""
        record = {key: value for key, value in asdict(self).items() if value is not None}
        if self.read is not None:
            record["read"] = [{"token": token, "layers": layers} for token, layers in self.read]
        return record


@torch.inference_mode()
def predict(
    model: Transformer,
    tokenizer: Any,
    texts: Sequence[Text],
    *,
    labels: Sequence[str],
    problem_type: str,
    point: Point = FULL,
    batch_size: int = 32,
    strict: bool = False,
    explain: bool = False,
) -> list[Prediction]:
    """Answer texts in ragged batches; results come back in input order.

    With `explain`, each says of every token how many layers it went through.

    Raises:
        InputError: With `strict`, for a text longer than the model takes.
    """
    encoded = encode(tokenizer, texts, model.architecture.max_tokens, strict=strict)
    device = next(model.parameters()).device
    results: list[Prediction | None] = [None] * len(encoded)
    for batch in batches(encoded, batch_size):
        answers = run(model, *collate([encoded[i] for i in batch], device), point)
        depths = answers.layers.tolist()
        lengths = [len(encoded[place].ids) for place in batch]
        depth_of = layers_passed(answers.kept, lengths, depths) if explain else None
        for row, (place, logits, layers) in enumerate(zip(batch, answers.logits, depths, strict=True)):
            item = encoded[place]
            read = None
            if depth_of is not None:
                names = tokenizer.convert_ids_to_tokens(item.ids)
                read = list(zip(names, depth_of[row], strict=True))
            results[place] = Prediction(
                **_answer(logits, labels, problem_type),
                layers=layers,
                tokens=len(item.ids),
                truncated=item.truncated,
                read=read,
            )
    return [result for result in results if result is not None]


def after_leaving(shape: Shape) -> str:
    """What a classifier's answer has of tokens that have left, in a sentence."""
    if any(exit.pool == "mean" for exit in shape.exits):
        return (
            "The answer reads the mean of all tokens, each in its last state: those that left on the way "
            "still count."
        )
    read = "the last token" if any(exit.pool == "last" for exit in shape.exits) else "[CLS]"
    return (
        f"The answer reads {read} alone, which never leaves: others count by what was read of them "
        "before they left."
    )


def _answer(logits: Tensor, labels: Sequence[str], problem_type: str) -> dict[str, Any]:
    if problem_type == "regression":
        return {"label": None, "probability": None, "value": float(logits[0])}
    if problem_type == "multi_label_classification":
        each = logits.sigmoid().tolist()
        named = [label for label, share in zip(labels, each, strict=True) if share >= 0.5]
        return {"label": named, "probability": each, "value": None}
    shares = torch.softmax(logits, -1)
    best = int(shares.argmax())
    return {"label": labels[best], "probability": float(shares[best]), "value": None}
