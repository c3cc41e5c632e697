"""Binary weights for a pre-trained model: MiniLM taught by its float self, beside learning alone.

    LESSEN_DATA=/path/to/data python benchmarks/bits_warm.py [--tasks sst2,mrpc] [--seeds 0,1,2]
        [--variants "W1A32; W1A8"] [--epochs 0.02]

Every variant starts from the same fine-tuned model with exits (that of `token_quality.py`) and has the second
stage of `--system binarize`. Without a choice it first tries `CANDIDATES` with seed 0, takes for 32 and for 8
bits of activations the one whose last exit is best on tuning rows (which is written into the results), and
gives that one the other seeds; then come the other variants. Each run (a task, a seed, a variant) is kept
under a key of all that decides it; what is there is not done again, and several processes may share the work.
Models stay in `.cache/bits/`.

"phrases" learns from SST-2's phrases in one pass: some 2,000 steps of half the tokens. They are more texts
than the dense model learned from, without labels: its teacher alone says what it makes of them. Those that
stand inside a tuning or test sentence are left out.

What it costs: a run on SST-2 (5,909 sentences of 25 tokens, six passes: 1,110 steps of 32, teacher included)
is about 9 minutes of two cores, the start it shares with the other variants of its seed 4; on MRPC as much.
The schedule is three hours.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from bits_warm_summary import CANDIDATES, DENSE, chosen, summary
from keyed import About, Ledger, key_of, named, reached
from paired import packed
from results import CACHE
from tasks import TASKS, prepare, rows_of, shuffled
from token_quality import MODEL, START, at_task, fine_tuned

from lessen.data.reading import read
from lessen.data.splits import without_contained
from lessen.data.table import Table
from lessen.loading import load
from lessen.measure.evaluation import answers_of_every_exit
from lessen.measure.metrics import quality
from lessen.reshaping import in_signs
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.binarizing import Binarizing, binarized, turning
from lessen.systems.milestone import Milestone
from lessen.train.fine_tuning import fine_tune

PHRASES = {"epochs": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "W1A32": {},
    "W1A8": {"activation_bits": 8},
    "W1A1": {"activation_bits": 1},
    "W1A32, gradual": {"gradual": 0.5},
    "W1A8, gradual": {"activation_bits": 8, "gradual": 0.5},
    "W1A1, gradual": {"activation_bits": 1, "gradual": 0.5},
    "W1A32, phrases": PHRASES,
    "W1A8, phrases": {"activation_bits": 8} | PHRASES,
    "W1A32, float embedding": {"embedding": False},
    "W1A32, alone": {"objective": "depth_weighted", "teacher": None},
    "W1A32, ste_clip": {"gradient": "ste_clip"},
}
"""Changes to the recipe; "phrases" has other rows too."""

OTHERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mrpc", (DENSE, "W1A32")),
    ("sst2", ("W1A1", "W1A32, alone")),
)
"""Tasks and variants of seed 0 that come last."""

HEADLINE = "sst2"
SEEDS = (1, 2)
"""Besides 0, of what was chosen."""

NAME = "bits_warm"
FIELDS = ("task", "variant", "seed")
TASKS_SHOWN = ("sst2", "mrpc")
STAGE = system_of("binarize").stages[1]


def rows_for(task: str, variant: str) -> str:
    """The task whose rows a variant learns from; its tuning and test rows are the same."""
    return f"{task}-phrases" if ", phrases" in variant else task


def learned_from(task: str, variant: str) -> Table:
    """The rows a variant learns from."""
    rows = read(str(prepare(rows_for(task, variant))["train"]))
    if rows_for(task, variant) == task:
        return rows
    return without_contained(rows, [read(str(prepare(task)[part])) for part in ("tune", "test")])[0]


def recipe_of(task: str, variant: str, seed: int, epochs: float | None) -> Binarizing:
    """How a variant is trained."""
    own = {"max_tokens": TASKS[task].max_tokens, "seed": seed} | VARIANTS[variant]
    own |= {} if epochs is None else {"epochs": epochs}
    return Binarizing.model_validate(STAGE.model_dump() | own)


def decided_by(about: About, epochs: float | None) -> dict[str, Any] | None:
    """Everything a run depends on besides what it is called by; None of a variant there is no more."""
    task, variant, seed = about["task"], about["variant"], about["seed"]
    if task not in TASKS_SHOWN or variant not in (*VARIANTS, DENSE):
        return None
    start = at_task(START, task, seed).model_dump(mode="json")
    found = {"model": MODEL, "start": start, "rows": rows_of(task)}
    if variant == DENSE:
        return found
    recipe = recipe_of(task, variant, seed, epochs).model_dump(mode="json")
    learns_from = rows_of(rows_for(task, variant))
    if rows_for(task, variant) != task:
        learns_from = learns_from | {"without_contained": ["tune", "test"]}
    return found | {"recipe": recipe, "learns_from": learns_from}


def ledger(epochs: float | None) -> Ledger:
    """The results file; one of its own where epochs were named."""
    changes = {} if epochs is None else {"epochs": epochs}

    def decides(about: About) -> dict[str, Any] | None:
        return decided_by(about, epochs)

    settings = {"model": MODEL, "recipe": STAGE.model_dump(mode="json") | changes}
    return Ledger(named(NAME, changes), FIELDS, settings, decides, summary)


def trained(about: About, epochs: float | None) -> Any:
    """The packed model, made if it is not there yet; or the dense one it started from."""
    task, variant, seed = about["task"], about["variant"], about["seed"]
    dense = load(fine_tuned(task, seed), promises=False)
    if variant == DENSE:
        return dense
    plain = variant.replace(", ", "-").replace(" ", "-")
    folder = CACHE / "bits" / "minilm-l6" / f"{task}-seed{seed}"

    def make(milestone: Milestone) -> None:
        recipe = recipe_of(task, variant, seed, epochs)
        train = learned_from(task, variant).with_labels_of(dense.label_names)
        torch.manual_seed(seed)
        model = binarized(dense, recipe)
        teacher = None if recipe.teacher is None else dense
        work, told = milestone.folder / "checkpoints", turning(model, recipe)
        record = fine_tune(model, train, recipe, work, teacher=teacher, told=told)
        packed = in_signs(model)
        milestone.leave(packed.transformer.state_dict(), packed.config.form(), record)

    return reached(folder / f"{plain}-{key_of(decided_by(about, epochs))}", make).model(dense)


def facts_of(model: Any, task: str) -> dict[str, Any]:
    """Quality and answers of every exit on tuning and test rows, and of the last one with words shuffled."""
    found: dict[str, Any] = {}
    for part in ("tune", "test"):
        table = read(str(prepare(task)[part])).with_labels_of(model.label_names)
        labels = table.labels or []
        logits = of_exits(model, task, table.texts)
        found[part] = {
            "rows": len(labels),
            "exits": [quality(each, labels, model.problem_type) for each in logits],
            "answers": [packed(each, labels, model.problem_type) for each in logits],
        }
    mixed = of_exits(model, task, shuffled(table.texts))[-1]
    return found | {"shuffled": quality(mixed, labels, model.problem_type)}


def of_exits(model: Any, task: str, texts: list[Any]) -> Any:
    """Answers of every exit."""
    encoded = encode(model.tokenizer, texts, TASKS[task].max_tokens)
    return answers_of_every_exit(model.eval(), encoded)


def made(about: About, epochs: float | None) -> dict[str, Any]:
    """One run."""
    facts = facts_of(trained(about, epochs), about["task"])
    print(about, [round(each, 4) for each in facts["tune"]["exits"]], flush=True)
    return {"facts": facts}


def runs_of(task: str, seeds: tuple[int, ...], names: tuple[str, ...]) -> list[About]:
    """Each seed's dense model, then its variants."""
    return [
        dict(zip(FIELDS, (task, name, seed), strict=True))
        for seed in seeds
        for name in dict.fromkeys((DENSE, *names))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", help="of the schedule; with --variants, these")
    parser.add_argument("--seeds", help="instead of the schedule's; 0 with variants alone")
    parser.add_argument("--variants", help="instead of the schedule's, parted by ;")
    parser.add_argument("--epochs", type=float, help="to try it out; has its own results file")
    options = parser.parse_args()
    book, epochs = ledger(options.epochs), options.epochs
    tasks = options.tasks.split(",") if options.tasks else list(TASKS_SHOWN)
    seeds = tuple(map(int, options.seeds.split(","))) if options.seeds else None

    def once(task: str, some: tuple[int, ...], names: tuple[str, ...]) -> None:
        book.once(runs_of(task, some, names), lambda about: made(about, epochs))

    if options.variants is not None:
        names = tuple(name.strip() for name in options.variants.split(";"))
        for task in tasks if options.tasks else (HEADLINE,):
            once(task, seeds or (0,), names)
        return
    if HEADLINE in tasks:
        once(HEADLINE, (0,), tuple(name for each in CANDIDATES.values() for name in each))
        best = chosen(book.current(book.everything()), HEADLINE)
        print("chosen on tuning rows:", best, flush=True)
        once(HEADLINE, SEEDS if seeds is None else seeds, tuple(each["variant"] for each in best.values()))
    for task, names in OTHERS:
        if task in tasks:
            once(task, (0,), names)


if __name__ == "__main__":
    main()
