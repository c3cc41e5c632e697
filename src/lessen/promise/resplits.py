"""Does the procedure keep its word? Repeat it on random draws from a pool and look at the whole pool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lessen.guarantee import Losses, certify, plug_in
from lessen.plan import Point
from lessen.promise.judging import losses_of
from lessen.promise.language import Decoder, LanguageLoss
from lessen.promise.language import losses_of as losses_of_prompts
from lessen.promise.outputs import Outputs, Task
from lessen.promise.paths import layers_of
from lessen.promise.traces import Traces
from lessen.promise.verdict import Loss


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
        certified step (`early`), the largest such share among steps within the bound on the whole pool
        (`early_oracle`), and the same of the share of layers saved (`saved`, `saved_oracle`).
    """
    taken = pool.answers_taken(path, task)
    losses = losses_of(loss, pool, taken, task, bound)
    early = (task.depths(taken) < task.layers[-1]).mean(0)
    saved = 1 - layers_of(taken, task) / task.layers[-1]
    return _over_draws(losses, early, saved, bound, delta, count, rows, seed)


def resplit_prompts(
    pool: Traces,
    path: Sequence[Point],
    decoder: Decoder,
    bound: float,
    delta: float,
    *,
    loss: LanguageLoss = "disagreement",
    count: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """The same of a generator, whose rows are prompts, and of which tokens leave early.

    Args:
        pool: Traces of prompts that training and the making of the path did not see.
        path: Careful first, with one step at least.
        decoder: Whose.
        bound: On the loss.
        delta: Share of draws that may lead to a step over the bound.
        loss: What is bounded.
        count: Number of draws.
        seed: Of the draws.
    """
    losses, did = losses_of_prompts(loss, pool, path, decoder, bound), []
    for step in path:
        left = pool.left_at(step.exits, decoder.shape.exit_layers)
        early = (left < len(pool.right)) & pool.there
        did.append((early[pool.there].mean(), decoder.depths(left)[pool.there].mean()))
    early, depths = np.array(did).T
    saved = 1 - depths / len(decoder.shape.writing_layers)
    return _over_draws(losses, early, saved, bound, delta, count, None, seed)


def _over_draws(
    losses: Losses,
    early: NDArray[np.float64],
    saved: NDArray[np.float64],
    bound: float,
    delta: float,
    count: int,
    rows: int | None,
    seed: int,
) -> dict[str, float]:
    """What draws led to, given losses of every step on the pool, and what each step does there."""
    over, pool = losses.risks > bound, len(losses.values)
    size = rows or max(1, pool // 2)
    generator = np.random.default_rng(seed)
    violations = plug_in_violations = 0
    steps = []
    for _ in range(count):
        drawn = losses.take(generator.integers(pool, size=size))
        step, bold = certify(drawn, bound, delta).step, plug_in(drawn, bound).step
        violations += step is not None and bool(over[step])
        plug_in_violations += bold is not None and bool(over[bold])
        steps.append(step)
    within = np.flatnonzero(~over)

    def mean_of(share: NDArray[np.float64]) -> float:
        return float(np.mean([0.0 if step is None else share[step] for step in steps]))

    return {
        "resplits": count,
        "violations": violations / count,
        "violations_plug_in": plug_in_violations / count,
        "early": mean_of(early),
        "early_oracle": float(early[within].max()) if len(within) else 0.0,
        "saved": mean_of(saved),
        "saved_oracle": float(saved[within].max()) if len(within) else 0.0,
    }
