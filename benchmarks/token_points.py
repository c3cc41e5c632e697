"""What can be certified on IMDB reviews: exits alone, tokens alone, and both along one path.

    LESSEN_DATA=/path/to/data python benchmarks/token_points.py [--seeds 0,1,2]

The models of `token_quality.py`. Paths are made on 1,000 tuning rows and tested on 3,000 others; the bound is
on the accuracy lost against the same model's full depth with all tokens. "exits alone, before" is the model
that never saw tokens leave: the fair start for exits alone. Seeds already in the results are not made again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from statistics import mean
from typing import Any

from certifying import BOUNDS, DELTA, Answers, answers, by_any, certified
from results import add_run, kept
from tasks import TASKS
from token_quality import MODEL, PRECISION, STAGE, START, fine_tuned, taught

from lessen.plan import Point
from lessen.promise.outputs import Outputs, Task

NAME = "token_points"
SETTINGS = {
    "model": MODEL,
    "start": START.model_dump(mode="json"),
    "stage": STAGE.model_dump(mode="json"),
    "task": asdict(TASKS["imdb"]),
    "bounds": BOUNDS,
    "delta": DELTA,
    "precision": PRECISION,
}
"""What all runs have in common."""

MEANS = ("macs_ratio", "mean_layers", "test_accuracy", "test_drop")


def exits_alone(found: Answers) -> Answers:
    """The answers given with all tokens there."""
    return {name: part.at(-1) for name, part in found.items()}


def tokens_alone(found: Answers, task: Task) -> tuple[Answers, Task]:
    """The last exit's answers at every setting."""
    count = len(task.layers)
    last = {
        name: replace(
            part, logits=part.logits[count - 1 :: count], macs=_present(part.macs)[count - 1 :: count]
        )
        for name, part in found.items()
    }
    return last, replace(task, layers=task.layers[-1:])


def _present(macs: Any) -> Any:
    assert macs is not None
    return macs


def by_tokens(tune: Outputs, _task: Task, _bound: float) -> tuple[Point, ...]:
    """More and more tokens leave."""
    return tuple(reversed(tune.settings[:-1]))


def measured(seed: int) -> dict[str, Any]:
    """All ways, one seed."""
    before, task = answers(fine_tuned("imdb", seed), "imdb", PRECISION)
    found, _ = answers(taught("imdb", seed, "mean"), "imdb", PRECISION)
    return {
        "exits alone, before": certified(exits_alone(before), task, by_any),
        "exits alone": certified(exits_alone(found), task, by_any),
        "tokens alone": certified(*tokens_alone(found, task), by_tokens),
        "tokens and exits": certified(found, task, by_any),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each way and bound: in how many seeds a Point was certified, and means over these."""
    return {
        way: [of_seeds(bound, [run["ways"][way][i] for run in runs]) for i, bound in enumerate(BOUNDS)]
        for way in runs[0]["ways"]
    }


def of_seeds(bound: float, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one way and bound, a line for each seed; means are None where none was certified."""
    kept_it = [line for line in lines if line["certified"]]
    means = {field: mean(line[field] for line in kept_it) if kept_it else None for field in MEANS}
    return {"bound": bound, "seeds": len(lines), "certified": len(kept_it), **means}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    for seed in map(int, options.seeds.split(",")):
        if not any(run["seed"] == seed for run in kept(NAME, SETTINGS)):
            add_run(NAME, SETTINGS, {"seed": seed, "ways": measured(seed)}, summary)


if __name__ == "__main__":
    main()
