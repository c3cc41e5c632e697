"""Losses over the answers of all exits: logits of every exit (shallowest first) to a scalar."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

TaskLoss = Callable[[Tensor, Tensor], Tensor]
"""`loss(logits [rows, outputs], labels)`: a scalar mean over rows."""

Objective = Callable[[list[Tensor], Tensor], Tensor]
"""`objective(logits of every exit, labels)`: the scalar that training minimises."""


def task_loss(problem_type: str) -> TaskLoss:
    """Cross-entropy, binary cross-entropy per label, or squared error, by transformers' `problem_type`."""
    return {
        "single_label_classification": lambda logits, labels: functional.cross_entropy(logits, labels.long()),
        "multi_label_classification": lambda logits, labels: functional.binary_cross_entropy_with_logits(
            logits, labels.to(logits.dtype)
        ),
        "regression": lambda logits, labels: functional.mse_loss(logits.squeeze(-1), labels.to(logits.dtype)),
    }[problem_type]


def exit_weights(count: int, how: str) -> list[float]:
    """Weights of `count` exits, shallowest first.

    `sum`: 1 each (COST-EFF). `uniform`: 1 / count each (soft routing, BEExformer 1.8). `linear`: proportional
    to the exit's rank, summing to 1 (PABEE; the other soft-routing reading). `last`: only the last exit.
    """
    if how == "sum":
        return [1.0] * count
    if how == "uniform":
        return [1 / count] * count
    if how == "linear":
        return [2 * (rank + 1) / (count * (count + 1)) for rank in range(count)]
    if how == "last":
        return [0.0] * (count - 1) + [1.0]
    raise ValueError(f"unknown exit weighting {how!r}; one of sum, uniform, linear, last")


def weighted(answers: Sequence[Tensor], labels: Tensor, loss: TaskLoss, how: str) -> Tensor:
    """The task loss of every exit against the labels, weighted as in `exit_weights`."""
    weights = exit_weights(len(answers), how)
    terms = [w * loss(answer, labels) for w, answer in zip(weights, answers, strict=True) if w]
    return torch.stack(terms).sum()


def self_distillation(
    answers: Sequence[Tensor],
    problem_type: str = "single_label_classification",
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Distance of every earlier exit from the model's own last one, without labels; mean over exits and rows.

    KL(last || exit) for classification, scaled by temperature squared; binary KL per label for multi-label;
    squared difference for regression. The last exit is the teacher and gets no gradient (self-supervised
    exits page, 1.4).
    """
    teacher = answers[-1].detach()
    terms = [distance(answer, teacher, problem_type, temperature) for answer in answers[:-1]]
    return torch.stack(terms).mean()


def imitation(answers: Sequence[Tensor], teacher: Tensor, problem_type: str) -> Tensor:
    """Distance of every exit from a teacher's answer, which gets no gradient; deeper exits weigh more.

    Args:
        answers: Of every exit, `[rows, outputs]` each.
        teacher: `[rows, outputs]`.
        problem_type: As in transformers.
    """
    weights = exit_weights(len(answers), "linear")
    terms = [distance(answer, teacher.detach(), problem_type) for answer in answers]
    return torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum()


def distance(student: Tensor, teacher: Tensor, problem_type: str, temperature: float = 1.0) -> Tensor:
    """How far an answer is from another: KL, per label for multi-label, or squared difference."""
    if problem_type == "regression":
        return functional.mse_loss(student, teacher)
    student, teacher = student / temperature, teacher / temperature
    if problem_type == "multi_label_classification":
        target = teacher.sigmoid()
        cross = functional.binary_cross_entropy_with_logits(student, target)
        return (cross - functional.binary_cross_entropy_with_logits(teacher, target)) * temperature**2
    return (
        functional.kl_div(
            student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean"
        )
        * temperature**2
    )
