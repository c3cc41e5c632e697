"""Was a target met: a figure held against it, with what it may be off by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

LOST_AT_3X = 0.0075
"""What IMDB reviews may lose at 3x, on average over seeds."""


def verdict(spare: float, error: float | None) -> str:
    """`met`, `missed` or `undecided`.

    Args:
        spare: By how much the figure is better than the target; below 0 it is worse.
        error: Its standard error. A figure nearer to the target than this decides nothing; neither does
            one whose error is not known.
    """
    if error is None or abs(spare) <= error:
        return "undecided"
    return "met" if spare > 0 else "missed"


def loss_verdict(summary: dict[str, Any]) -> str:
    """Of the points ACC loses on IMDB reviews at 3x, and what it loses at 4.8x."""
    if "mean" not in summary.get("imdb", {}):
        return "not measured yet"
    at = summary["imdb"]["mean"]
    cell, lost = at["3"], points(at["3"]["loss"], at["3"]["loss_se"])
    said = verdict(LOST_AT_3X - cell["loss"], cell["loss_se"])
    if said == "missed":
        said += f" by {100 * (cell['loss'] - LOST_AT_3X):.1f}"
    at_most = points(at["4.8"]["loss"], at["4.8"]["loss_se"])
    return f"{said}, with {lost} points lost ({at_most} at 4.8x), {cell['seeds']} seeds"


def random_verdict(summary: dict[str, Any], names: dict[str, str]) -> str:
    """Of ACC above random tokens, wherever tokens leave: counted over tasks and speed-ups.

    Args:
        summary: Of token_quality.py.
        names: Of tasks, as they are shown.
    """
    cells = [
        (f"{names[task]} at {speedup}x", cell["over_random"])
        for task, found in summary.items()
        for speedup, cell in found.get("mean", {}).items()
        if speedup != "1" and "over_random" in cell
    ]
    if not cells:
        return "not measured yet"
    verdicts = [verdict(cell["mean"], cell["se"]) for _, cell in cells]
    worst = [
        f"{place}, by {points(-cell['mean'], cell['se'])}"
        for (place, cell), said in zip(cells, verdicts, strict=True)
        if said == "missed"
    ]
    return counted(verdicts) + (f" ({'; '.join(worst)})" if worst else "")


def counted(verdicts: Iterable[str]) -> str:
    """How many are met, missed and undecided: `met in 3 of 5, missed in 2`."""
    counts = Counter(verdicts)
    parts = [f"{said} in {counts[said]}" for said in ("met", "undecided", "missed") if counts[said]]
    first, *others = parts
    return ", ".join([f"{first} of {counts.total()}", *others])


def points(value: float, error: float | None) -> str:
    """In hundredths, with its standard error."""
    return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")
