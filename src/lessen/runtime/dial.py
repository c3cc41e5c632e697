"""One dial: from a wish (`max_drop`, `speedup`, `latency_ms`) to a Point, without training.

A model carries its certified Points, and the path they were chosen on: Points in order of boldness, each with
the layers it took on the tuning rows. Certified Points answer a bound on the loss; any step of the path can
answer a wish for speed, and is labelled uncertified where no certified Point fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from time import perf_counter

import torch

from lessen.certificate import is_certified
from lessen.errors import PlanError
from lessen.model.rows import Rows, pack
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point, Promise

TIMED_RUNS = 20


def check_wish(name: str, value: object) -> float:
    """A wish as a number.

    Args:
        name: `max_drop`, `speedup` or `latency_ms`.
        value: What was given.

    Raises:
        PlanError: When it is none, or one that nothing can be meant by.
    """
    least = 1.0 if name == "speedup" else 0.0
    wanted = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not least <= wanted < math.inf:
        raise PlanError(f"{name} {value!r}: must be a number of at least {least:g}")
    if name == "max_drop" and wanted >= 1:
        raise PlanError(f"max_drop {value!r}: it is a share below 1; 0.02 means two points in a hundred")
    return wanted


def bounded(points: Sequence[Point], max_drop: float) -> Point:
    """The fastest Point certified to lose at most `max_drop`; full depth if none is.

    Args:
        points: Of the model.
        max_drop: 0.01 is one point in a hundred.
    """
    fitting = [
        point
        for point in points
        if is_certified(point)
        and point.promise is not None
        and point.promise.loss == "drop"
        and point.promise.epsilon is not None
        and point.promise.epsilon <= max_drop
    ]
    return min(fitting, key=work_of, default=FULL)


def at_most(points: Sequence[Point], path: Sequence[Point], mean_layers: float, name: str) -> Point:
    """The most careful setting that takes at most so many layers.

    A certified Point goes first if it takes at most a tenth fewer.

    Args:
        points: Of the model.
        path: From careful to bold.
        mean_layers: Layers per row wanted on average.
        name: Of the Point if it is a step of the path.

    Raises:
        PlanError: When even the boldest step takes more; the message names it.
    """
    steps = [point for point in path if _layers(point) <= mean_layers]
    near = 0.9 * mean_layers
    certified = [point for point in points if is_certified(point) and near <= _layers(point) <= mean_layers]
    if certified:
        return max(certified, key=_layers)
    if not steps:
        least = min(map(_layers, path), default=None)
        has = "has no early exits to use" if least is None else f"takes at least {least:.2f} layers per row"
        raise PlanError(f"no setting takes {mean_layers:.2f} layers per row or fewer: this model {has}")
    step = max(steps, key=_layers)
    return step.model_copy(update={"name": name, "promise": Promise(rule="dial")})


def by_layers(model: Transformer, points: Sequence[Point], path: Sequence[Point], speedup: float) -> Point:
    """The most careful setting that takes the model's layers divided by a speed-up; "full" for 1.

    Raises:
        PlanError: When even the boldest step of the path takes more.
    """
    depth = model.depth
    wanted = depth / max(speedup, 1.0)
    return FULL if wanted >= depth else at_most(points, path, wanted, f"speedup-{speedup:g}x")


def by_time(
    model: Transformer, points: Sequence[Point], path: Sequence[Point], latency_ms: float, tokens: int
) -> Point:
    """The most careful setting that takes the layers that fit into `latency_ms`, timed here and now.

    Raises:
        PlanError: When not even the first layer fits, or the boldest step of the path takes more.
    """
    wanted = layers_within(model, latency_ms, tokens)
    depth = model.depth
    return FULL if wanted >= depth else at_most(points, path, wanted, f"latency-{latency_ms:g}ms")


def usual_tokens(path: Sequence[Point]) -> int:
    """Tokens of a row, on average over the tuning rows; 32 if that is not known."""
    known = path[0].expected.tokens if path and path[0].expected else None
    return round(known or 32)


def layers_within(model: Transformer, latency_ms: float, tokens: int) -> float:
    """How many layers fit into `latency_ms` for one row of so many tokens, here and now; at most all.

    Full depth and one layer are timed on this machine with the threads torch uses; layers in between are
    taken to cost the same each.

    Raises:
        PlanError: When not even the first layer fits.
    """
    ids, rows = pack([torch.ones(tokens, dtype=torch.long, device=model.embeddings.token.weight.device)])
    depth = model.depth

    def stop_after_one(layer: int, hidden: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, Rows]:
        return hidden, rows.select([False] * len(rows))

    with torch.inference_mode():
        full = _milliseconds(lambda: model(ids, rows))
        one = _milliseconds(lambda: model(ids, rows, None, stop_after_one))
    if latency_ms < one:
        raise PlanError(
            f"{latency_ms:g} ms cannot be kept: one layer alone takes {one:.2f} ms for {tokens} tokens here"
        )
    if depth == 1 or full <= latency_ms:
        return float(depth)
    return 1 + (latency_ms - one) / (full - one) * (depth - 1)


def _milliseconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(3 + TIMED_RUNS):
        began = perf_counter()
        call()
        times.append(perf_counter() - began)
    return sorted(times[3:])[TIMED_RUNS // 2] * 1e3


def work_of(point: Point) -> float:
    """Work a Point was expected to take, to compare those of one model: a share of MACs, else layers."""
    if point.expected is None:
        return float("inf")
    ratio = point.expected.macs_ratio
    return point.expected.mean_layers if ratio is None else 1 / ratio


def _layers(point: Point) -> float:
    return float("inf") if point.expected is None else point.expected.mean_layers
