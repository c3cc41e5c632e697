"""Learning from a teacher that has the same layers: its states, its exits' answers, or both.

Student and teacher read the same ragged batch, so their states are compared token by token and nothing is
padded. Layers are matched by their number in the original checkpoint: a student that has lost some learns
from those it still has (COST-EFF page, 1.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lessen.depth.exits import every_exit
from lessen.depth.losses import distance, task_loss, weighted
from lessen.errors import InputError
from lessen.model.rows import Rows
from lessen.plan import Shape

HARD = 0.1
"""Share of the hard labels in the loss that scores parts; a student equal to its teacher is scored by it."""


@dataclass(frozen=True)
class Matched:
    """What a student said of a batch, and what its teacher did, matched.

    Attributes:
        answers: Of each of the student's exits, `[rows, outputs]`.
        taught: The teacher's answers at the same exits.
        states: The student's embeddings and what each of its layers put out, `[tokens, hidden]`.
        shown: The teacher's, of the same layers.
        rows: Layout of the batch.
        labels: Of its rows, in the caller's order.
        problem_type: As in transformers.
    """

    answers: list[Tensor]
    taught: list[Tensor]
    states: list[Tensor]
    shown: list[Tensor]
    rows: Rows
    labels: Tensor
    problem_type: str


def features(matched: Matched) -> Tensor:
    """Squared difference of states, mean over width and a row's tokens, then rows; summed over layers."""
    weights = 1 / torch.tensor(matched.rows.lengths, device=matched.rows.device, dtype=torch.float32)
    weights = weights.repeat_interleave(torch.tensor(matched.rows.lengths, device=matched.rows.device))
    return torch.stack(
        [
            (a.float() - b.float()).square().mean(1) @ weights / len(matched.rows)
            for a, b in zip(matched.states, matched.shown, strict=True)
        ]
    ).sum()


def predictions(matched: Matched) -> Tensor:
    """Distance of every exit's answer from the teacher's at the same exit, summed over exits."""
    return _imitating(matched, matched.taught)


def both(matched: Matched) -> Tensor:
    """`features` plus `predictions`."""
    return features(matched) + predictions(matched)


def assistant(matched: Matched) -> Tensor:
    """Half the labels, half the teacher's last answer, for every exit: how a dense model makes exits."""
    last = [matched.taught[-1]] * len(matched.answers)
    return (_imitating(matched, last) + _hard(matched)) / 2


def scoring(matched: Matched) -> Tensor:
    """The loss parts are scored by: mostly `predictions`, some hard labels, and plain differences of states.

    Differences are a mean over all tokens of the batch, as the authors' is over all places.
    """
    states = zip(matched.states, matched.shown, strict=True)
    plain = torch.stack([(a.float() - b.float()).square().mean() for a, b in states]).sum()
    return (1 - HARD) * predictions(matched) + HARD * _hard(matched) + plain


DISTILLATIONS: dict[str, Callable[[Matched], Tensor]] = {
    "features": features,
    "predictions": predictions,
    "features_and_predictions": both,
    "assistant": assistant,
}
"""Objectives that need a teacher."""


class Teacher:
    """A model whose states and answers another learns, and which layers of both belong together.

    Args:
        model: A `LessenForSequenceClassification`; it is not changed.
        pupil: The Shape of the one that learns.

    Raises:
        InputError: When the pupil has a layer or an exit the teacher lacks.
    """

    def __init__(self, model: Any, pupil: Shape) -> None:
        self.model = model.eval()
        shape = model.config.form()
        numbers = [layer.layer for layer in shape.layers]
        wanted = [layer.layer for layer in pupil.layers]
        if missing := set(wanted) - set(numbers):
            raise InputError(f"the teacher lacks layer {min(missing)} of the model it is to teach")
        self.layers = [0, *(1 + numbers.index(number) for number in wanted)]
        places = {shape.layers[depth - 1].layer: i for i, depth in enumerate(shape.exit_layers)}
        self.exits = []
        for depth in pupil.exit_layers[:-1]:
            number = pupil.layers[depth - 1].layer
            if number not in places:
                raise InputError(f"the teacher has no exit after its layer {number}, where its pupil has one")
            self.exits.append(places[number])
        self.exits.append(len(shape.exits) - 1)

    @torch.no_grad()
    def shows(self, ids: Tensor, rows: Rows, segments: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Answers and states on a batch, of the pupil's exits and layers."""
        states: list[Tensor] = []
        answers = every_exit(self.model.transformer, ids, rows, segments, states=states)
        return [answers[i] for i in self.exits], [states[i] for i in self.layers]

    def matched(
        self,
        ids: Tensor,
        rows: Rows,
        segments: Tensor | None,
        answers: list[Tensor],
        states: list[Tensor],
        labels: Tensor,
    ) -> Matched:
        """A pupil's answers and states on a batch, beside those shown."""
        taught, shown = self.shows(ids, rows, segments)
        return Matched(answers, taught, states, shown, rows, labels, self.model.problem_type)


def _imitating(matched: Matched, targets: list[Tensor]) -> Tensor:
    terms = [
        distance(answer, target.detach(), matched.problem_type)
        for answer, target in zip(matched.answers, targets, strict=True)
    ]
    return torch.stack(terms).sum()


def _hard(matched: Matched) -> Tensor:
    return weighted(matched.answers, matched.labels, task_loss(matched.problem_type), "sum")
