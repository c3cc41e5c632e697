"""Quality against size: COST-EFF's slender models, their layers 2, 4 and 8 times smaller, beside controls.

    LESSEN_DATA=/path/to/data python benchmarks/width_quality.py [--model builtin:minilm-l6]
        [--tasks sst2,mrpc] [--seeds 0,1,2] [--ways calibrated,...] [--sizes 2,4,8] [--epochs 0.02]

Without a choice it makes the model's `SCHEDULE`. Every way starts from the same dense model and the same
multi-exit assistant of a seed, and has the same stages and epochs, rounds added up; rates grow with rounds,
of which whole layers have fewer. A run is one way of one task, seed and size, or the dense model, or its
assistant; each is kept under a key of all that decides it, what is there is not made again, and several
processes may share the work. Work stays in `.cache/width/`; where that is gone, a run makes its assistant
anew, and its entry shows it.

`builtin:mpnet-l12` is five packages of 405 MB, which requirements-data.txt leaves out; without them loading
says which to install.

What it costs is worked out in docs/measuring.md: eight hours of two cores, and two and a half for MPNet.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from baselines import baselines
from keyed import About, Ledger, key_of, named, reached
from results import CACHE, alone
from tasks import TASKS, prepare, rows_of
from width_measuring import BOUNDS, DELTA, answers_of_last, f1_of_most_frequent, facts_of
from width_summary import summary

from lessen.artefact import WEIGHTS
from lessen.data.reading import read
from lessen.loading import load
from lessen.plan import Shape
from lessen.reshaping import with_exits, with_shape
from lessen.systems import system_of
from lessen.systems.milestone import RECORD, Milestone
from lessen.systems.removing import remove
from lessen.systems.rounds import Rounds
from lessen.systems.target import Target, shallow_shape
from lessen.train.fine_tuning import Recipe, fine_tune, passes_over
from lessen.width.budget import encoder_of, largest_within, rank_saves

SIZES = (2, 4, 8)
"""Of the layers; every model passes through the larger ones."""

SCORED_ROWS = 1024
"""Half of the product's: with all of them, scoring would be half of what a round costs here."""

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

DENSE, LONGER, ASSISTANT, SIMPLE = "dense", "dense, longer", "assistant", "baselines"
"""In place of a way: the dense model, the same trained for as long as what is 8 times smaller was in all,
what the dense one taught, and what is simpler than all."""

AS_LONG = 6.6
"""Epochs of all stages and 22 rounds, in those of the first stage."""


@dataclass(frozen=True)
class Training:
    """How a checkpoint is trained.

    Attributes:
        model: The checkpoint.
        hidden_size: Its own, on which the product's learning rates depend.
        epochs: By task, of the first stage; the others in proportion, as `lessen compress --epochs` does it.
        dense: The same for the first stage alone, where it is another: what others are held against.
        slender: The same for the stages from the first round on, where it is another.
    """

    model: str
    hidden_size: int
    epochs: dict[str, float]
    dense: dict[str, float] | None = None
    slender: dict[str, float] | None = None


TRAININGS = {
    each.model: each
    for each in (
        Training("builtin:minilm-l6", 384, {"sst2": 4.0, "mrpc": 5.0}),
        Training(
            "builtin:mpnet-l12",
            768,
            {"mrpc": 3.0},
            dense={"mrpc": 6.9},
            slender={"mrpc": 6.9},
        ),
    )
}

Wanted = tuple[tuple[str, tuple[int, ...], str, tuple[int, ...]], ...]
SCHEDULE: dict[str, Wanted] = {
    "builtin:minilm-l6": (
        ("sst2", (0,), "calibrated", SIZES),
        ("mrpc", (0,), "calibrated", SIZES),
        ("sst2", (0,), "last exit only", (8,)),
        ("mrpc", (0,), "last exit only", (8,)),
        ("sst2", (1, 2), "calibrated", SIZES),
        ("mrpc", (1, 2), "calibrated", SIZES),
        ("mrpc", (1, 2), "last exit only", (8,)),
        ("sst2", (1, 2), "last exit only", (8,)),
        ("sst2", (0,), "magnitude", (8,)),
        ("sst2", (0,), "random", (8,)),
        ("sst2", (0,), LONGER, (1,)),
        ("mrpc", (0,), LONGER, (1,)),
        ("mrpc", (0,), "magnitude", (8,)),
        ("mrpc", (0,), "random", (8,)),
        ("sst2", (0,), "last exit only", (2, 4)),
        ("sst2", (0,), "magnitude", (2, 4)),
        ("sst2", (0,), "random", (2, 4)),
        ("sst2", (1, 2), "last exit only", (2, 4)),
        ("mrpc", (0,), "last exit only", (2, 4)),
        ("mrpc", (0,), "magnitude", (2, 4)),
        ("mrpc", (0,), "random", (2, 4)),
        ("sst2", (0,), "layers", SIZES),
        ("sst2", (0,), "uneven", (4,)),
        ("sst2", (0,), "per row", (4,)),
        ("sst2", (0,), "half rank", (4,)),
    ),
    "builtin:mpnet-l12": (("mrpc", (0,), "calibrated", (8,)),),
}
"""Tasks, seeds, ways and sizes, what is wanted most first. On MRPC seeds differ by points: what is run once
there decides nothing."""

FIELDS = ("task", "seed", "way", "size")


def ledger(training: Training) -> Ledger:
    """The results file of a checkpoint; one of its own where epochs are not those of `TRAININGS`."""
    model = training.model
    name = "width_quality" if model == "builtin:minilm-l6" else f"width_{model.removeprefix('builtin:')}"
    changed = {} if training == TRAININGS[model] else {"epochs": training.epochs}
    settings = {
        "model": model,
        "epochs": training.epochs,
        "dense": training.dense,
        "slender": training.slender,
        "product_epochs": product_epochs(training),
        "sizes": list(SIZES),
        "bounds": list(BOUNDS),
        "delta": DELTA,
    }

    def decides(about: About) -> dict[str, Any] | None:
        return decided_by(training, about)

    return Ledger(named(name, changed), FIELDS, settings, decides, summary)


def product_epochs(training: Training) -> dict[str, float]:
    """Of the first stage, as `lessen compress` would have them."""
    first = system_of("cost-eff").stages[0]
    rows = {task: len(read(str(prepare(task)["train"]))) for task in training.epochs}
    return {task: round(passes_over(count, first), 1) for task, count in rows.items()}


def decided_by(training: Training, about: About) -> dict[str, Any] | None:
    """Everything a run depends on besides what it is called by; None of a way there is no more."""
    task, seed, way = about["task"], about["seed"], about["way"]
    if task not in training.epochs or way not in (*WAYS, DENSE, LONGER, ASSISTANT, SIMPLE):
        return None
    if way == SIMPLE:
        return {"rows": rows_of(task)}
    decides = {"bounds": list(BOUNDS), "delta": DELTA} | taught_by(training, task, seed)
    if way == LONGER:
        return decides | {"longer": longer_of(training, task, seed).model_dump(mode="json")}
    return decides if way in (DENSE, ASSISTANT) else decides | removed_by(training, task, seed, way)


def taught_by(training: Training, task: str, seed: int) -> dict[str, Any]:
    """What the dense model and its assistant depend on."""
    stages = [stage_of(training, task, seed, number).model_dump(mode="json") for number in (1, 2, 3)]
    return {"model": training.model, "rows": rows_of(task), "stages": stages}


def removed_by(training: Training, task: str, seed: int, way: str) -> dict[str, Any]:
    """What a way depends on besides its assistant."""
    recovering = [stage_of(training, task, seed, number) for number in (5, 6)]
    stages = [slimming_of(training, task, seed, way), *recovering]
    return {
        "sizes": list(SIZES),
        "slender": [stage.model_dump(mode="json") for stage in stages],
    }


def stage_of(training: Training, task: str, seed: int, number: int, system: str = "cost-eff") -> Recipe:
    """A stage (from 1) of a system, with this task's epochs and longest text and this seed."""
    stages, epochs = system_of(system).stages_for(training.hidden_size), training.epochs
    stage = stages[number - 1]
    if number == 1 and training.dense is not None:
        epochs = training.dense
    if number > 3 and training.slender is not None:
        epochs = training.slender
    changes: dict[str, Any] = {
        "epochs": epochs[task] * stage.epochs / stages[0].epochs,
        "rows": None,
        "max_tokens": TASKS[task].max_tokens,
        "seed": seed,
    }
    return stage.model_copy(update=changes)


def longer_of(training: Training, task: str, seed: int) -> Recipe:
    """The dense model's stage, for as many epochs as a slender model has had in the end."""
    stage = stage_of(training, task, seed, 1)
    return stage.model_copy(update={"epochs": AS_LONG * stage.epochs})


def slimming_of(training: Training, task: str, seed: int, way: str) -> Rounds:
    """The stage in which parts leave."""
    stage = stage_of(training, task, seed, 4, "layer-chop" if way == "layers" else "cost-eff")
    assert isinstance(stage, Rounds)
    if way == "layers":
        return stage
    return stage.model_copy(update=WAYS[way] | {"scored_rows": SCORED_ROWS})


def slender_shape(model: Any, size: int, rank: float | None = None) -> Shape:
    """The largest even shape whose layers have at most 1/size of the weights they have now.

    The size is the layers', so the token table is not squeezed by it: its rank falls as heads do, as in the
    authors' shapes (COST-EFF page, 1.8).
    """
    facts, form, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    limit = encoder_of(facts, form, outputs) // size
    shape = largest_within(facts, form, outputs, limit, encoder_of, rank)
    heads, before = (sum(len(layer.heads) for layer in each.layers) for each in (shape, form))
    table = facts.embedding_size * heads // before
    return shape.model_copy(
        update={"embedding_rank": table if rank_saves(facts, table) else form.embedding_rank}
    )


class Models:
    """The models of one checkpoint, task and seed; each is made once, by one process."""

    def __init__(self, training: Training, task: str, seed: int) -> None:
        self.training, self.task, self.seed = training, task, seed
        model, taught = training.model, key_of(taught_by(training, task, seed))
        self.folder = CACHE / "width" / model.removeprefix("builtin:") / f"{task}-seed{seed}-{taught}"
        self.train = read(str(prepare(task)["train"]))
        names, kind = self.train.label_names or ["value"], self.train.kind
        self.base = with_exits(load(model), labels=names, problem_type=kind, seed=seed)

    def trained(self, place: Path, begin: Callable[[], Any], stage: Recipe | int, teacher: Any = None) -> Any:
        """The model a training stage left; of a number, COST-EFF's."""
        if isinstance(stage, int):
            stage = stage_of(self.training, self.task, self.seed, stage)

        def make(milestone: Milestone) -> None:
            model, work = begin(), place / "checkpoints"
            torch.manual_seed(self.seed)
            record = fine_tune(model, self.train, stage, work, teacher=teacher)
            milestone.leave(model.transformer.state_dict(), model.config.form(), record)
            shutil.rmtree(work, ignore_errors=True)

        return reached(place, make).model(self.base)

    def copy(self) -> Any:
        """The checkpoint with fresh exits."""
        return with_shape(self.base, self.base.config.form(), self.base.transformer.state_dict())

    def dense(self) -> Any:
        """Fine-tuned as usual: only its last exit has learned anything."""
        return self.trained(self.folder / "dense", self.copy, 1)

    def longer(self) -> Any:
        """The same, for longer."""
        return self.trained(self.folder / "longer", self.copy, longer_of(self.training, self.task, self.seed))

    def assistant(self) -> Any:
        """As wide as the dense model, which taught it, with all exits."""

        def like() -> Any:
            return self.trained(self.folder / "like-dense", self.copy, 2, self.dense())

        place = self.folder / "assistant"
        if Milestone(place).reached():
            return Milestone(place).model(self.base)
        return self.trained(place, like, 3, self.dense())

    def slender(self, way: str, size: int) -> Any:
        """The model of one way and size, from its rounds through its recovery."""
        assistant = self.assistant()
        key = key_of(removed_by(self.training, self.task, self.seed, way))
        place = self.folder / f"{way.replace(' ', '-')}-{key}"

        def make(milestone: Milestone) -> None:
            with alone(place / "rounds.lock"):
                model, records = self.removed(way, size, place)
            milestone.leave(model.transformer.state_dict(), model.config.form(), {"rounds": records})

        def narrow() -> Any:
            return reached(place / f"narrow-{size}", make).model(self.base)

        def like() -> Any:
            return self.trained(place / f"like-{size}", narrow, 5, assistant)

        return self.trained(place / f"done-{size}", like, 6, assistant)

    def removed(self, way: str, size: int, place: Path) -> tuple[Any, list[dict[str, Any]]]:
        """The assistant with parts removed, through the larger sizes, whose rounds are shared."""
        assistant, stage = self.assistant(), slimming_of(self.training, self.task, self.seed, way)
        if way == "layers":
            # Layers are all of one size, so the nearest number of them is as near as chopping comes.
            depth = len(assistant.config.form().layers)
            left = {each: max(1, round(depth / each)) for each in SIZES}
            shapes = {each: shallow_shape(assistant, Target(layers=left[each])) for each in SIZES}
        else:
            rank = WAYS[way].get("rank")
            shapes = {each: slender_shape(assistant, each, rank) for each in SIZES}
        through = [shapes[each] for each in SIZES if each <= size]
        rounds = place / f"rounds-{key_of([shape.model_dump(mode='json') for shape in shapes.values()])}"
        return remove(self.assistant(), assistant, self.train, stage, through, rounds, print)

    def assistant_facts(self) -> dict[str, Any]:
        """Which assistant taught: when it was made, and a hash of its weights."""
        place = self.folder / "assistant"
        return {
            "made": datetime.fromtimestamp((place / RECORD).stat().st_mtime, UTC).isoformat(),
            "weights": sha256((place / WEIGHTS).read_bytes()).hexdigest()[:16],
        }


def made(training: Training, about: About) -> dict[str, Any]:
    """One run."""
    task, way = about["task"], about["way"]
    if way == SIMPLE:
        files = prepare(task)
        return {"baselines": baselines(files), "f1": {"most frequent label": f1_of_most_frequent(files)}}
    models = Models(training, task, about["seed"])
    whole = {DENSE: models.dense, LONGER: models.longer, ASSISTANT: models.assistant}
    one = whole[way]() if way in whole else models.slender(way, about["size"])
    with tempfile.TemporaryDirectory() as place:
        one.save_pretrained(place)
        alone = way in (DENSE, LONGER)  # no exit but the last has learned anything
        facts = answers_of_last(Path(place), task) if alone else facts_of(Path(place), task)
    print(task, about["seed"], way, about["size"], f"{facts['exits'][-1]:.4f}", flush=True)
    return {"facts": facts} if alone else {"facts": facts, "assistant": models.assistant_facts()}


def runs_of(wanted: Wanted) -> list[About]:
    """The runs of a schedule, each after its dense model and assistant."""
    found: list[About] = []

    def add(task: str, seed: int | None, way: str, size: int | None) -> None:
        if (about := dict(zip(FIELDS, (task, seed, way, size), strict=True))) not in found:
            found.append(about)

    for task, seeds, way, sizes in wanted:
        add(task, None, SIMPLE, None)
        for seed in seeds:
            add(task, seed, DENSE, 1)
            add(task, seed, ASSISTANT, 1)
            for size in sizes:
                add(task, seed, way, size)
    return found


def asked(options: argparse.Namespace) -> Wanted:
    """The model's schedule, or that part of it, or what else was named."""
    schedule = SCHEDULE[options.model]
    if options.tasks is not None:
        schedule = tuple(each for each in schedule if each[0] in options.tasks.split(","))
    if options.ways is not None or options.sizes is not None or options.seeds is not None:
        tasks = dict.fromkeys(each[0] for each in schedule)
        ways = options.ways.split(",") if options.ways else list(dict.fromkeys(each[2] for each in schedule))
        seeds = tuple(map(int, options.seeds.split(","))) if options.seeds else (0,)
        sizes = tuple(map(int, options.sizes.split(","))) if options.sizes else schedule[0][3]
        schedule = tuple((task, seeds, way, sizes) for task in tasks for way in ways)
    return schedule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="builtin:minilm-l6", choices=sorted(TRAININGS))
    parser.add_argument("--tasks", help="of the schedule")
    parser.add_argument("--seeds", help="instead of the schedule's; 0 where ways or sizes are named alone")
    parser.add_argument("--ways", help="instead of the schedule's")
    parser.add_argument("--sizes", help="instead of the schedule's")
    parser.add_argument(
        "--epochs", type=float, help="of the first stage, to try it out, in a file of its own"
    )
    options = parser.parse_args()
    training = TRAININGS[options.model]
    if options.epochs is not None:
        training = replace(training, epochs=dict.fromkeys(training.epochs, options.epochs), slender=None)
    ledger(training).once(runs_of(asked(options)), lambda about: made(training, about))


if __name__ == "__main__":
    main()
