"""Runs of slender models brought together: means over seeds, and paired differences with their errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from paired import difference, packed_step
from width_verdicts import FEWER_MACS

Run = dict[str, Any]

SHAPE = ("parameters", "heads", "neurons", "products", "embedding_rank")
"""What a line says of the model's form, besides figures."""

SPARE = 1.05
"""What a step has to save more on tuning rows than is asked for: on test rows it saves a little more or less.
Without it, two seeds of three came to 18.9 times there on each task."""

SHALLOW = 3
"""Exits from the first that are shallow."""

WHOLE = ("dense", "dense, longer", "assistant")
"""Ways that leave a model as wide as it was."""


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """For each task: what is simpler, and each model beside the dense one of its seed.

    Models whose dense one has not been measured are left out.
    """
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run for run in runs if run["task"] == task]
        simple = [
            {name: run[name] for name in ("baselines", "f1")} for run in of_task if run["way"] == "baselines"
        ]
        found = {(run["way"], run["size"], run["seed"]): run for run in of_task if run["way"] != "baselines"}
        seeds = sorted({seed for way, _, seed in found if way == "dense"})
        models = {}
        for way, size in in_order(found):
            own = [seed for seed in seeds if (way, size, seed) in found]
            if own:
                models[name_of(way, size)] = line(way, size, own, found)
        lines[task] = {**(simple[0] if simple else {"baselines": {}, "f1": {}}), "models": models}
    return lines


def in_order(found: Iterable[tuple[str, int, int]]) -> list[tuple[str, int]]:
    """Ways and sizes: whole models first, then way by way as they were run, the largest model first."""
    both = dict.fromkeys((way, size) for way, size, _ in found)
    ways = list(dict.fromkeys([*WHOLE, *(way for way, _ in both)]))
    return sorted(both, key=lambda each: (ways.index(each[0]), each[1]))


def name_of(way: str, size: int) -> str:
    """As tables call it."""
    return way if way in WHOLE else f"{way} {size}x"


def line(way: str, size: int, seeds: Sequence[int], found: dict[Any, Run]) -> dict[str, Any]:
    """Of one way and size: what was measured with each seed, beside the dense model of that seed."""
    each = [found[way, size, seed]["facts"] for seed in seeds]
    dense = [found["dense", 1, seed]["facts"] for seed in seeds]
    last, rows = [facts["exits"][-1] for facts in each], each[0]["test"]["rows"]
    trained_exits = not way.startswith("dense")
    return {
        "seeds": len(seeds),
        **{name: each[0][name] for name in SHAPE},
        "macs_ratio": mean(b["test"]["macs"] / a["test"]["macs"] for a, b in zip(each, dense, strict=True)),
        "last": mean(last),
        "last_sd": stdev(last) if len(last) > 1 else None,
        "f1": None if each[0]["f1"] is None else mean(facts["f1"] for facts in each),
        "dense": mean(facts["exits"][-1] for facts in dense),
        "loss": None if way == "dense" else difference(lasts(dense), lasts(each), rows),
        "mean": mean(mean(facts["exits"]) for facts in each) if trained_exits else None,
        "exits": [mean(values) for values in zip(*(facts["exits"] for facts in each), strict=True)],
        "above_last_only": shallow_difference(size, found) if way == "calibrated" else None,
        "certified": [certified(place, each, dense) for place in range(len(each[0]["certified"]))],
        "at_fewer_macs": fewer(each, dense, rows) if trained_exits else None,
        "remade": sum(remade(found[way, size, seed], found, seed) for seed in seeds),
    }


def lasts(facts: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Answers of the last exit on test rows, of each seed."""
    return [each["test"]["answers"][-1:] for each in facts]


def shallow_difference(size: int, found: dict[Any, Run]) -> dict[str, Any] | None:
    """What calibrated scoring is above scoring by the last exit alone, at the first exits of this size."""
    ours, others = "calibrated", "last exit only"
    both = [s for way, n, s in found if (way, n) == (ours, size) and (others, size, s) in found]
    if not both:
        return None
    pairs = [[found[way, size, seed]["facts"]["test"] for seed in sorted(both)] for way in (ours, others)]
    own, other = ([each["answers"][:SHALLOW] for each in side] for side in pairs)
    return difference(own, other, pairs[0][0]["rows"])


def certified(place: int, each: Sequence[dict[str, Any]], dense: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The boldest step of one bound; MACs against the dense model's, of each seed."""
    at = [facts["certified"][place] for facts in each]
    return {
        "bound": at[0]["bound"],
        "certified": sum(step["certified"] for step in at),
        "value": mean(step["test_accuracy"] for step in at),
        "macs_ratios": [
            step["macs_ratio"] * b["test"]["macs"] / a["test"]["macs"]
            for step, a, b in zip(at, each, dense, strict=True)
        ],
    }


def fewer(
    each: Sequence[dict[str, Any]], dense: Sequence[dict[str, Any]], rows: int
) -> dict[str, Any] | None:
    """The step of the sweep with so many times fewer MACs than the dense model on tuning rows, and some more.

    It is the most accurate of those there, on tuning rows; None where a seed has none.
    """
    steps, answers = [], []
    for own, whole in zip(each, dense, strict=True):
        most = whole["tune"]["macs"] / (SPARE * FEWER_MACS)
        there = [place for place, at in enumerate(own["sweep"]) if at["tune_macs"] <= most]
        if not there:
            return None
        best = max(there, key=lambda place: own["sweep"][place]["tune"])
        steps.append(own["sweep"][best])
        answers.append([packed_step(own["sweep_answers"], best, rows)])
    ratios = [whole["test"]["macs"] / at["macs"] for at, whole in zip(steps, dense, strict=True)]
    return {
        "value": mean(at["test"] for at in steps),
        "macs_ratios": ratios,
        "loss": difference(lasts(dense), answers, rows),
    }


def remade(run: Run, found: dict[Any, Run], seed: int) -> bool:
    """Whether its assistant has other weights than the one that was measured."""
    first = found.get(("assistant", 1, seed))
    if first is None or "assistant" not in run:
        return False
    return bool(first["assistant"]["weights"] != run["assistant"]["weights"])
