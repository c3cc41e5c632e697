"""Runs of binary MiniLMs brought together, and which variant was chosen on tuning rows."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from paired import difference

Run = dict[str, Any]

DENSE = "dense"
FIRST = 0
"""The seed candidates are tried with."""

CANDIDATES: dict[str, tuple[str, ...]] = {
    "W1A32": ("W1A32", "W1A32, gradual", "W1A32, phrases"),
    "W1A8": ("W1A8", "W1A8, gradual", "W1A8, phrases"),
}
"""By bits: what is tried before one is chosen."""


def chosen(runs: Sequence[Run], task: str) -> dict[str, dict[str, Any]]:
    """By bits, the candidate whose last exit is best on tuning rows, of those that were tried."""
    found = {
        run["variant"]: run["facts"]["tune"]["exits"][-1]
        for run in runs
        if (run["task"], run["seed"]) == (task, FIRST)
    }
    best: dict[str, dict[str, Any]] = {}
    for bits, names in CANDIDATES.items():
        tried = {name: found[name] for name in names if name in found}
        if tried:
            best[bits] = {"variant": max(tried, key=lambda name: tried[name]), "tune": tried}
    return best


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """For each task: what was chosen, and each variant beside the dense model of the same seed."""
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        found: dict[str, dict[int, Any]] = {}
        for run in runs:
            if run["task"] == task:
                found.setdefault(run["variant"], {})[run["seed"]] = run["facts"]
        dense = found.get(DENSE, {})
        models = {name: line(own, dense if name != DENSE else {}) for name, own in found.items()}
        lines[task] = {"chosen": chosen(runs, task), "models": models}
    return lines


def line(own: dict[int, Any], dense: dict[int, Any]) -> dict[str, Any]:
    """Means and deviations over seeds, and what is lost against the dense model."""
    each = list(own.values())
    last = [facts["test"]["exits"][-1] for facts in each]
    seeds = sorted(own.keys() & dense.keys())

    def loss(part: str) -> dict[str, float | None] | None:
        before, after = ([side[seed][part]["answers"][-1:] for seed in seeds] for side in (dense, own))
        return difference(before, after, each[0][part]["rows"]) if seeds else None

    return {
        "seeds": len(each),
        "last": mean(last),
        "last_sd": stdev(last) if len(last) > 1 else None,
        "tune": mean(facts["tune"]["exits"][-1] for facts in each),
        "loss": loss("test"),
        "tune_loss": loss("tune"),
        "shuffled": mean(facts["shuffled"] for facts in each),
        "exits": [mean(values) for values in zip(*(f["test"]["exits"] for f in each), strict=True)],
    }
