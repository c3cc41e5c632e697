"""What can be certified on IMDB reviews: exits alone, tokens alone, and both along one path.

    LESSEN_DATA=/path/to/data python benchmarks/token_points.py [--seeds 0,1,2]

The models of `token_quality.py`. Paths are made on 1,000 tuning rows and tested on 3,000 others; the bound is
on the accuracy lost against the same model's full depth with all tokens. "exits alone, before" is the model
that never saw tokens leave: the fair start for exits alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from statistics import mean
from typing import Any

from certifying import BOUNDS, DELTA, Answers, answers, by_any, certified
from results import write_results
from token_quality import fine_tuned, taught

from lessen.plan import Point
from lessen.promise.outputs import Outputs, Task


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
    before, task = answers(fine_tuned("imdb", seed), "imdb")
    found, _ = answers(taught("imdb", seed, "mean"), "imdb")
    return {
        "exits alone, before": certified(exits_alone(before), task, by_any),
        "exits alone": certified(exits_alone(found), task, by_any),
        "tokens alone": certified(*tokens_alone(found, task), by_tokens),
        "tokens and exits": certified(found, task, by_any),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        runs.append({"seed": seed, "ways": measured(seed)})
        summary = {
            way: [
                {
                    "bound": bound,
                    "certified": sum(run["ways"][way][i]["certified"] for run in runs),
                    **{
                        field: mean(run["ways"][way][i][field] for run in runs)
                        for field in ("macs_ratio", "mean_layers", "test_accuracy", "test_drop")
                    },
                }
                for i, bound in enumerate(BOUNDS)
            ]
            for way in runs[0]["ways"]
        }
        for way, lines in summary.items():
            print(seed, way, [(line["bound"], round(line["macs_ratio"], 2)) for line in lines], flush=True)
        write_results("token_points", {"delta": DELTA, "runs": runs, "summary": summary})


if __name__ == "__main__":
    main()
