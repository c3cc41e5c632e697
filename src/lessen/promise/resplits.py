"""Does the procedure keep its word? Repeat it on random halves of a pool and look at the whole pool."""

from __future__ import annotations

from typing import Any

import numpy as np

from lessen.promise.calibrate import judge_one, losses_of
from lessen.promise.folder import Calibration
from lessen.promise.outputs import Kept, task_of


def resplit(
    model: Any, kept: Kept, outcome: Calibration, count: int, *, rows: int | None = None, seed: int = 0
) -> dict[str, float]:
    """How often a part of the calibration rows leads to a step that breaks the bound on all of them.

    Uses the first bound of the outcome, its path and its share of delta.

    Args:
        model: The model.
        kept: Its answers.
        outcome: What was promised on all rows.
        count: Number of parts.
        rows: Size of each part; half of the rows if None.
        seed: Of the parts.

    Returns:
        `resplits`, `violations`, `violations_plug_in`, and the mean share of rows that left early at the
        certified step (`early`) and at the boldest step whose risk on all rows is within the bound
        (`early_oracle`).
    """
    task = task_of(model, kept.label_range)
    pool, verdict, loss = kept.calibration, outcome.verdicts[0], outcome.asked.loss
    taken = pool.exits_taken(outcome.basis.path, task)
    risks = losses_of(loss, pool, taken, task, verdict.epsilon).values.mean(0)
    early = (taken < len(task.layers) - 1).mean(0)
    size = rows or max(1, len(pool) // 2)
    generator = np.random.default_rng(seed)
    missed = {"certified": 0, "plug-in": 0}
    reached = []
    for _ in range(count):
        part = generator.permutation(len(pool))[:size]
        for rule in missed:
            found = judge_one(
                pool.take(part),
                taken[part],
                task,
                verdict.epsilon,
                verdict.delta,
                loss=loss,
                rule=rule,  # type: ignore[arg-type]
                seed=seed,
            )
            step = found.chosen.step
            missed[rule] += step is not None and bool(risks[step] > verdict.epsilon)
            if rule == "certified":
                reached.append(0.0 if step is None else early[step])
    within = np.flatnonzero(risks <= verdict.epsilon)
    return {
        "resplits": count,
        "violations": missed["certified"] / count,
        "violations_plug_in": missed["plug-in"] / count,
        "early": float(np.mean(reached)),
        "early_oracle": float(early[within].max()) if len(within) else 0.0,
    }
