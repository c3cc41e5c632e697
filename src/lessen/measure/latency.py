"""Latency: medians of repeated runs in one process, candidates in turn, so that drift hits all of them alike.

A runtime's worker threads go on spinning after a call, on cores the next candidate needs, which is then timed
too slow. So each turn waits until they sleep, and then runs the candidate untimed until its own threads and
caches are warm.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, sleep
from typing import Any

import numpy as np
import torch

from lessen.errors import InputError

REST_SECONDS = 0.12
"""Each turn begins with this pause. ONNX Runtime spins for about 0.1 s after a call, OpenMP for less."""

WARM_SECONDS = 0.02
"""Then the candidate runs untimed, once at least and this long at least."""

SLOW_MS = 500.0
"""From here on a candidate is timed without an untimed run before: a cold start no longer shows."""

FEWEST_ROUNDS = 3
"""With a budget of seconds, candidates run at least this often, however slow they are."""


@dataclass(frozen=True)
class Timing:
    """One candidate's measured times.

    Attributes:
        median_ms: Of all runs.
        low_ms: 10th percentile.
        high_ms: 90th percentile.
        runs: Timed runs.
        samples_ms: Each of them, one per round.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    samples_ms: tuple[float, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, samples_ms: list[float]) -> Timing:
        """Summarise timed runs."""
        low, median, high = (float(value) for value in np.percentile(samples_ms, (10, 50, 90)))
        return cls(median, low, high, len(samples_ms), tuple(samples_ms))

    def as_dict(self) -> dict[str, Any]:
        """The summary without the single runs, for a results file."""
        return {name: getattr(self, name) for name in ("median_ms", "low_ms", "high_ms", "runs")}


@dataclass(frozen=True)
class Ratio:
    """How many times faster one candidate is than another; above 1 it is faster.

    Attributes:
        medians: Quotient of the two medians.
        paired: Median over rounds of the quotient within a round, which slow drift of the machine cannot
            bend.
    """

    medians: float
    paired: float


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    seconds: float | None = None,
    repeats: int = 30,
    warmup: int = 3,
) -> dict[str, Timing]:
    """Time candidates in turn, one timed run of each per round, in an order drawn anew for each round.

    Args:
        candidates: What to run, by name. Each must do its whole work before it returns.
        seconds: Time budget of all rounds together; when it is given, there are as many rounds as fit, at
            least 3.
        repeats: Number of rounds, when there is no budget.
        warmup: Untimed runs of each candidate before the first round.

    Returns:
        Timings in the order of `candidates`; sample `i` of each was taken in the same round.

    Raises:
        InputError: When there is nothing to run, or fewer than one round is asked for.
    """
    if not candidates:
        raise InputError("there is nothing to measure; name at least one candidate")
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, not {repeats}")
    for run in candidates.values():
        for _ in range(warmup):
            run()
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    shuffler = random.Random(0)
    order = list(candidates)
    began = perf_counter()
    rounds = 0
    while rounds < repeats if seconds is None else rounds < FEWEST_ROUNDS or perf_counter() - began < seconds:
        shuffler.shuffle(order)
        for name in order:
            taken = samples[name]
            taken.append(_turn(candidates[name], slow=bool(taken) and taken[-1] >= SLOW_MS))
        rounds += 1
    return {name: Timing.of(taken) for name, taken in samples.items()}


def ratio(timings: Mapping[str, Timing], slow: str, fast: str) -> Ratio:
    """How many times faster `fast` is than `slow`.

    Args:
        timings: From one call of `interleaved`.
        slow: Name of the candidate in the numerator.
        fast: Name of the candidate in the denominator.

    Raises:
        InputError: When a name was not measured, or the two were not measured in the same rounds.
    """
    for name in (slow, fast):
        if name not in timings:
            raise InputError(f"{name!r} was not measured; there is {', '.join(timings)}")
    above, below = timings[slow], timings[fast]
    if len(above.samples_ms) != len(below.samples_ms) or not above.samples_ms:
        raise InputError(f"{slow!r} and {fast!r} were not measured in the same rounds")
    paired = [a / b if b else math.inf for a, b in zip(above.samples_ms, below.samples_ms, strict=True)]
    return Ratio(above.median_ms / below.median_ms if below.median_ms else math.inf, float(np.median(paired)))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block, and as many as before after it.

    Raises:
        InputError: When `count` is below 1.
    """
    if count < 1:
        raise InputError(f"threads must be at least 1, not {count}")
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)


def _turn(run: Callable[[], object], *, slow: bool) -> float:
    """Let the predecessor's threads go to sleep, warm up, and run once more, timed in ms."""
    sleep(REST_SECONDS)
    if not slow:
        began = perf_counter()
        run()
        while perf_counter() - began < WARM_SECONDS:
            run()
    began = perf_counter()
    run()
    return (perf_counter() - began) * 1e3
