"""Freeze a classifier's path on tuning rows: Points from the most careful to the boldest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lessen.depth.criteria import CRITERIA, criteria_for
from lessen.depth.thresholds import path as rules_of
from lessen.guarantee.choose import leading
from lessen.guarantee.pvalues import binomial
from lessen.plan import Point
from lessen.promise.judging import Scored, losses_of, scores_for
from lessen.promise.outputs import Outputs, Task
from lessen.promise.verdict import Loss, first_evident


def freeze_path(
    tune: Outputs, task: Task, criteria: Sequence[str], epsilon: float, loss: Loss = "drop"
) -> tuple[Point, ...]:
    """The path that should save most at this bound, judged on the tuning rows alone.

    There is one for each criterion, and one for each of those with each setting of tokens that leave. The
    boldest step of each is found whose loss there is below the bound by 1.3 standard errors, which is about
    what a certificate on as many rows needs; the path whose step takes the least work wins. Of `criteria`
    those count that fit the task; where none does, all that do. A selective loss says little while few rows
    leave: its path starts at the first step that the tuning rows speak for clearly.

    Paths of settings at which tokens alone lose too much are the same up to there; one stands for all.
    """
    best: tuple[float, tuple[Point, ...]] | None = None
    fitting = criteria_for(task.problem_type)
    scored = scores_for(loss, tune, task)
    beyond = -1 if loss == "selective" else _beyond(tune, task, epsilon, loss, scored)
    for criterion in [name for name in criteria if name in fitting] or fitting:
        for setting in range(len(tune.settings)):
            if setting <= beyond and best is not None:
                continue
            path = path_of(tune, task, criterion, setting)
            taken = tune.answers_taken(path, task)
            found = losses_of(loss, tune, taken, task, epsilon, scored)
            losses = found.values
            if loss == "selective" and path:
                start = first_evident(binomial(found, epsilon))
                path, taken, losses = path[start:], taken[:, start:], losses[:, start:]
            passed = _passed(losses, epsilon)
            cost = float(tune.cost_of(taken[:, passed - 1 : passed], task)[0]) if passed else 1.0
            if best is None or cost < best[0]:
                best = cost, path
    assert best is not None, "at least one criterion"
    return best[1]


def path_of(tune: Outputs, task: Task, criterion: str, setting: int = -1) -> tuple[Point, ...]:
    """Points from the most careful to the boldest: more and more tokens leave, then rows leave earlier.

    Args:
        tune: On tuning rows.
        task: How answers are scored.
        criterion: Of the exit rules.
        setting: Index of the setting of tokens that the exit rules are made for.
    """
    last = len(tune.settings) - 1
    place = setting % (last + 1)
    tokens = [tune.settings[i] for i in range(last - 1, place - 1, -1)]
    rules = rules_path(tune.at(place), task, criterion)
    at = {"retention": tune.settings[place].retention, "token_score": tune.settings[place].token_score}
    points = [*tokens, *(rule.model_copy(update=at) for rule in rules)]
    return tuple(point.model_copy(update={"name": f"step {i}"}) for i, point in enumerate(points))


def rules_path(tune: Outputs, task: Task, criterion: str) -> tuple[Point, ...]:
    """Points of one criterion from the most careful to the boldest, all tokens staying.

    Rules with two settings have no natural order: of those, the ones are kept that no other beats both in
    layers and in agreement with the last exit, those with most layers first.
    """
    rules = rules_of(tune.logits, task.layers, criterion, label_range=task.label_range)
    points = [Point(name=f"step {i}", exits=rule) for i, rule in enumerate(rules)]
    if CRITERIA[criterion].task != "regression":
        return tuple(points)
    taken = tune.answers_taken(points, task)
    _, scores = replace(tune, labels=None, reference=None).scores(task)
    agreement = np.take_along_axis(scores, taken, 1).mean(0)
    kept: list[int] = []
    for step in sorted(range(len(points)), key=lambda i: (layers_of(taken, task)[i], -agreement[i])):
        if not kept or agreement[step] > agreement[kept[-1]]:
            kept.append(step)
    return tuple(points[step] for step in reversed(kept))


def layers_of(taken: NDArray[np.int64], task: Task) -> NDArray[np.float64]:
    """Mean layers of each step, `[steps]`."""
    return np.asarray(task.depths(taken).mean(0))


def _passed(losses: NDArray[np.float64], epsilon: float) -> int:
    """How many steps stay below the bound by 1.3 standard errors, up to the first that does not."""
    error = losses.std(0) / np.sqrt(len(losses))
    return leading(losses.mean(0) + 1.3 * error <= epsilon)


def _beyond(tune: Outputs, task: Task, epsilon: float, loss: Loss, scored: Scored) -> int:
    """Index of the most careful setting that loses too much without any exit; -1 if none does."""
    tokens = tune.settings[-2::-1]
    found = losses_of(loss, tune, tune.answers_taken(tokens, task), task, epsilon, scored)
    return len(tokens) - 1 - _passed(found.values, epsilon)
