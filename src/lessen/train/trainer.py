"""transformers' Trainer with our order of rows, our end of a damaged run, and our choice of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Trainer, TrainerControl

from lessen.errors import LessenError
from lessen.train.sampler import LengthGrouped

Judge = Callable[[Any], float]
"""Scores a model; higher is better."""

SCORE = "eval_score"


class FineTuner(Trainer):
    """Takes rows in a sampler's order; keeps the step a judge prefers; ends at a loss that is no number."""

    control: TrainerControl

    def __init__(self, sampler: LengthGrouped, judge: Judge | None, **options: Any) -> None:
        self.sampler, self.judge = sampler, judge
        super().__init__(eval_dataset=[], **options)  # of a judge the rows are its own business

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGrouped:
        return self.sampler

    def compute_loss(self, *batch: Any, **options: Any) -> Any:
        found = super().compute_loss(*batch, **options)
        loss = found[0] if isinstance(found, tuple) else found
        check_loss(float(loss.detach()), self.state.global_step + 1)
        return found

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """What the judge says.

        Raises:
            LessenError: When that is no finite number.
        """
        assert self.judge is not None
        found = {SCORE: self.judge(self.model)}
        if not math.isfinite(found[SCORE]):
            raise LessenError(f"the score after step {self.state.global_step} is {found[SCORE]}, no number")
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


def selecting(steps: int) -> dict[str, Any]:
    """Training arguments that have a judge look every so many steps, and keep the best one."""
    return {
        "eval_strategy": "steps",
        "eval_steps": steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": SCORE,
        "greater_is_better": True,
    }


class Diverged(LessenError):
    """A loss, or a weight, is no finite number."""


def check_loss(loss: float, step: int) -> None:
    """Look at the loss of a step, counted from 1, before anything is made of it.

    Raises:
        Diverged: When it is no finite number.
    """
    if not math.isfinite(loss):
        raise _diverged(f"the loss of step {step} is {loss}, not a finite number")


def check_weights(weights: Iterable[Tensor], step: int) -> None:
    """Look at the weights a last step left: no loss shows what it did.

    Raises:
        Diverged: When one of them is no finite number.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in weights):
        raise _diverged(f"step {step}, the last, left weights that are no finite numbers")


def _diverged(what: str) -> Diverged:
    return Diverged(
        f"{what}: the weights are damaged, or the learning rate is too high; make the model again, or give a "
        "lower --learning-rate and another folder"
    )
