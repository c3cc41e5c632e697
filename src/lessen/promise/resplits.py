"""Does the procedure keep its word? Repeat it on random draws from a pool and look at the whole pool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lessen.plan import Point
from lessen.promise.calibrate import Loss, Rule, judge_one, losses_of
from lessen.promise.outputs import Outputs, Task

RULES: tuple[Rule, ...] = ("certified", "plug-in")


def resplit(
    pool: Outputs,
    path: Sequence[Point],
    task: Task,
    bound: float,
    delta: float,
    *,
    loss: Loss = "drop",
    count: int = 1000,
    rows: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """How often rows drawn from a pool lead to a step that breaks the bound on all of it.

    Drawn with replacement: the pool is the population, and what is claimed of draws from it holds exactly.

    Args:
        pool: Rows that training and the making of the path did not see.
        path: Careful first.
        task: How answers are scored.
        bound: On the loss.
        delta: Share of draws that may lead to a step over the bound.
        loss: What is bounded.
        count: Number of draws.
        rows: Size of each; half of the pool if None.
        seed: Of the draws.

    Returns:
        `resplits`, `violations`, `violations_plug_in`, the mean share of rows that leave early at the
        certified step (`early`) and the largest such share among steps within the bound on the whole pool
        (`early_oracle`).
    """
    taken = pool.exits_taken(path, task)
    risks = losses_of(loss, pool, taken, task, bound).values.mean(0)
    early = (taken < len(task.layers) - 1).mean(0)
    size = rows or max(1, len(pool) // 2)
    generator = np.random.default_rng(seed)
    missed = dict.fromkeys(RULES, 0)
    reached = []
    for _ in range(count):
        part = generator.integers(len(pool), size=size)
        rest = pool.take(part), taken[part]
        for rule in RULES:
            step = judge_one(*rest, task, bound, delta, loss=loss, rule=rule, shuffled=True).chosen.step
            missed[rule] += step is not None and bool(risks[step] > bound)
            if rule == "certified":
                reached.append(0.0 if step is None else early[step])
    within = np.flatnonzero(risks <= bound)
    return {
        "resplits": count,
        "violations": missed["certified"] / count,
        "violations_plug_in": missed["plug-in"] / count,
        "early": float(np.mean(reached)),
        "early_oracle": float(early[within].max()) if len(within) else 0.0,
    }
