"""Quality against size: COST-EFF's slender models at three sizes, beside controls and other ways.

    LESSEN_DATA=/path/to/data python benchmarks/width_quality.py [--tasks sst2,mrpc] [--seeds 0,1,2]
        [--ways calibrated,...] [--model builtin:minilm-l6]

Every way starts from the same dense model and the same multi-exit assistant of a seed, and has the same
stages, epochs and learning rates. The first way is run with every seed, the others with the first. Work stays
in `.cache/width/`; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from certifying import DELTA, answers, by_any, certified
from results import CACHE, write_results
from tasks import TASKS, prepare

from lessen.artefact import write_json
from lessen.data.reading import read
from lessen.data.table import Table
from lessen.loading import load
from lessen.measure.evaluation import answers_of_every_exit
from lessen.measure.metrics import quality
from lessen.model.macs import row_macs
from lessen.model.transformer import parameter_counts
from lessen.reshaping import with_exits, with_shape
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.chopping import Chopping, chop
from lessen.systems.milestone import Milestone
from lessen.systems.slimming import Slimming, slim
from lessen.systems.target import Target, narrow_shape, shallow_shape
from lessen.train.fine_tuning import Recipe, fine_tune

SIZES = (2, 4, 8)
LAYERS_LEFT = {2: 3, 4: 2, 8: 1}
"""Of six: chopping cannot meet the other sizes, as the embeddings stay; the nearest in encoder size."""

BOUNDS = (0.01, 0.02)
WAYS: dict[str, dict[str, Any]] = {
    "calibrated": {},
    "last exit only": {"calibrated": False},
    "magnitude": {"importance": "magnitude"},
    "random": {"importance": "random"},
    "per row": {"importance": "signed_group"},
    "uneven": {"importance": "signed_group", "budget": "uneven"},
    "half rank": {"rank": 0.5},
    "layers": {},
}
"""Changes to COST-EFF's slimming stage; "layers" chops whole ones instead."""


class Runs:
    """The models of one checkpoint, task and seed."""

    def __init__(self, model: str, task: str, seed: int) -> None:
        self.model, self.task, self.seed = model, task, seed
        self.folder = CACHE / "width" / model.removeprefix("builtin:") / f"{task}-seed{seed}"
        self.base = load(model)
        self.train = read(str(prepare(task)["train"]))
        names = self.train.label_names or ["value"]
        kind = self.train.kind
        self.base = with_exits(self.base, labels=names, problem_type=kind, seed=seed)

    def stage(self, system: str, number: int) -> Recipe:
        """A stage (from 1) of a system, with this task's longest text and this seed."""
        changes = {"seed": self.seed, "max_tokens": TASKS[self.task].max_tokens}
        return system_of(system).stages[number - 1].model_copy(update=changes)

    def trained(self, place: Path, begin: Callable[[], Any], number: int, teacher: Any) -> Any:
        """The model a training stage left, made if it is not there yet."""
        milestone = Milestone(place)
        if not milestone.reached():
            model, recipe = begin(), self.stage("cost-eff", number)
            torch.manual_seed(self.seed)
            record = fine_tune(model, self.train, recipe, place / "checkpoints", teacher=teacher)
            milestone.leave(model.transformer.state_dict(), model.config.form(), record)
        return milestone.model(self.base)

    def copy(self) -> Any:
        """The checkpoint with fresh exits."""
        return with_shape(self.base, self.base.config.form(), self.base.transformer.state_dict())

    def dense(self) -> Any:
        """Fine-tuned as usual."""
        return self.trained(self.folder / "dense", self.copy, 1, None)

    def assistant(self) -> Any:
        """As wide as the dense model, which taught it, with all exits."""
        dense = self.dense()
        like = self.trained(self.folder / "like-dense", self.copy, 2, dense)
        return self.trained(self.folder / "assistant", lambda: like, 3, dense)

    def slender(self, way: str, size: int) -> Any:
        """The model of one way and size, from its rounds through its recovery."""
        assistant, place = self.assistant(), self.folder / way.replace(" ", "-")
        narrow = Milestone(place / f"narrow-{size}")
        if not narrow.reached():
            model, records = self.removed(way, size, place / "rounds")
            narrow.leave(model.transformer.state_dict(), model.config.form(), {"rounds": records})
        like = self.trained(place / f"like-{size}", lambda: narrow.model(self.base), 5, assistant)
        return self.trained(place / f"done-{size}", lambda: like, 6, assistant)

    def removed(self, way: str, size: int, folder: Path) -> tuple[Any, list[dict[str, Any]]]:
        """The assistant with parts removed, through the larger sizes."""
        assistant, through = self.assistant(), [each for each in SIZES if each <= size]
        if way == "layers":
            stage = self.stage("layer-chop", 4)
            assert isinstance(stage, Chopping)
            shapes = [shallow_shape(assistant, Target(layers=LAYERS_LEFT[each])) for each in through]
            return chop(self.assistant(), assistant, self.train, stage, shapes, folder, print)
        stage = self.stage("cost-eff", 4).model_copy(update=WAYS[way])
        assert isinstance(stage, Slimming)
        shapes = [narrow_shape(assistant, Target(share=1 / each), stage.rank) for each in through]
        return slim(self.assistant(), assistant, self.train, stage, shapes, folder, print)

    def measured(self, name: str, make: Callable[[], Any]) -> dict[str, Any]:
        """What a model does on the test rows; kept once measured."""
        folder = self.folder / "measured" / name.replace(" ", "-")
        place = folder / "facts.json"
        if not place.exists():
            make().save_pretrained(folder)
            write_json(place, facts_of(folder, self.task))
        return json.loads(place.read_text())


def facts_of(folder: Path, task: str) -> dict[str, Any]:
    """Size, quality at every exit, and what is certified."""
    model = load(folder)
    test = read(str(prepare(task)["test"])).with_labels_of(model.label_names)
    encoded = encode(model.tokenizer, test.texts, model.config.facts().max_tokens)
    values = [
        quality(each, test.labels or [], model.problem_type) for each in answers_of_every_exit(model, encoded)
    ]
    lines = certified(*answers(folder, task), by_any, BOUNDS)
    return {
        "parameters": parameter_counts(model.transformer),
        "macs": macs_of(model, test),
        "exits": values,
        "last": values[-1],
        "mean": mean(values),
        "certified": lines,
    }


def macs_of(model: Any, table: Table) -> float:
    """Of one row at full depth, mean over the table's."""
    encoded = encode(model.tokenizer, table.texts, model.config.facts().max_tokens)
    facts, shape, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    return mean(row_macs(facts, shape, outputs, len(row.ids)) for row in encoded)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task, way and size: means and deviations over seeds, MACs against the dense model's."""
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run["models"] for run in runs if run["task"] == task]
        for name in dict.fromkeys(name for models in of_task for name in models):
            found = [(models[name], models["dense"]) for models in of_task if name in models]
            last = [facts["last"] for facts, _ in found]
            lines.setdefault(task, {})[name] = {
                "seeds": len(found),
                "parameters": found[0][0]["parameters"],
                "last": mean(last),
                "last_sd": stdev(last) if len(last) > 1 else None,
                "loss": mean(dense["last"] - facts["last"] for facts, dense in found),
                "mean": mean(facts["mean"] for facts, _ in found),
                "exits": [
                    mean(values) for values in zip(*(facts["exits"] for facts, _ in found), strict=True)
                ],
                "macs_ratio": mean(dense["macs"] / facts["macs"] for facts, dense in found),
                "certified": [
                    {
                        "bound": bound,
                        "seeds": sum(facts["certified"][i]["certified"] for facts, _ in found),
                        "value": mean(facts["certified"][i]["test_accuracy"] for facts, _ in found),
                        "macs_ratio": mean(
                            facts["certified"][i]["macs_ratio"] * dense["macs"] / facts["macs"]
                            for facts, dense in found
                        ),
                    }
                    for i, bound in enumerate(BOUNDS)
                ],
            }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="sst2,mrpc")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--model", default="builtin:minilm-l6")
    options = parser.parse_args()
    seeds, ways = [int(seed) for seed in options.seeds.split(",")], options.ways.split(",")
    name = "width_quality" if options.model.endswith("minilm-l6") else "width_mpnet"
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        for task in options.tasks.split(","):
            here = Runs(options.model, task, seed)
            models = {
                "dense": here.measured("dense", here.dense),
                "assistant": here.measured("assistant", here.assistant),
            }
            runs.append({"task": task, "seed": seed, "models": models})
            for way in ways if seed == seeds[0] else ways[:1]:
                for size in map(int, options.sizes.split(",")):
                    found = here.measured(f"{way} {size}x", partial(here.slender, way, size))
                    models[f"{way} {size}x"] = found
                    print(task, seed, way, size, {key: found[key] for key in ("last", "mean")}, flush=True)
                    content = {"model": options.model, "delta": DELTA, "runs": runs, "summary": summary(runs)}
                    write_results(name, content)


if __name__ == "__main__":
    main()
