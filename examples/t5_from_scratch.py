"""Train a small T5 from nothing on classification as text to text, and let tokens leave its encoder.

Film reviews (IMDB, as long as `LONGEST` lets them be) and questions (TREC), each asked in several ways. No
pre-trained weights are used, so accuracies are those of a small model that has read some thousand texts. It
learns first with all tokens, then with as many leaving as a speed-up drawn anew for each step takes, and is
then asked at several speed-ups, with tokens chosen by attention, at random, and by place alone.

    python examples/t5_from_scratch.py --out t5-small-reviews        # half an hour on one core
    python examples/t5_from_scratch.py --out try --rows 64 --epochs 1    # a short one; learns nothing
    lessen generate t5-small-reviews "sentiment: a gripping film"
    lessen generate t5-small-reviews "sentiment: a gripping film" --speedup 2
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

import lessen
from lessen.builtin import model_folder
from lessen.data.packaged import load as builtin
from lessen.data.prompts import TEMPLATES, prompted
from lessen.data.table import Table
from lessen.measure.answering import evaluate_answers
from lessen.runtime.answers import answer_ids
from lessen.runtime.retention import alpha_for
from lessen.runtime.text import encode
from lessen.tokens.passes import drawn
from lessen.train.fine_tuning import Recipe
from lessen.train.reading import Lesson, learn_to_answer

TASKS = {"sentiment": "imdb-reviews", "question": "trec"}
SIZES = {"d_model": 192, "d_kv": 32, "d_ff": 384, "num_layers": 4, "num_decoder_layers": 2, "num_heads": 6}
ROWS = {"sentiment": 16_000, "question": 5_000}
"""To learn from, of each task."""

BOLDEST = 4.0
SPEEDUPS = (1.0, 1.5, 2.0, 3.0, 4.0)
SCORES = ("mean", "random", "first_k")
LONGEST = 160
EPOCHS = 1.5
"""With all tokens; half as many again with tokens leaving."""


def main() -> None:
    """Train, evaluate, and save model and figures."""
    options = _options()
    with tempfile.TemporaryDirectory() as work:
        model = trained(options.seed, Path(work), options.rows, options.epochs, options.learning_rate)
    figures = [
        {"task": task, "score": score, "speedup": speedup}
        | evaluate_answers(model, table, way, at(model, score, speedup)).as_dict()
        for task in TASKS
        for table in [part(task, "test", options.rows or 1000)]
        for way in TEMPLATES[task]
        for score in SCORES
        for speedup in SPEEDUPS
        if score == "mean" or speedup > 1
    ]
    model.use("full").save_pretrained(options.out)
    options.out.joinpath("figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    for each in figures:
        print(f"{each['speedup']:.1f}x {each['score']:8} {each['value']:.4f}  {each['prompt']}")


def trained(
    seed: int,
    work: Path,
    rows: int | None = None,
    epochs: float = EPOCHS,
    learning_rate: float = 1e-3,
    *,
    leaving: bool = True,
) -> lessen.LessenForSeq2SeqLM:
    """A T5 that has learned both tasks, with a retention profile.

    Args:
        seed: Of the first weights and the order of rows.
        work: Where checkpoints go; a run that was stopped goes on from there.
        rows: Of each task; `ROWS` if None.
        epochs: With all tokens; half as many again with tokens leaving.
        learning_rate: Peak.
        leaving: Whether tokens leave in the second half; the control goes on with all of them.
    """
    torch.manual_seed(seed)
    model = fresh()
    lessons = [each for task in TASKS for each in lessons_of(model, task, rows or ROWS[task])]
    recipe = Recipe(epochs=epochs, batch_size=32, learning_rate=learning_rate, weight_decay=0.0, seed=seed)
    learn_to_answer(model, lessons, recipe, work / "all")
    reading = [text for task in TASKS for text in asked(task, part(task, "train", 200))]
    model.measure_profile(reading, max_tokens=LONGEST)
    inner, profile = model.transformer, model.config.retention_profile()
    assert profile is not None
    passes = drawn(profile, alpha_for(inner, profile, BOLDEST), inner.shape, inner.architecture)
    again = recipe.model_copy(update={"epochs": epochs / 2, "learning_rate": learning_rate / 2})
    learn_to_answer(model, lessons, again, work / "leaving", passes=passes if leaving else None)
    return model


def fresh() -> lessen.LessenForSeq2SeqLM:
    """T5's own first weights, and the vocabulary of MiniLM, whose [SEP] ends a text."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    config = T5Config(
        **SIZES,
        vocab_size=len(tokenizer),
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    with tempfile.TemporaryDirectory() as folder:
        T5ForConditionalGeneration(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = lessen.load(folder)
    assert isinstance(model, lessen.LessenForSeq2SeqLM)
    model.folder = None
    return model


def part(task: str, name: str, rows: int | None) -> Table:
    """A part of a task's data, or so many of its rows drawn at random: they are stored by class."""
    table = builtin(TASKS[task], name)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    return table.take(sorted(order[:rows].tolist()))


def asked(task: str, table: Table) -> list[str]:
    """Prompts of every row, in every way."""
    return [text for way in TEMPLATES[task] for text in prompted(table, way).prompts]


def lessons_of(model: Any, task: str, rows: int) -> list[Lesson]:
    """Every row once: in the first way, the second, and so on in turn."""
    table, ways, lessons = part(task, "train", rows), TEMPLATES[task], []
    for number, way in enumerate(ways):
        some = table.take(range(number, len(table), len(ways)))
        made = prompted(some, way)
        answers = [answer_ids(model.tokenizer, answer, model.transformer) for answer in made.answers]
        prompts = encode(model.tokenizer, made.prompts, LONGEST)
        labels = made.labels or []
        lessons += [Lesson(row.ids, answers[label]) for row, label in zip(prompts, labels, strict=True)]
    return lessons


def at(model: Any, score: str, speedup: float) -> lessen.Point:
    """The dial's Point, with the tokens that stay chosen by a score."""
    point = model.dial(speedup=speedup).point
    return point if point.retention is None else point.model_copy(update={"token_score": score})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="of each task; as many as it takes if not given")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
