"""From answers to certified Points: freeze a path on tuning rows, then test its steps on calibration rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lessen.depth.criteria import CRITERIA, criteria_for
from lessen.depth.thresholds import path as rules_of
from lessen.errors import InputError
from lessen.guarantee import (
    Chosen,
    Losses,
    certify,
    disagreement,
    expectation,
    marginal_drop,
    plug_in,
    rows_like_these,
    selective_disagreement,
)
from lessen.guarantee.choose import leading
from lessen.guarantee.pvalues import binomial
from lessen.plan import Point
from lessen.promise.outputs import Outputs, Task

Loss = Literal["drop", "disagreement", "selective", "block"]
"""`block` is of generators only; see `promise/language.py`."""

Rule = Literal["certified", "expectation", "plug-in"]

Scored = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Scores of the reference, `[rows]`, and of every answer, `[rows, answers]`."""

EVIDENT = 0.01
"""A p-value on tuning rows from which on a step should pass on as many new ones."""

LOSSES: tuple[Loss, ...] = ("drop", "disagreement", "selective")
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True)
class Verdict:
    """What one bound allows.

    Attributes:
        epsilon: The bound.
        delta: Probability allowed for missing it.
        chosen: The step taken and the tests behind it.
        mean_layers: At that step, on the calibration rows; full depth without a step.
        early: Share of the rows that leave before the end there.
        saving: Work of the whole model over that of this step, on the calibration rows.
    """

    epsilon: float
    delta: float
    chosen: Chosen
    mean_layers: float
    early: float
    saving: float


def losses_of(
    kind: Loss,
    outputs: Outputs,
    taken: NDArray[np.int64],
    task: Task,
    epsilon: float,
    scored: Scored | None = None,
) -> Losses:
    """Losses of the steps of a path, given the answer each row gets, `[rows, steps]`.

    `drop`: score of the reference minus score of this step. `disagreement`: 1 where the answer differs from
    the reference's. `selective`: the same among the answers that are not the whole model's, in linear form.
    `scored` is what `scores_for` said of the same rows, if that is known.

    Raises:
        InputError: For a loss that does not fit the task or the rows.
    """
    if kind == "block":
        raise InputError("--loss block: is about tokens that follow each other; use disagreement")
    if kind != "drop" and task.problem_type == "regression":
        raise InputError(f"--loss {kind}: answers of a regression cannot agree exactly; use drop")
    reference, scores = scored or scores_for(kind, outputs, task)
    reached = np.take_along_axis(scores, taken, 1)
    if kind == "drop":
        single = task.problem_type == "single_label_classification"
        return marginal_drop(reference, reached, right_or_wrong=single)
    agrees = reached == 1.0
    if kind == "disagreement":
        return disagreement(agrees)
    return selective_disagreement(agrees, taken < len(outputs.logits) - 1, epsilon)


def scores_for(kind: Loss, outputs: Outputs, task: Task) -> Scored:
    """What a loss is made of: scores of the reference, and of every answer."""
    return outputs.scores(task, agreement=kind != "drop")


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
                start = _first_evident(binomial(found, epsilon))
                path, taken, losses = path[start:], taken[:, start:], losses[:, start:]
            passed = _passed(losses, epsilon)
            cost = float(tune.cost_of(taken[:, passed - 1 : passed], task)[0]) if passed else 1.0
            if best is None or cost < best[0]:
                best = cost, path
    assert best is not None, "at least one criterion"
    return best[1]


def _passed(losses: NDArray[np.float64], epsilon: float) -> int:
    """How many steps stay below the bound by 1.3 standard errors, up to the first that does not."""
    error = losses.std(0) / np.sqrt(len(losses))
    return leading(losses.mean(0) + 1.3 * error <= epsilon)


def _beyond(tune: Outputs, task: Task, epsilon: float, loss: Loss, scored: Scored) -> int:
    """Index of the most careful setting that loses too much without any exit; -1 if none does."""
    tokens = tune.settings[-2::-1]
    found = losses_of(loss, tune, tune.answers_taken(tokens, task), task, epsilon, scored)
    return len(tokens) - 1 - _passed(found.values, epsilon)


def _first_evident(pvalues: NDArray[np.float64]) -> int:
    """Not the smallest: rules were made on these rows, so bold ones look better there than they are."""
    evident = np.flatnonzero(pvalues <= EVIDENT)
    return int(evident[0]) if len(evident) else int(pvalues.argmin())


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


def judge(
    outputs: Outputs,
    path: Sequence[Point],
    task: Task,
    bounds: Sequence[float],
    delta: float,
    *,
    loss: Loss = "drop",
    rule: Rule = "certified",
) -> list[Verdict]:
    """The boldest step of the path that each bound allows.

    Several bounds are certified together: each gets an equal part of `delta`.

    Args:
        outputs: On calibration rows.
        path: Frozen before these rows were looked at.
        task: How answers are scored.
        bounds: Losses allowed.
        delta: Probability that any of the statements is wrong.
        loss: What is bounded.
        rule: `certified`, or `expectation` or `plug-in`, which promise less.
    """
    taken = outputs.answers_taken(path, task)
    return [_judge(outputs, taken, task, bound, delta / len(bounds), loss, rule) for bound in bounds]


def _judge(
    outputs: Outputs,
    taken: NDArray[np.int64],
    task: Task,
    bound: float,
    delta: float,
    loss: Loss,
    rule: Rule,
) -> Verdict:
    chosen = choose(losses_of(loss, outputs, taken, task, bound), outputs.keys, bound, delta, rule)
    if chosen.step is None:
        return Verdict(bound, delta, chosen, float(task.layers[-1]), 0.0, 1.0)
    depths = task.depths(taken[:, [chosen.step]])
    early, cost = float((depths < task.layers[-1]).mean()), outputs.cost_of(taken[:, [chosen.step]], task)
    return Verdict(bound, delta, chosen, float(depths.mean()), early, 1 / float(cost[0]))


def choose(losses: Losses, keys: Sequence[str], bound: float, delta: float, rule: Rule) -> Chosen:
    """The step a rule takes; tests meet rows in the order of their hashes, which nobody could choose."""
    if rule == "certified":
        return certify(losses.take(np.argsort(keys)), bound, delta)
    return expectation(losses, bound) if rule == "expectation" else plug_in(losses, bound)


def why_not(outputs: Outputs, path: Sequence[Point], task: Task, verdict: Verdict, loss: Loss) -> str:
    """Why a bound could not be kept, and how many rows should do if more of them would help."""
    if not path:
        return "on the tuning rows no exit before the last agrees with it often enough to be of use"
    taken = outputs.answers_taken(path[:1], task)
    losses = losses_of(loss, outputs, taken, task, verdict.epsilon)
    risk, rows = float(losses.risks[0]), len(outputs)
    bound = f"{100 * verdict.epsilon:g}%"
    if verdict.epsilon == 0:
        return "a bound of 0 is not tested; give one above it"
    if risk >= verdict.epsilon or verdict.chosen.test == "plug-in":
        return f"even the most careful step is over {bound} on these {rows:,} rows"
    if verdict.chosen.test == "expectation":
        enough = math.ceil((losses.high - verdict.epsilon) / (verdict.epsilon - risk))
        return f"{rows:,} rows are too few to bound the expectation by {bound}; about {enough:,} would do"
    needed = rows_like_these(losses, verdict.epsilon, verdict.delta)
    would_do = f"more than {100 * rows:,}" if needed is None else f"about {needed:,}"
    return (
        f"{rows:,} rows are too few to certify {bound} with {100 * (1 - verdict.delta):.10g}% confidence; "
        f"{would_do} would do for the most careful step"
    )
