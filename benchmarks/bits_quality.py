"""Binary weights from scratch and from masked words: BEExformer beside its float twin, and what is simpler.

    LESSEN_DATA=/path/to/data python benchmarks/bits_quality.py [--tasks trec,movie-reviews] [--seeds 0,1,2]
        [--variants "W1A32; W1A1"] [--model beexformer-small]

Without a choice it does `SCHEDULE`: headline variants for three seeds, the others for one on small tasks.
Every variant has the same rows, steps and rates. The threshold of the fractional-entropy rule is chosen on
tuning rows: the one that saves most layers while no worse there than the same model without exits. Each run
(a task, a seed, a variant) is kept in the results file; what is there is not done again, and several
processes may share the work. Models stay in `.cache/bits/`.

What it costs, estimated from steps timed on one core of a busy machine, halved for two: a step of
beexformer-small with binary weights takes 0.17 s on 128 SST-2 phrases (13 tokens each) or 64 film reviews
(25), 0.12 s on 64 questions of TREC, 0.29 s on 64 pairs of MRPC and 0.7 s of BoolQ; AdamW on 11M weights is
a quarter of the short ones. So a run is 6 minutes on SST-2 phrases (2,050 steps), 2 on film reviews (660), 1
on TREC (500), 2.5 on MRPC (500) and 11 on BoolQ (910); half a pass of masked words is 10. The whole schedule
is 3.5 hours of two cores.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from baselines import baselines
from results import CACHE, add_run, kept
from tasks import TASKS, negated, prepare, shuffled

from lessen.config import LessenConfig
from lessen.data.reading import read
from lessen.depth.criteria import exit_of_every_row
from lessen.families.beexformer import PRESETS
from lessen.hf import LessenModel
from lessen.loading import load
from lessen.measure.evaluation import answers_of_every_exit
from lessen.model.macs import row_macs
from lessen.model.transformer import initialise
from lessen.plan import ExitRule, ExitShape, dense_shape
from lessen.reshaping import in_signs, with_exits
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.binarizing import Binarizing, binarized, turning
from lessen.systems.milestone import Milestone
from lessen.systems.planning import plan_for, working_folder
from lessen.systems.pretraining import pretrain
from lessen.train.fine_tuning import fine_tune

THRESHOLDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.1)
"""Of the page's sweep, and 1.1, at which every row leaves at the second exit."""

PASSES = 0.5
"""Over the reviews, in learning masked words; the system's own recipe has two."""

BATCHES = {"sst2-phrases": 128}
"""Rows of a step where they are not the system's 64: phrases are short, and the optimizer is what costs."""

FEWEST = 50
"""Rows with a negation, below which nothing is said of them."""


@dataclass(frozen=True)
class Variant:
    """Changes to the system's recipe and to the preset, and whether masked words were learned first."""

    recipe: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    words_first: bool = False


FLOAT = {"weight_bits": 32}
VARIANTS = {
    "float twin": Variant(FLOAT),
    "W1A32": Variant(),
    "W1A8": Variant({"activation_bits": 8}),
    "W1A1": Variant({"activation_bits": 1}),
    "W1A32, no exits": Variant({"objective": "last"}),
    "float twin, no exits": Variant(FLOAT | {"objective": "last"}),
    "2 layers in float": Variant(FLOAT | {"objective": "last"}, {"num_hidden_layers": 2}),
    "W1A32, ste_clip": Variant({"gradient": "ste_clip"}),
    "W1A32, no scale": Variant({"scale": "none"}),
    "W1A32, FFN": Variant({}, {"feed_forward": "ffn"}),
    "W1A32, shared layers": Variant({}, {"shared_layers": True}),
    "W1A32, deeper exits weigh more": Variant({"objective": "depth_weighted"}),
    "W1A32, gradual": Variant({"gradual": 0.5}),
    "W1A1, gradual": Variant({"activation_bits": 1, "gradual": 0.5}),
    "float twin, words first": Variant(FLOAT, words_first=True),
    "W1A32, words first": Variant(words_first=True),
    "W1A1, words first": Variant({"activation_bits": 1}, words_first=True),
}
HEADLINE = ("float twin", "W1A32", "W1A8", "W1A1", "W1A32, no exits", "float twin, no exits")
BEFORE = ("float twin, words first", "W1A32, words first")

SCHEDULE: tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...] = (
    ("movie-reviews", (0,), tuple(VARIANTS)),
    ("trec", (0,), (*HEADLINE, "2 layers in float", "W1A32, FFN", *BEFORE)),
    ("sst2-phrases", (0,), HEADLINE),
    ("movie-reviews", (1, 2), HEADLINE),
    ("trec", (1, 2), HEADLINE),
    ("mrpc", (0,), ("float twin", "W1A32", "W1A1", "float twin, no exits", *BEFORE)),
    ("sst2-phrases", (1, 2), ("float twin", "W1A32", "W1A1", "W1A32, no exits")),
    ("boolq", (0,), ("float twin", "W1A32")),
    ("sst2-phrases", (1, 2), ("W1A8",)),
)
"""Tasks, seeds and variants, what is wanted most first."""

NAME = "bits_quality"
STAGE = system_of("beexformer").stages[0]


def settings_of(model: str, changes: dict[str, Any]) -> dict[str, Any]:
    """What all runs have in common."""
    names = dict.fromkeys(task for task, _, _ in SCHEDULE)
    return {
        "model": model,
        "recipe": STAGE.model_dump(mode="json") | changes,
        "batches": BATCHES,
        "passes_of_masked_words": PASSES,
        "tasks": {name: asdict(TASKS[name]) for name in names},
    }


def start(preset: str, variant: Variant, seed: int) -> LessenModel:
    """The encoder a training starts with; the same for every variant of a seed that has the same layers."""
    torch.manual_seed(seed)
    if variant.words_first:
        return load(having_read(preset, variant.recipe.get("weight_bits", 1)))
    base = load(f"builtin:{preset}")
    if not variant.facts:
        return base
    facts = PRESETS[preset].model_copy(update=variant.facts)
    if facts.feed_forward == "ffn":  # as large as the gated one: two matrices, twice as wide
        facts = facts.model_copy(update={"intermediate_size": 2 * facts.intermediate_size})
    shape = dense_shape(facts.num_hidden_layers, facts.num_attention_heads, facts.intermediate_size)
    fresh = LessenModel(
        LessenConfig(architecture=facts.model_dump(mode="json"), shape=shape.model_dump(mode="json"))
    )
    initialise(fresh.transformer)
    fresh.tokenizer = base.tokenizer
    return fresh.eval()


def having_read(preset: str, bits: int) -> Path:
    """The preset after it has learned masked words of film reviews, which no task here is made of."""
    out = (CACHE / "bits" / preset / f"words-{bits}").resolve()
    if not out.exists():
        plan = plan_for(
            system_of("masked-words"),
            seed=0,
            recipe={"epochs": PASSES, "weight_bits": bits},
            model=f"builtin:{preset}",
            data="builtin:imdb-reviews",
        )
        print(preset, bits, "masked words:", pretrain(plan, working_folder(plan, out), out).after, flush=True)
    return out


def checkpoint(preset: str, variant: Variant, labels: list[str], seed: int) -> Any:
    """The classifier a training starts with, with exits after all layers."""
    base = start(preset, variant, seed)
    form = system_of("beexformer").exit
    assert form is not None
    depth = len(base.config.form().layers)
    exits: list[ExitShape] = [form.model_copy(update={"layer": layer}) for layer in range(1, depth + 1)]
    return with_exits(base, exits=exits, labels=labels, seed=seed)


def trained(preset: str, task: str, name: str, seed: int, changes: dict[str, Any]) -> Any:
    """The packed model, made if it is not there yet."""
    folder = CACHE / "bits" / preset / f"{task}-seed{seed}" / name.replace(", ", "-").replace(" ", "-")
    train = read(str(prepare(task)["train"]))
    begin = checkpoint(preset, VARIANTS[name], train.label_names or [], seed)
    milestone = Milestone(folder)
    if not milestone.reached():
        own: dict[str, Any] = {
            "max_tokens": TASKS[task].max_tokens,
            "batch_size": BATCHES.get(task, STAGE.batch_size),
            "seed": seed,
        }
        own |= VARIANTS[name].recipe | changes
        recipe = Binarizing.model_validate(STAGE.model_dump() | own)
        torch.manual_seed(seed)
        model = binarized(begin, recipe)
        record = fine_tune(model, train, recipe, folder / "checkpoints", told=turning(model, recipe))
        packed = in_signs(model)
        milestone.leave(packed.transformer.state_dict(), packed.config.form(), record)
    return milestone.model(begin)


@dataclass(frozen=True)
class Answers:
    """What a model says of the rows of a part.

    Attributes:
        found: Of every exit, `[exits, rows, labels]`.
        labels: `[rows]`.
        lengths: In tokens.
    """

    found: torch.Tensor
    labels: torch.Tensor
    lengths: list[int]

    @property
    def right(self) -> torch.Tensor:
        """Which answers are, `[exits, rows]`."""
        return self.found.argmax(-1) == self.labels


def answers(model: Any, texts: list[Any], labels: list[Any], task: str) -> Answers:
    encoded = encode(model.tokenizer, texts, TASKS[task].max_tokens)
    found = torch.as_tensor(answers_of_every_exit(model.eval(), encoded))
    return Answers(found, torch.tensor(labels), [len(row.ids) for row in encoded])


def exiting(model: Any, said: Answers, threshold: float) -> tuple[float, float]:
    """Accuracy and share of MACs left by the fractional-entropy rule, all exits met on the way counted."""
    rule = ExitRule(criterion="entropy_plateau", threshold=threshold)
    chosen = exit_of_every_row(rule, model.config.form().exit_layers, list(said.found))
    right = said.right[chosen, torch.arange(len(said.labels))]
    return float(right.float().mean()), macs_left(model, said.lengths, [int(e) + 1 for e in chosen])


def macs_left(model: Any, lengths: list[int], layers: list[int]) -> float:
    """Share of the MACs left when rows go through so many layers, all exits on the way asked."""
    facts, shape, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    spent = sum(
        row_macs(facts, shape, outputs, n, layers=last, heads=range(1, last + 1))
        for n, last in zip(lengths, layers, strict=True)
    )
    return spent / sum(row_macs(facts, shape, outputs, n) for n in lengths)


def facts_of(model: Any, task: str) -> dict[str, Any]:
    """Accuracy of every exit, of the rule at every threshold, the overthinking count, and two controls."""
    tables = {
        part: read(str(prepare(task)[part])).with_labels_of(model.label_names) for part in ("tune", "test")
    }
    tune, test = (answers(model, table.texts, table.labels or [], task) for table in tables.values())
    texts, labels = tables["test"].texts, tables["test"].labels or []
    mixed = answers(model, shuffled(texts), labels, task)
    sweep = {
        f"{threshold:g}": {
            "tune": exiting(model, tune, threshold)[0],
            **dict(zip(("test", "macs"), exiting(model, test, threshold), strict=True)),
        }
        for threshold in THRESHOLDS
    }
    turned = negated(texts)
    return {
        "exits": test.right.float().mean(1).tolist(),
        "macs": [
            macs_left(model, test.lengths, [layer] * len(test.lengths))
            for layer in model.config.form().exit_layers
        ],
        "tune": float(tune.right[-1].float().mean()),
        "shuffled": float(mixed.right[-1].float().mean()),
        "negated": float(test.right[-1][turned].float().mean()) if len(turned) >= FEWEST else None,
        "negated_shuffled": float(mixed.right[-1][turned].float().mean()) if len(turned) >= FEWEST else None,
        "overthinking": int((test.right[:-1].any(0) & ~test.right[-1]).sum()),
        "rows": test.right.shape[1],
        "sweep": sweep,
    }


def chosen(facts: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """The sweep's step that saves most among those as good on tuning rows as a model without exits."""
    good = [line for line in facts["sweep"].values() if line["tune"] >= baseline["tune"]]
    line = min(good, key=lambda line: line["macs"], default={"test": facts["exits"][-1], "macs": 1.0})
    return {
        "accuracy": line["test"],
        "macs_saved": 1 - line["macs"],
        "gain": line["test"] - baseline["exits"][-1],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task: means and deviations over seeds of each variant, and what is simpler."""
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = {(run["variant"], run["seed"]): run["facts"] for run in runs if run["task"] == task}
        lines[task] = {"variants": {}, "baselines": of_task.get((None, None), {})}
        for name in (name for name in VARIANTS if any(variant == name for variant, _ in of_task)):
            found = {seed: facts for (variant, seed), facts in of_task.items() if variant == name}
            lines[task]["variants"][name] = means(found) | {"exiting": steps(name, found, of_task)}
    return lines


def means(found: dict[int, dict[str, Any]]) -> dict[str, Any]:
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


def steps(
    name: str, found: dict[int, dict[str, Any]], of_task: dict[tuple[Any, Any], dict[str, Any]]
) -> dict[str, float] | None:
    """What the rule gains over the same model without exits, mean over the seeds that have both."""
    if "objective" in VARIANTS[name].recipe and VARIANTS[name].recipe["objective"] == "last":
        return None
    without = "float twin, no exits" if name.startswith("float") else "W1A32, no exits"
    made = [
        chosen(facts, of_task[without, seed]) for seed, facts in found.items() if (without, seed) in of_task
    ]
    return {key: mean(step[key] for step in made) for key in made[0]} if made else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", help="of the schedule; or with the two others, these")
    parser.add_argument("--seeds")
    parser.add_argument("--variants")
    parser.add_argument("--model", default="beexformer-small")
    parser.add_argument("--recipe", default="{}", help="JSON: changes to the recipe of every variant")
    options = parser.parse_args()
    changes = json.loads(options.recipe)
    settings = settings_of(options.model, changes)
    for task, seeds, names in SCHEDULE if options.variants is None else asked(options):
        if options.tasks is not None and task not in options.tasks.split(","):
            continue
        done = {(run["task"], run["variant"], run["seed"]) for run in kept(NAME, settings)}
        if (task, None, None) not in done:
            run = {"task": task, "variant": None, "seed": None, "facts": baselines(prepare(task))}
            add_run(NAME, settings, run, summary)
        for seed in seeds if options.seeds is None else map(int, options.seeds.split(",")):
            for name in names:
                if any(
                    (run["task"], run["variant"], run["seed"]) == (task, name, seed)
                    for run in kept(NAME, settings)
                ):
                    continue
                facts = facts_of(trained(options.model, task, name, seed, changes), task)
                print(task, seed, name, [round(each, 4) for each in facts["exits"]], flush=True)
                run = {"task": task, "variant": name, "seed": seed, "facts": facts}
                add_run(NAME, settings, run, summary)


def asked(options: argparse.Namespace) -> list[tuple[str, tuple[int, ...], tuple[str, ...]]]:
    """A schedule of the variants, tasks and seeds that were named."""
    names = tuple(name.strip() for name in options.variants.split(";"))
    tasks = options.tasks.split(",") if options.tasks else list(dict.fromkeys(t for t, _, _ in SCHEDULE))
    seeds = tuple(map(int, options.seeds.split(","))) if options.seeds else (0,)
    return [(task, seeds, names) for task in tasks]


if __name__ == "__main__":
    main()
