"""Quality against size: COST-EFF's slender models, their layers 2, 4 and 8 times smaller, beside controls.

    LESSEN_DATA=/path/to/data python benchmarks/width_quality.py [--model builtin:minilm-l6]
        [--tasks sst2,mrpc] [--seeds 0,1,2] [--ways calibrated,...]

Every way starts from the same dense model and the same multi-exit assistant of a seed, and has the same
stages, epochs and learning rates. The first way is run with every seed, the others with seed 0. A run is
one way of one task and seed with all its sizes, or the dense model with its assistant; what is in the results
is not made again. Work stays in `.cache/width/`; where that is gone, a run makes its assistant anew, and its
entry shows it.

What it costs is worked out in docs/measuring.md: about five hours of two cores, mpnet included.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from certifying import DELTA, answers, by_any, certified
from results import CACHE, add_run, alone, kept
from tasks import TASKS, prepare

from lessen.artefact import WEIGHTS, write_json
from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.metrics import quality
from lessen.model.macs import row_macs
from lessen.model.transformer import parameter_counts
from lessen.plan import Shape
from lessen.promise.outputs import Outputs
from lessen.reshaping import with_exits, with_shape
from lessen.systems import system_of
from lessen.systems.milestone import RECORD, Milestone
from lessen.systems.removing import remove
from lessen.systems.target import Target, shallow_shape
from lessen.train.fine_tuning import Recipe, fine_tune
from lessen.width.budget import encoder_of, largest_within

BOUNDS = (0.01, 0.02)

SIZES = (2, 4, 8)
"""Of the layers; every model passes through the larger ones."""

RECOVERED = {"builtin:minilm-l6": SIZES, "builtin:mpnet-l12": SIZES[-1:]}
"""Sizes that are trained on and measured."""

SCORED_ROWS = 1024
"""Half of the product's: with all of them, scoring would be half of what a round costs here."""

EPOCHS = {
    "builtin:minilm-l6": {"sst2": 4.0, "mrpc": 5.0},
    "builtin:mpnet-l12": {"mrpc": 3.0},
}
"""Of the first stage, the others in proportion, as `lessen compress --epochs` does it."""

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

USUAL = ("calibrated", "last exit only", "magnitude", "random")
"""The others are run where they are named."""

SHAPE = ("parameters", "heads", "neurons", "products", "embedding_rank")
"""What a line of the summary says of the model's form, besides figures."""

DENSE = "dense"
"""In place of a way: the dense model and its assistant."""


def name_of(model: str) -> str:
    """Of the results file."""
    return "width_quality" if model == "builtin:minilm-l6" else f"width_{model.removeprefix('builtin:')}"


def settings_of(model: str) -> dict[str, Any]:
    """What all runs of a model have in common."""
    return {
        "model": model,
        "epochs": EPOCHS[model],
        "sizes": list(RECOVERED[model]),
        "scored_rows": SCORED_ROWS,
        "bounds": list(BOUNDS),
        "delta": DELTA,
    }


def slender_shape(model: Any, size: int, rank: float | None = None) -> Shape:
    """The largest even shape whose layers have at most 1/size of the weights they have now."""
    facts, form, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    return largest_within(facts, form, outputs, encoder_of(facts, form, outputs) // size, encoder_of, rank)


class Runs:
    """The models of one checkpoint, task and seed."""

    def __init__(self, model: str, task: str, seed: int) -> None:
        self.model, self.task, self.seed = model, task, seed
        self.folder = CACHE / "width" / model.removeprefix("builtin:") / f"{task}-seed{seed}"
        self.train = read(str(prepare(task)["train"]))
        names, kind = self.train.label_names or ["value"], self.train.kind
        self.base = with_exits(load(model), labels=names, problem_type=kind, seed=seed)

    def stage(self, system: str, number: int) -> Recipe:
        """A stage (from 1) of a system, with this task's epochs and longest text and this seed."""
        stages = system_of(system).stages
        stage = stages[number - 1]
        epochs = EPOCHS[self.model][self.task] * stage.epochs / stages[0].epochs
        changes = {"epochs": epochs, "rows": None, "max_tokens": TASKS[self.task].max_tokens}
        return stage.model_copy(update=changes | {"seed": self.seed})

    def trained(self, place: Path, begin: Callable[[], Any], number: int, teacher: Any) -> Any:
        """The model a training stage left, made if it is not there yet."""
        milestone = Milestone(place)
        if not milestone.reached():
            model, work = begin(), place / "checkpoints"
            torch.manual_seed(self.seed)
            record = fine_tune(model, self.train, self.stage("cost-eff", number), work, teacher=teacher)
            milestone.leave(model.transformer.state_dict(), model.config.form(), record)
            shutil.rmtree(work, ignore_errors=True)
        return milestone.model(self.base)

    def copy(self) -> Any:
        """The checkpoint with fresh exits."""
        return with_shape(self.base, self.base.config.form(), self.base.transformer.state_dict())

    def dense(self) -> Any:
        """Fine-tuned as usual."""
        return self.trained(self.folder / "dense", self.copy, 1, None)

    def assistant(self) -> Any:
        """As wide as the dense model, which taught it, with all exits; made by one process at a time."""
        done = Milestone(self.folder / "assistant")
        with alone(self.folder / "assistant.lock"):
            if not done.reached():
                dense = self.dense()
                like = self.trained(self.folder / "like-dense", self.copy, 2, dense)
                self.trained(done.folder, lambda: like, 3, dense)
        return done.model(self.base)

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
            # Layers are all of one size, so the nearest number of them is as near as chopping comes.
            depth = len(assistant.config.form().layers)
            stage = self.stage("layer-chop", 4)
            left = [max(1, round(depth / each)) for each in through]
            shapes = [shallow_shape(assistant, Target(layers=layers)) for layers in left]
        else:
            changes = WAYS[way] | {"scored_rows": SCORED_ROWS}
            stage = self.stage("cost-eff", 4).model_copy(update=changes)
            shapes = [slender_shape(assistant, each, WAYS[way].get("rank")) for each in through]
        return remove(self.assistant(), assistant, self.train, stage, shapes, folder, print)

    def measured(self, name: str, make: Callable[[], Any]) -> dict[str, Any]:
        """What a model does on the test rows; kept once measured."""
        folder = self.folder / "measured" / name.replace(" ", "-")
        place = folder / "facts.json"
        if not place.exists():
            make().save_pretrained(folder)
            write_json(place, facts_of(folder, self.task))
        return json.loads(place.read_text())

    def run(self, way: str) -> dict[str, Any]:
        """One run: the sizes of a way, or the dense model and its assistant.

        It says which assistant taught: when that was made, and a hash of its weights.
        """
        if way == DENSE:
            models = {
                "dense": self.measured("dense", self.dense),
                "assistant": self.measured("assistant", self.assistant),
            }
        else:
            models = {
                f"{way} {size}x": self.measured(f"{way} {size}x", partial(self.slender, way, size))
                for size in RECOVERED[self.model]
            }
        place = self.folder / "assistant"
        return {
            "task": self.task,
            "seed": self.seed,
            "way": way,
            "assistant": {
                "made": datetime.fromtimestamp((place / RECORD).stat().st_mtime, UTC).isoformat(),
                "weights": sha256((place / WEIGHTS).read_bytes()).hexdigest()[:16],
            },
            "models": models,
        }


def facts_of(folder: Path, task: str) -> dict[str, Any]:
    """Size, quality at every exit, and what is certified."""
    found, about = answers(folder, task)
    model, test = load(folder, promises=False), found["test"]
    assert test.labels is not None
    values = [quality(each, test.labels.tolist(), model.problem_type) for each in test.logits]
    form = model.config.form()
    return {
        "parameters": parameter_counts(model.transformer),
        "heads": [len(layer.heads) for layer in form.layers],
        "neurons": [layer.intermediate_size for layer in form.layers],
        "products": any(any(layer.rank.model_dump().values()) for layer in form.layers),
        "embedding_rank": form.embedding_rank,
        "macs": macs_of(model, test),
        "exits": values,
        "last": values[-1],
        "mean": mean(values),
        "certified": certified(found, about, by_any, BOUNDS),
    }


def macs_of(model: Any, test: Outputs) -> float:
    """Of one row at full depth, mean over the rows."""
    assert test.tokens is not None
    facts, shape, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    return mean(row_macs(facts, shape, outputs, int(tokens)) for tokens in test.tokens)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task, way and size: means and deviations over seeds, quality and MACs against the dense model.

    Runs whose dense model has not been measured are left out.
    """
    dense = {(run["task"], run["seed"]): run["models"]["dense"] for run in runs if run["way"] == DENSE}
    found: dict[str, dict[str, list[Any]]] = {}
    for run in runs:
        if (key := (run["task"], run["seed"])) in dense:
            for name, facts in run["models"].items():
                found.setdefault(run["task"], {}).setdefault(name, []).append((facts, dense[key]))
    return {task: {name: line(pairs) for name, pairs in of_task.items()} for task, of_task in found.items()}


def line(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Of one task, way and size: what was measured with each seed, beside the dense model of that seed."""
    last = [facts["last"] for facts, _ in pairs]
    return {
        "seeds": len(pairs),
        **{name: pairs[0][0][name] for name in SHAPE},
        "macs": mean(facts["macs"] for facts, _ in pairs),
        "macs_ratio": mean(dense["macs"] / facts["macs"] for facts, dense in pairs),
        "last": mean(last),
        "last_sd": stdev(last) if len(last) > 1 else None,
        "loss": mean(dense["last"] - facts["last"] for facts, dense in pairs),
        "relative": mean(facts["last"] / dense["last"] for facts, dense in pairs),
        "mean": mean(facts["mean"] for facts, _ in pairs),
        "exits": [mean(values) for values in zip(*(facts["exits"] for facts, _ in pairs), strict=True)],
        "certified": [
            {
                "bound": bound,
                "seeds": sum(facts["certified"][i]["certified"] for facts, _ in pairs),
                "value": mean(facts["certified"][i]["test_accuracy"] for facts, _ in pairs),
                "macs_ratio": mean(
                    facts["certified"][i]["macs_ratio"] * dense["macs"] / facts["macs"]
                    for facts, dense in pairs
                ),
            }
            for i, bound in enumerate(BOUNDS)
        ],
    }


def remade(run: dict[str, Any], runs: list[dict[str, Any]]) -> bool:
    """Whether the assistant is another than the one measured with the dense model.

    Then it was gone and made anew, with the same seed; equal hashes of weights say that it came out the same.
    """
    first = [each for each in runs if (each["task"], each["seed"]) == (run["task"], run["seed"])][:1]
    return any(each["assistant"]["made"] != run["assistant"]["made"] for each in first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="builtin:minilm-l6", choices=sorted(EPOCHS))
    parser.add_argument("--tasks", help="those of the model if not given")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default=",".join(USUAL))
    options = parser.parse_args()
    name, settings = name_of(options.model), settings_of(options.model)
    tasks = options.tasks.split(",") if options.tasks else list(EPOCHS[options.model])
    seeds, ways = [int(seed) for seed in options.seeds.split(",")], options.ways.split(",")
    for seed in seeds:
        for task in tasks:
            for way in (DENSE, *(ways if seed == 0 else ways[:1])):
                key = (task, seed, way)
                if any((run["task"], run["seed"], run["way"]) == key for run in kept(name, settings)):
                    continue
                run = Runs(options.model, task, seed).run(way)
                run["assistant"]["remade"] = remade(run, kept(name, settings))
                add_run(name, settings, run, summary)
                lasts = {model: round(facts["last"], 4) for model, facts in run["models"].items()}
                print(task, seed, way, lasts, flush=True)


if __name__ == "__main__":
    main()
