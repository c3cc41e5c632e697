"""Runs with few bits brought together: means over seeds, and paired differences with their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from paired import difference

Run = dict[str, Any]
Facts = Mapping[str, Any]

WITHOUT_EXITS = {"float twin": "float twin, no exits", "W1A32": "W1A32, no exits"}
"""The same training but for the loss, which is the last exit's alone: what leaving early is held against.
Variants without such a sibling are held against nothing."""

SIMPLE = "baselines"

LEARNED = 0.02
"""What has learned something is so far above the most frequent label."""

SAVED = 0.5485
"""Share of MACs that exits are to save without loss."""

START_OTHERWISE = ("no exits", "words first")
"""Changes that a float twin was trained with too."""

OTHER_LAYERS = ("FFN", "LSTM", "shared layers")
"""Changes to the model itself, without a float twin."""


def twin_of(variant: str) -> str | None:
    """The float model that differs in its bits alone, and how they are learned; None where there is none."""
    bits, _, change = variant.partition(", ")
    if not bits.startswith("W1") or change in OTHER_LAYERS:
        return None
    return f"float twin, {change}" if change in START_OTHERWISE else "float twin"


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """For each task: what is simpler, and each variant beside its float twin and itself without exits."""
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run for run in runs if run["task"] == task]
        simple = [run["baselines"] for run in of_task if run["variant"] == SIMPLE]
        found: dict[str, dict[int, Facts]] = {}
        for run in of_task:
            if run["variant"] != SIMPLE:
                found.setdefault(run["variant"], {})[run["seed"]] = run["facts"]
        baselines = simple[0] if simple else {}
        chance = baselines.get("most frequent label", 0.0) + LEARNED
        learned = {name: learners(own, chance) for name, own in found.items()}
        lines[task] = {
            "baselines": baselines,
            "variants": {
                name: means(own)
                | {
                    "learned": len(learned[name]),
                    "loss": lost(learned.get(twin_of(name) or "", {}), own),
                    "exiting": leaving(own, learned.get(WITHOUT_EXITS.get(name, ""), {})),
                }
                for name, own in found.items()
            },
        }
    return lines


def learners(found: Mapping[int, Facts], chance: float) -> dict[int, Facts]:
    """Those seeds whose last exit knows more than the most frequent label, on tuning rows.

    Nothing can be lost to another, and none of its MACs are needed for being as good.
    """
    return {seed: facts for seed, facts in found.items() if facts["tune_exits"][-1] >= chance}


def means(found: Mapping[int, Facts]) -> dict[str, Any]:
    """Of the runs of a variant, by seed."""
    each = list(found.values())
    last = [facts["exits"][-1] for facts in each]
    controls = {
        name: None if each[0][name] is None else mean(facts[name] for facts in each)
        for name in ("shuffled", "negated", "negated_shuffled")
    }
    return {
        "seeds": len(each),
        "last": mean(last),
        "last_sd": stdev(last) if len(last) > 1 else None,
        "exits": [mean(values) for values in zip(*(facts["exits"] for facts in each), strict=True)],
        "fixed_exit_1": {
            "accuracy": mean(f["exits"][0] for f in each),
            "macs": mean(f["macs"][0] for f in each),
        },
        "overthinking": mean(facts["overthinking"] for facts in each),
        **controls,
    }


def lost(twins: Mapping[int, Facts], own: Mapping[int, Facts]) -> dict[str, Any] | None:
    """What the last exit is below the twin's, over the seeds that have both."""
    seeds = sorted(twins.keys() & own.keys())
    if not seeds:
        return None
    before, after = ([each[seed]["test"]["answers"][-1:] for seed in seeds] for each in (twins, own))
    return difference(before, after, own[seeds[0]]["test"]["rows"])


def leaving(own: Mapping[int, Facts], without: Mapping[int, Facts]) -> dict[str, Any] | None:
    """What the rule saves and gains over the same model without exits, over the seeds that have both.

    A threshold found by accuracy would be one of extremes: exits that know the same differ by luck.
    """
    seeds = sorted(own.keys() & without.keys())
    if not seeds:
        return None
    steps = [chosen(own[seed]) for seed in seeds]
    at = [step_of(own[seed]["test"], step) for seed, step in zip(seeds, steps, strict=True)]
    saved = [1 - each["macs"] for each in at]
    rows = own[seeds[0]]["test"]["rows"]
    return {
        "thresholds": steps,
        "macs_saved": mean(saved),
        "macs_saved_sd": stdev(saved) if len(saved) > 1 else None,
        "gain": difference(
            [[each["answers"]] for each in at],
            [without[seed]["test"]["answers"][-1:] for seed in seeds],
            rows,
        ),
    }


def chosen(facts: Facts) -> str | None:
    """The smallest threshold that saves `SAVED` on tuning rows; None where none does."""
    sweep = facts["tune"]["sweep"]
    enough = [step for step in sweep if 1 - sweep[step]["macs"] >= SAVED]
    return min(enough, key=float, default=None)


def step_of(part: Facts, step: str | None) -> dict[str, Any]:
    """What a threshold does; None: all go through all layers."""
    return {"macs": 1.0, "answers": part["answers"][-1]} if step is None else part["sweep"][step]
