"""Test the steps of a classifier's path on rows it was not made from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lessen.errors import InputError
from lessen.guarantee import Losses, disagreement, marginal_drop, rows_like_these, selective_disagreement
from lessen.plan import Point
from lessen.promise.outputs import Outputs, Task
from lessen.promise.verdict import Loss, Rule, Verdict, choose

Scored = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Scores of the reference, `[rows]`, and of every answer, `[rows, answers]`."""


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
