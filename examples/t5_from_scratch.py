"""Train a small T5 from nothing on tasks as text to text, and let tokens leave its encoder.

Film reviews (IMDB, as much of each as `LONGEST` lets in): are they negative or positive, and what is their
first sentence; and questions (TREC): what do they ask for; each asked in several ways. No pre-trained weights
are used, so figures are those of a small model that has read some thousand texts. It learns first with all
tokens; then with as many leaving as a speed-up drawn anew for each step takes. It is then asked at several
speed-ups, with tokens chosen by attention, at random, and by place alone.

    python examples/t5_from_scratch.py --out t5-small-reviews
    python examples/t5_from_scratch.py --out try --rows 64 --epochs 1    # a short one; learns nothing
    lessen generate t5-small-reviews "sentiment: a gripping film"
    lessen generate t5-small-reviews "sentiment: a gripping film" --speedup 2

Stopped, it goes on where it was when the same command is run again; unfinished work is in `OUT.work`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

import lessen
from lessen.builtin import model_folder
from lessen.data.packaged import load as builtin
from lessen.data.prompts import TEMPLATES, prompted
from lessen.data.table import Table
from lessen.errors import Interrupted
from lessen.measure.answering import evaluate_answers
from lessen.runtime.answers import answer_ids
from lessen.runtime.asking import encode_prompts, fitted
from lessen.runtime.retention import alpha_for
from lessen.tokens.passes import drawn
from lessen.train.fine_tuning import Recipe
from lessen.train.lessons import Lesson, learn_to_answer

TASKS = {"sentiment": "imdb-reviews", "question": "trec", "first-sentence": "imdb-reviews"}
SIZES = {"d_model": 192, "d_kv": 32, "d_ff": 384, "num_layers": 4, "num_decoder_layers": 2, "num_heads": 6}
ROWS = {"sentiment": 16_000, "question": 5_000, "first-sentence": 1_000}
"""To learn from, of each task, as far as there are so many. Of sentences each token counts like an answer."""

TESTED = {"sentiment": 5000, "question": 1000, "first-sentence": 100}
"""Rows to be asked in every way; sentences are written token by token, which takes long."""

BOLDEST = 4.0
SPEEDUPS = (1.0, 1.5, 2.0, 3.0, 3.5, 4.0)
SCORES = ("mean", "random", "first_k")
LONGEST, WRITTEN = 256, 24
"""Tokens of a prompt, and of what is to be written, at most."""

WORDS = 8192
"""Tokens of the vocabulary."""

EPOCHS = 1.0
"""With tokens leaving; twice as many before, with all of them."""

RATE = 5e-4
"""Peak of the learning rate; half of it with tokens leaving."""

SPREAD = 0.05
"""Standard deviation of the words' first vectors. T5's own is 1: its optimizer, Adafactor, takes larger steps
where weights are larger. Adam's are as large as the learning rate and leave such vectors nearly where they
were."""

OFTEN = {"question": 3}
"""How often a task is learned in an epoch, in each of its ways, where it is not once in one of them."""


def main() -> None:
    """Train, save, evaluate, and save the figures."""
    options = _options()
    out, work = options.out, options.out.with_name(f"{options.out.name}.work")
    try:
        begin(out, work, {key: value for key, value in vars(options).items() if key != "out"})
        if not (out / "config.json").exists():
            trained(options.seed, work, options.rows, options.epochs, options.learning_rate).save_pretrained(
                out
            )
        _evaluate(lessen.load(out), out, options.rows)
    except (lessen.LessenError, Interrupted) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command to continue")
    shutil.rmtree(work)


def begin(out: Path, work: Path, options: dict[str, Any]) -> None:
    """Look whether `out` can be written, and whether what was begun there was begun with these options."""
    place = work / "options.json"
    if out.exists() and not place.exists():
        raise lessen.LessenError(f"{out} is there already; name another folder")
    if place.exists() and json.loads(place.read_text()) != options:
        raise lessen.LessenError(
            f"{work} holds unfinished work with other options; delete it, or name another --out"
        )
    work.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(options))


def _evaluate(model: Any, out: Path, rows: int | None) -> None:
    """Print the figures as they come, and save them."""
    figures = []
    for task in TASKS:
        table = part(task, "test", min(rows or TESTED[task], TESTED[task]))
        for way in TEMPLATES[task]:
            for score in SCORES:
                for speedup in SPEEDUPS if score == "mean" else SPEEDUPS[1:]:
                    point = at(model, score, speedup)
                    found = evaluate_answers(model, table, way, point, max_tokens=LONGEST)
                    figures.append({"task": task, "score": score, "speedup": speedup} | found.as_dict())
                    print(f"{speedup:.1f}x {score:8} {found.value:.4f}  {way.prompt}", flush=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


def trained(
    seed: int,
    work: Path,
    rows: int | None = None,
    epochs: float = EPOCHS,
    learning_rate: float = RATE,
    *,
    leaving: bool = True,
) -> lessen.LessenForSeq2SeqLM:
    """A T5 that has learned all tasks, with a retention profile.

    Args:
        seed: Of the first weights and the order of rows.
        work: Where checkpoints go; a run that was stopped goes on from there, and so does one that differs in
            `leaving` only, after what both have in common.
        rows: Of each task; `ROWS` if None.
        epochs: With tokens leaving; twice as many before, with all of them.
        learning_rate: Peak; half of it with tokens leaving.
        leaving: Whether tokens leave in the end; the control reads all of them to the last step.
    """
    torch.manual_seed(seed)
    model = fresh()
    lessons = lessons_of(model, {task: part(task, "train", rows or ROWS[task]) for task in TASKS})
    recipe = Recipe(
        epochs=2 * epochs, batch_size=32, learning_rate=learning_rate, weight_decay=0.0, seed=seed
    )
    learn_to_answer(model, lessons, recipe, work / "first")
    reading = [text for task in TASKS for text in asked(model, task, part(task, "train", 200))]
    model.measure_profile(reading, max_tokens=LONGEST)
    inner, profile = model.transformer, model.config.retention_profile()
    assert profile is not None
    passes = drawn(profile, alpha_for(inner, profile, BOLDEST), inner.shape, inner.architecture)
    again = recipe.model_copy(update={"epochs": epochs, "learning_rate": learning_rate / 2})
    if leaving:
        learn_to_answer(model, lessons, again, work / "leaving", passes=passes)
    else:
        learn_to_answer(model, lessons, again, work / "all")
    return model


def fresh() -> lessen.LessenForSeq2SeqLM:
    """T5's own first weights but for `SPREAD`, and a tokenizer whose [SEP] ends a text.

    Words are read and named by one table, as in T5. As in Flan-T5, last states are not scaled before: with
    vectors so short that would leave all words about as likely.
    """
    tokenizer = learned_tokenizer()
    config = T5Config(
        **SIZES,
        vocab_size=len(tokenizer),
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,  # in transformers 5 the table is one all the same, but nothing is scaled
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with tempfile.TemporaryDirectory() as folder:
        network = T5ForConditionalGeneration(config)
        network.shared.weight.data *= SPREAD
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = lessen.load(folder)
    assert isinstance(model, lessen.LessenForSeq2SeqLM)
    model.folder = None
    return model


@cache
def learned_tokenizer() -> Any:
    """MiniLM's, with the `WORDS` of its vocabulary that the texts to learn from use most.

    A word that is not among them is cut into pieces that are, single letters at worst. A table of all of
    MiniLM's 30,522 would be most of the weights of a model this small.
    """
    whole = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    texts = [text for name in dict.fromkeys(TASKS.values()) for text in builtin(name, "train").texts]
    encoded = whole(texts, add_special_tokens=False, verbose=False)["input_ids"]
    used = Counter(token for ids in encoded for token in ids)
    special = sorted(whole.all_special_ids)
    numbers = whole.get_vocab()
    letters = {number for word, number in numbers.items() if len(word.removeprefix("##")) == 1}
    rest = sorted(used.keys() - set(special), key=lambda id: (id not in letters, -used[id], id))
    chosen = [*special, *rest][:WORDS]
    words = whole.convert_ids_to_tokens(chosen)
    return type(whole)(vocab={word: place for place, word in enumerate(words)}, do_lower_case=True)


def part(task: str, name: str, rows: int | None) -> Table:
    """A part of a task's data, or so many of its rows drawn at random: they are stored by class."""
    table = builtin(TASKS[task], name)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    return table.take(sorted(order[:rows].tolist()))


def asked(model: Any, task: str, table: Table) -> list[str]:
    """Prompts of every row, in every way."""
    return [text for way in TEMPLATES[task] for text in fitted(model.tokenizer, way, table.texts, LONGEST)]


def lessons_of(model: Any, tables: dict[str, Table]) -> list[Lesson]:
    """Of every task each row once, in the first way, the second, and so on in turn; or as `OFTEN` says.

    What is to be written is cut like a prompt, and then has no end.
    """
    lessons = []
    for task, table in tables.items():
        ways = TEMPLATES[task]
        for number, way in enumerate(ways):
            some = table if task in OFTEN else table.take(range(number, len(table), len(ways)))
            targets = prompted(some, way).targets or []
            ids = {text: answer_ids(model.tokenizer, text, model.transformer) for text in set(targets)}
            prompts = encode_prompts(model.tokenizer, way, some.texts, LONGEST)
            pairs = zip(prompts, targets, strict=True)
            learned = [Lesson(row.ids, ids[text][:WRITTEN]) for row, text in pairs]
            lessons += learned * OFTEN.get(task, 1)
    return lessons


def at(model: Any, score: str, speedup: float) -> lessen.Point:
    """The dial's Point, with the tokens that stay chosen by a score."""
    point = model.dial(speedup=speedup).point
    return point if point.retention is None else point.model_copy(update={"token_score": score})


def positive(text: str) -> int:
    """A number of rows, as argparse wants it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of at least 1")
    return int(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=positive, help="of each task; as many as it takes if not given")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--learning-rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
