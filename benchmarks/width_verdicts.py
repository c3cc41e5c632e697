"""Were the targets of slender models met: figures held against them. Needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verdicts import NOISY, counted, points, spread, verdict

POINTS = {2: 0.005, 4: 0.015}
"""By size: points a model may lose, of hundredths."""

SHARES = {"builtin:minilm-l6": 0.06, "builtin:mpnet-l12": 0.035}
"""By checkpoint: what a model 8 times smaller may lose, as a share of the dense model's accuracy."""

FEWER_MACS = 19.0
SIZE = 8

FASTER = {8: 3.0, 1: 2.2}
"""By rows of a batch: how many times faster a model 4 times smaller is to be."""

FASTER_SIZE = 4

ENOUGH = {"builtin:minilm-l6": 2, "builtin:mpnet-l12": 1}
"""By checkpoint: seeds from which on anything is decided. The error of one seed knows rows alone; of MPNet
one run is all there is to be."""

Verdict = tuple[str, str]
"""A target in words, and whether it was met, with the figure."""

NOT_YET = "not measured yet"


def width_verdicts(task: str, models: Mapping[str, Any], checkpoint: str) -> list[Verdict]:
    """Of one task: every target of quality, those of models that have not been run included.

    Args:
        task: As it is shown.
        models: Lines of width_summary.py.
        checkpoint: That was made smaller.
    """
    share, enough = SHARES[checkpoint], ENOUGH[checkpoint]
    sizes = (2, 4, 8) if checkpoint == "builtin:minilm-l6" else (8,)
    lines = []
    for size in sizes:
        said, found = NOT_YET, models.get(f"calibrated {size}x")
        allowed = POINTS.get(size)
        within = f"{100 * share:g}% of the dense" if allowed is None else f"{100 * allowed:g} points"
        if found is not None:
            limit = share * found["dense"] if allowed is None else allowed
            said = loss_verdict(limit, found["loss"], enough)
        lines.append((f"{task}: {size}x smaller layers lose at most {within}", said))
    if checkpoint == "builtin:minilm-l6":
        lines.append(
            (f"{task}: calibrated scores above last-exit-only ones at exits 1-3", shallow(models, enough))
        )
    return [*lines, *fewer_macs(task, models.get(f"calibrated {SIZE}x"), share, enough)]


def loss_verdict(allowed: float, loss: Mapping[str, Any], enough: int = 2) -> str:
    """Of a loss, with its error over rows and seeds."""
    said = verdict_of(allowed - loss["mean"], loss, enough)
    return f"{said}, {points(loss['mean'], loss['error'])} points lost, {counted_seeds(loss)}"


def verdict_of(spare: float, found: Mapping[str, Any], enough: int = 2) -> str:
    """Undecided with fewer seeds than are enough."""
    return verdict(spare, found["error"]) if found["seeds"] >= enough else "undecided"


def counted_seeds(found: Mapping[str, Any]) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{found['seeds']} seed" + ("" if found["seeds"] == 1 else "s")


def shallow(models: Mapping[str, Any], enough: int) -> str:
    """Of all sizes that both were run at."""
    found = {
        name.removeprefix("calibrated "): line["above_last_only"]
        for name, line in models.items()
        if line.get("above_last_only") is not None
    }
    if not found:
        return NOT_YET
    verdicts = [verdict_of(each["mean"], each, enough) for each in found.values()]
    figures = [
        f"{points(each['mean'], each['error'])} at {size}, {counted_seeds(each)}"
        for size, each in found.items()
    ]
    return f"{counted(verdicts)} ({'; '.join(figures)})"


def fewer_macs(task: str, line: Mapping[str, Any] | None, share: float, enough: int) -> list[Verdict]:
    """Width and exits together: what is certified, and what is lost at the step tuning rows chose.

    On test rows that step has to have so many times fewer MACs too, with every seed.
    """
    certified, chosen = NOT_YET, NOT_YET
    if line is not None:
        bound = max(line["certified"], key=lambda at: at["bound"])
        ratios = bound["macs_ratios"]
        there = sum(ratio >= FEWER_MACS for ratio in ratios)
        figures = ", ".join(f"{ratio:.1f}" for ratio in ratios)
        said = "met" if there == len(ratios) else "missed" if not there else "undecided"
        said = said if len(ratios) >= enough else "undecided"
        if line["loss"]["mean"] - line["loss"]["error"] > share * line["dense"]:
            said = f"missed, as the model itself loses {100 * line['loss']['mean']:.1f} points"
        certified = f"{said}, {there} of {len(ratios)} seeds ({figures} times fewer)"
        at = line["at_fewer_macs"]
        chosen = "missed: no step is so early"
        if at is not None:
            said = loss_verdict(share * line["dense"], at["loss"], enough)
            there = sum(ratio >= FEWER_MACS for ratio in at["macs_ratios"])
            decided, rest = said.split(",", 1)
            if there < len(at["macs_ratios"]):
                decided = "undecided" if there and decided != "missed" else "missed"
            figures = ", ".join(f"{ratio:.1f}" for ratio in at["macs_ratios"])
            chosen = f"{decided},{rest}, {figures} times fewer on test rows"
    fewer = f"{task}: {SIZE}x and exits have {FEWER_MACS:g} times fewer MACs"
    return [
        (f"{fewer}, certified to lose at most 2 points to its own full depth", certified),
        (f"{fewer} and lose at most {100 * share:g}% of the dense", chosen),
    ]


def faster_verdicts(lines: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Of width_speed.py: time follows size, counted over checkpoints, lengths and threads."""
    found = []
    for batch, target in FASTER.items():
        at = [line for line in lines if (line["batch"], line["size"]) == (batch, FASTER_SIZE)]
        said = NOT_YET
        if at:
            said = counted(faster_verdict(line, target) for line in at)
            said += f", {min(middle(line) for line in at):.2f}x at least"
            noisy = sum(spread(line["ms"]) > NOISY for line in at)
            said += f", {noisy} of them noisy" if noisy else ""
        found.append((f"{FASTER_SIZE}x smaller layers are {target:g}x faster at batch {batch}", said))
    return found


def faster_verdict(line: Mapping[str, Any], target: float) -> str:
    """Decided where the middle half of the rounds lies on one side of the target."""
    low, _, high = line["faster"]
    return "met" if low >= target else "missed" if high < target else "undecided"


def middle(line: Mapping[str, Any]) -> float:
    """The median over rounds."""
    return float(line["faster"][1])
