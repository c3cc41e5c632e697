"""Binary weights from scratch and from masked words: BEExformer beside its float twin, and what is simpler.

    LESSEN_DATA=/path/to/data python benchmarks/bits_quality.py [--tasks trec,movie-reviews] [--seeds 0,1,2]
        [--variants "W1A32; W1A1"] [--model beexformer-small] [--recipe '{"epochs": 0.1}']

Without a choice it does `SCHEDULE`: what has targets and what is chosen between for three seeds, on TREC and
SST-2's phrases; other variants and tasks for one.
Every variant has the same rows, steps and rates. The threshold of the fractional-entropy rule is chosen on
tuning rows: the smallest one that saves there what was asked. Each run (a task, a
seed, a variant) is kept under a key of all that decides it; what is there is not done again, and several
processes may share the work. Another model or recipe has a results file of its own. Models stay in
`.cache/bits/`.

TREC's test part is that of the package, 1,076 questions, not the official 500; its 3,287 training questions
are what is left without those, tuning and calibration rows and repeats.

What it costs, estimated from steps timed on one core of a busy machine, halved for two: a step of
beexformer-small with binary weights takes 0.17 s on 128 SST-2 phrases (13 tokens each) or 64 film reviews
(25), 0.12 s on 64 questions of TREC, 0.29 s on 64 pairs of MRPC and 0.7 s of BoolQ; AdamW on 11M weights is
a quarter of the short ones. So a run is 4.5 minutes on SST-2 phrases (1,540 steps), 2.2 on film reviews
(790), 2 on TREC (1,030), 5 on MRPC (1,050) and 8 on BoolQ (700); half a pass of masked words is 10, twice.
The whole schedule is four hours of two cores.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from baselines import baselines
from bits_summary import summary
from keyed import About, Ledger, key_of, named, reached
from paired import packed_right
from results import CACHE, alone
from tasks import TASKS, negated, prepare, rows_of, shuffled

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
from lessen.systems.planning import plan_for
from lessen.systems.pretraining import pretrain
from lessen.systems.working import working_folder
from lessen.train.fine_tuning import fine_tune

THRESHOLDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.1)
"""Of the page's sweep (1.8), three beyond it, at the last of which every row leaves at the second exit."""

EPOCHS = {"sst2-phrases": 3.0, "trec": 20.0, "movie-reviews": 10.0, "mrpc": 20.0, "boolq": 5.0}
"""What is run, whatever the rows: MRPC's are the page's; on SST-2 phrases one fewer than the product's."""

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
    "W1A32, LSTM": Variant({}, {"feed_forward": "slfn_lstm"}),
    "W1A32, shared layers": Variant({}, {"shared_layers": True}),
    "W1A32, deeper exits weigh more": Variant({"objective": "depth_weighted"}),
    "W1A32, gradual": Variant({"gradual": 0.5}),
    "W1A1, gradual": Variant({"activation_bits": 1, "gradual": 0.5}),
    "float twin, words first": Variant(FLOAT, words_first=True),
    "W1A32, words first": Variant(words_first=True),
}
HEADLINE = ("float twin", "W1A32", "W1A8", "W1A1", "W1A32, no exits", "float twin, no exits")
CHOICES = ("W1A32, ste_clip", "W1A32, FFN", "2 layers in float", "W1A32, gradual", "W1A1, gradual")
BEFORE = ("float twin, words first", "W1A32, words first")

Wanted = tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...]
SCHEDULE: Wanted = (
    ("trec", (0, 1, 2), (*HEADLINE, *CHOICES)),
    ("sst2-phrases", (0, 1, 2), ("float twin", "W1A32", "W1A8", "W1A1", "W1A32, no exits")),
    ("trec", (0,), (*BEFORE, "W1A32, deeper exits weigh more", "W1A32, no scale", "W1A32, shared layers")),
    ("movie-reviews", (0,), (*HEADLINE, *BEFORE)),
    ("mrpc", (0,), ("float twin", "W1A32", *BEFORE)),
    ("boolq", (0,), ("float twin", "W1A32")),
    ("trec", (0, 1, 2), ("W1A32, LSTM",)),
    ("sst2-phrases", (0, 1, 2), ("W1A32, ste_clip", "W1A32, FFN", "2 layers in float")),
)
"""Tasks, seeds and variants, what is wanted most first."""

NAME = "bits_quality"
FIELDS = ("task", "variant", "seed")
SIMPLE = "baselines"
"""In place of a variant: what is simpler than all."""

USUAL = "beexformer-small"
STAGE = system_of("beexformer").stages[0]


@dataclass(frozen=True)
class Setting:
    """The preset, and changes to the recipe of every variant."""

    preset: str = USUAL
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def different(self) -> dict[str, Any]:
        """What is not as usual."""
        return self.changes if self.preset == USUAL else self.changes | {"model": self.preset}


def ledger(setting: Setting) -> Ledger:
    """The results file of a setting."""
    settings = {
        "model": setting.preset,
        "changes": setting.changes,
        "epochs": EPOCHS,
        "batches": BATCHES,
        "passes_of_masked_words": PASSES,
    }

    def decides(about: About) -> dict[str, Any] | None:
        return decided_by(setting, about)

    return Ledger(named(NAME, setting.different), FIELDS, settings, decides, summary)


def decided_by(setting: Setting, about: About) -> dict[str, Any] | None:
    """Everything a run depends on besides what it is called by; None of a variant there is no more."""
    task, name = about["task"], about["variant"]
    if task not in EPOCHS or name not in (*VARIANTS, SIMPLE):
        return None
    if name == SIMPLE:
        return {"rows": rows_of(task)}
    variant = VARIANTS[name]
    form = system_of("beexformer").exit
    words = words_plan(setting.preset, variant).model_dump(mode="json") if variant.words_first else None
    return {
        "preset": setting.preset,
        "facts": PRESETS[setting.preset].model_dump(mode="json") | variant.facts,
        "exit": None if form is None else form.model_dump(mode="json"),
        "words": words,
        "recipe": recipe_of(setting, task, name, about["seed"]).model_dump(mode="json"),
        "rows": rows_of(task),
        "thresholds": list(THRESHOLDS),
    }


def recipe_of(setting: Setting, task: str, name: str, seed: int) -> Binarizing:
    """How a variant is trained."""
    own = {
        "epochs": EPOCHS[task],
        "rows": None,
        "max_tokens": TASKS[task].max_tokens,
        "batch_size": BATCHES.get(task, STAGE.batch_size),
        "seed": seed,
    }
    return Binarizing.model_validate(STAGE.model_dump() | own | VARIANTS[name].recipe | setting.changes)


def start(preset: str, variant: Variant, seed: int) -> LessenModel:
    """The encoder a training starts with; the same for every variant of a seed that has the same layers."""
    torch.manual_seed(seed)
    if variant.words_first:
        return load(having_read(preset, variant))
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


def words_plan(preset: str, variant: Variant) -> Any:
    """How masked words are learned."""
    return plan_for(
        system_of("masked-words"),
        seed=0,
        recipe={"epochs": PASSES, "weight_bits": variant.recipe.get("weight_bits", 1)},
        model=f"builtin:{preset}",
        data="builtin:imdb-reviews",
    )


def having_read(preset: str, variant: Variant) -> Path:
    """The preset after it has learned masked words of film reviews, which no task here is made of."""
    plan = words_plan(preset, variant)
    out = (CACHE / "bits" / preset / f"words-{key_of(plan.model_dump(mode='json'))}").resolve()
    with alone(out.with_name(f"{out.name}.lock")):
        if not out.exists():
            print(preset, "masked words:", pretrain(plan, working_folder(plan, out), out).after, flush=True)
    return out


def checkpoint(preset: str, variant: Variant, labels: list[str], seed: int) -> Any:
    """The classifier a training starts with, with exits after all layers."""
    base = start(preset, variant, seed)
    form = system_of("beexformer").exit
    assert form is not None
    depth = len(base.config.form().layers)
    exits: list[ExitShape] = [form.model_copy(update={"layer": layer}) for layer in range(1, depth + 1)]
    return with_exits(base, exits=exits, labels=labels, seed=seed)


def trained(setting: Setting, about: About) -> Any:
    """The packed model, made if it is not there yet."""
    task, name, seed = about["task"], about["variant"], about["seed"]
    plain = name.replace(", ", "-").replace(" ", "-")
    key = key_of(decided_by(setting, about))
    train = read(str(prepare(task)["train"]))
    begin = checkpoint(setting.preset, VARIANTS[name], train.label_names or [], seed)

    def make(milestone: Milestone) -> None:
        recipe = recipe_of(setting, task, name, seed)
        torch.manual_seed(seed)
        model, work = binarized(begin, recipe), milestone.folder / "checkpoints"
        record = fine_tune(model, train, recipe, work, told=turning(model, recipe))
        packed = in_signs(model)
        milestone.leave(packed.transformer.state_dict(), packed.config.form(), record)

    folder = CACHE / "bits" / setting.preset / f"{task}-seed{seed}" / f"{plain}-{key}"
    return reached(folder, make).model(begin)


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


def exiting(model: Any, said: Answers, threshold: float) -> dict[str, Any]:
    """The fractional-entropy rule: accuracy, every answer, and share of MACs left, all exits met counted."""
    rule = ExitRule(criterion="entropy_plateau", threshold=threshold)
    chosen = exit_of_every_row(rule, model.config.form().exit_layers, list(said.found))
    right = said.right[chosen, torch.arange(len(said.labels))]
    return {
        "accuracy": float(right.float().mean()),
        "macs": macs_left(model, said.lengths, [int(e) + 1 for e in chosen]),
        "answers": packed_right(right.numpy()),
    }


def macs_left(model: Any, lengths: list[int], layers: list[int]) -> float:
    """Share of the MACs left when rows go through so many layers, all exits on the way asked."""
    facts, shape, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    spent = sum(
        row_macs(facts, shape, outputs, n, layers=last, heads=range(1, last + 1))
        for n, last in zip(lengths, layers, strict=True)
    )
    return spent / sum(row_macs(facts, shape, outputs, n) for n in lengths)


def facts_of(model: Any, task: str) -> dict[str, Any]:
    """On tuning and test rows every exit, and the rule at every threshold; and controls."""
    tables = {
        part: read(str(prepare(task)[part])).with_labels_of(model.label_names) for part in ("tune", "test")
    }
    tune, test = (answers(model, table.texts, table.labels or [], task) for table in tables.values())
    texts, labels = tables["test"].texts, tables["test"].labels or []
    mixed = answers(model, shuffled(texts), labels, task)
    sweeps = {
        part: {f"{each:g}": exiting(model, said, each) for each in THRESHOLDS}
        for part, said in (("tune", tune), ("test", test))
    }
    for step in sweeps["tune"].values():  # it chooses, and nothing else: the file stays below a megabyte
        del step["answers"]
    turned = negated(texts)
    enough = len(turned) >= FEWEST
    return {
        "exits": test.right.float().mean(1).tolist(),
        "macs": [
            macs_left(model, test.lengths, [layer] * len(test.lengths))
            for layer in model.config.form().exit_layers
        ],
        "tune_exits": tune.right.float().mean(1).tolist(),
        "shuffled": float(mixed.right[-1].float().mean()),
        "negated": float(test.right[-1][turned].float().mean()) if enough else None,
        "negated_shuffled": float(mixed.right[-1][turned].float().mean()) if enough else None,
        "overthinking": int((test.right[:-1].any(0) & ~test.right[-1]).sum()),
        **{
            part: {
                "rows": said.right.shape[1],
                "answers": [packed_right(each.numpy()) for each in said.right],
                "sweep": sweeps[part],
            }
            for part, said in (("tune", tune), ("test", test))
        },
    }


def made(setting: Setting, about: About) -> dict[str, Any]:
    """One run."""
    if about["variant"] == SIMPLE:
        return {"baselines": baselines(prepare(about["task"]))}
    facts = facts_of(trained(setting, about), about["task"])
    print(about, [round(each, 4) for each in facts["tune_exits"]], flush=True)
    return {"facts": facts}


def runs_of(wanted: Wanted) -> list[About]:
    """The runs of a schedule, those of each task after what is simpler."""
    found: list[About] = []
    each: list[About]
    for task, seeds, names in wanted:
        each = [{"task": task, "variant": name, "seed": seed} for seed in seeds for name in names]
        found += [
            about for about in ({"task": task, "variant": SIMPLE, "seed": None}, *each) if about not in found
        ]
    return found


def asked(options: argparse.Namespace) -> Wanted:
    """The schedule, or the part of it, or the variants, tasks and seeds that were named."""
    schedule = SCHEDULE
    if options.tasks is not None:
        schedule = tuple(each for each in schedule if each[0] in options.tasks.split(","))
    if options.variants is not None:
        names = tuple(name.strip() for name in options.variants.split(";"))
        seeds = tuple(map(int, options.seeds.split(","))) if options.seeds else (0,)
        return tuple((task, seeds, names) for task in dict.fromkeys(each[0] for each in schedule))
    if options.seeds is not None:
        wanted = set(map(int, options.seeds.split(",")))
        schedule = tuple((task, tuple(wanted & set(seeds)), names) for task, seeds, names in schedule)
    return schedule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", help="of the schedule")
    parser.add_argument("--seeds", help="of the schedule; with --variants, these")
    parser.add_argument("--variants", help="instead of the schedule's, parted by ;")
    parser.add_argument("--model", default=USUAL, choices=sorted(PRESETS))
    parser.add_argument("--recipe", default="{}", help="JSON: changes to the recipe of every variant")
    options = parser.parse_args()
    setting = Setting(options.model, json.loads(options.recipe))
    ledger(setting).once(runs_of(asked(options)), lambda about: made(setting, about))


if __name__ == "__main__":
    main()
