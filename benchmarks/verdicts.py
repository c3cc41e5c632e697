"""Was a target met: a figure held against it, with what it may be off by. Needs the standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LOST_AT_3X = 0.0075
"""What IMDB reviews may lose at 3x, on average over seeds."""

FASTER = {(1, 128): (4.8, 3.0), (8, 128): (4.8, 4.6), (1, 512): (3.6, 3.2)}
"""By rows of a batch and their tokens: a speed-up in MACs, and the one in time it should come to."""

ROUNDED = 1.01
"""Tokens are whole, so a profile may save so many times what was asked for; beyond, it has no target."""

OFF = 0.15
"""Share of the time measured that the dial's prediction may be off by."""

NOISY = 1.3
"""Timings whose 90th percentile is more than this many times their 10th decide little."""

DENSE, HUGGING_FACE, UNCHOSEN = "dense", "hugging face", "geometric, first_k"
"""In place of a profile: without targets, but what lines are held against."""


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
    cell, lost = at["3"], points(at["3"]["loss"], at["3"].get("loss_se"))
    said = verdict(LOST_AT_3X - cell["loss"], cell.get("loss_se"))
    if said == "missed":
        said += f" by {100 * (cell['loss'] - LOST_AT_3X):.1f}"
    at_most = points(at["4.8"]["loss"], at["4.8"].get("loss_se"))
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


def spread(ms: Mapping[str, Any]) -> float:
    """90th percentile over 10th of a timing."""
    return float(ms["high_ms"] / ms["low_ms"])


def judged_shapes(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of token_speed.py with `spread`, `noisy`, `target` and `met`.

    A line is noisy if its own timing is, or one it is held against.
    """
    found = []
    for line in lines:
        shape = line["batch"], line["tokens"]
        against = [
            spread(each["ms"])
            for each in lines
            if (each["batch"], each["tokens"]) == shape
            and each["profile"] in (line["profile"], DENSE, HUGGING_FACE)
        ]
        macs, faster = FASTER[shape]
        has_one = line["profile"] not in (DENSE, HUGGING_FACE, UNCHOSEN)
        has_one = has_one and line["macs_ratio"] <= ROUNDED * macs
        found.append(
            line
            | {
                "spread": spread(line["ms"]),
                "noisy": max(against) > NOISY,
                "target": faster if has_one else None,
                "met": line["against dense"] >= faster if has_one else None,
            }
        )
    return found


def judged_dial(line: dict[str, Any], timing: Mapping[str, Any]) -> dict[str, Any]:
    """A prediction with the `spread` of what it is held against, `noisy`, `target` and `met`."""
    wide = spread(timing)
    return line | {
        "spread": wide,
        "noisy": wide > NOISY,
        "target": OFF,
        "met": abs(line["error"]) <= OFF,
    }
