"""What can be certified on IMDB reviews: exits alone, tokens alone, and both along one path.

    LESSEN_DATA=/path/to/data python benchmarks/token_points.py [--seeds 0,1,2]

The models of `token_quality.py`. Paths are made on 1,000 tuning rows and tested on 3,000 others; the bound is
on the accuracy lost against the same model's full depth with all tokens. "exits alone, before" is the model
that never saw tokens leave: the fair start for exits alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import numpy as np
from results import write_results
from token_quality import fine_tuned, prepare, taught

from lessen.data.reading import read
from lessen.depth.criteria import CRITERIA
from lessen.loading import load
from lessen.plan import FULL, Point
from lessen.promise.calibrate import freeze_path, judge
from lessen.promise.outputs import Outputs, Task, outputs_of, settings_of, task_of

BOUNDS = (0.005, 0.01, 0.02)
DELTA = 0.1

Answers = dict[str, Outputs]
"""Of the tune, calibration and test rows."""


def answers(folder: Any) -> tuple[Answers, Task]:
    """Answers of every exit at every setting."""
    model = load(folder, promises=False)
    settings = settings_of(model.speeds().values())
    tables = {name: read(str(prepare("imdb")[name])) for name in ("tune", "calibration", "test")}
    found = {
        name: outputs_of(model, table.with_labels_of(model.label_names), settings=settings)
        for name, table in tables.items()
    }
    return found, task_of(model)


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


def certified(
    found: Answers, task: Task, path_for: Any, bounds: Sequence[float] = BOUNDS
) -> list[dict[str, Any]]:
    """The step each bound allows, each bound on its own, and what that step does on the test rows."""
    lines = []
    for bound in bounds:
        path: Sequence[Point] = path_for(found["tune"], task, bound)
        verdict = judge(found["calibration"], path, task, [bound], DELTA)[0]
        step = FULL if verdict.chosen.step is None else path[verdict.chosen.step]
        test = found["test"]
        taken = test.answers_taken([step], task)
        full, scores = test.scores(task)
        reached = np.take_along_axis(scores, taken, 1)[:, 0]
        lines.append(
            {
                "bound": bound,
                "certified": verdict.chosen.step is not None,
                "macs_ratio": 1 / float(test.cost_of(taken, task)[0]),
                "mean_layers": float(task.depths(taken).mean()),
                "test_accuracy": float(reached.mean()),
                "test_drop": float((full - reached).mean()),
                "retention": step.retention,
                "exits": None if step.exits is None else step.exits.model_dump(mode="json"),
            }
        )
    return lines


def by_tokens(tune: Outputs, _task: Task, _bound: float) -> tuple[Point, ...]:
    """More and more tokens leave."""
    return tuple(reversed(tune.settings[:-1]))


def by_any(tune: Outputs, task: Task, bound: float) -> tuple[Point, ...]:
    """The path that should save most: tokens up to a setting, then exits."""
    return freeze_path(tune, task, list(CRITERIA), bound)


def measured(seed: int) -> dict[str, Any]:
    """All ways, one seed."""
    before, task = answers(fine_tuned("imdb", seed))
    found, _ = answers(taught("imdb", seed, "mean"))
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
