"""What training minimises, by name: how the answers of all exits become one number."""

from __future__ import annotations

from functools import partial

import torch

from lessen.depth.losses import Objective, self_distillation, task_loss, weighted
from lessen.errors import InputError

OBJECTIVES = {
    "depth_weighted": "task loss of every exit, deeper ones weighing more (PABEE)",
    "summed": "sum of the task losses of all exits (COST-EFF)",
    "soft_routing": "mean of the task losses of all exits (BEExformer)",
    "last": "task loss of the last exit only: an ordinary dense model",
    "self_distilled": "depth_weighted, plus every exit imitating the last one",
    "self_supervised": "every exit imitating the last one, without labels (frozen backbone)",
}


UNLABELLED = ("self_supervised", "features", "predictions", "features_and_predictions")
"""Objectives that do not look at labels."""


def objective(name: str, problem_type: str) -> Objective:
    """The objective of this name for a task.

    Raises:
        InputError: When the name is unknown.
    """
    loss = task_loss(problem_type)
    weightings = {"depth_weighted": "linear", "summed": "sum", "soft_routing": "uniform", "last": "last"}
    if name in weightings:
        return partial(weighted, loss=loss, how=weightings[name])
    if name == "self_distilled":
        return lambda answers, labels: torch.add(
            weighted(answers, labels, loss, "linear"), self_distillation(answers, problem_type)
        )
    if name == "self_supervised":
        return lambda answers, labels: self_distillation(answers, problem_type)
    raise InputError(f"unknown objective {name!r}; one of {', '.join(OBJECTIVES)}")
