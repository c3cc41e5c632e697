"""Train a small T5 from nothing on classification as text to text, and let tokens leave its encoder.

Film reviews (Rotten Tomatoes) and questions (TREC), each asked in several ways. No pre-trained weights are
used, so accuracies are those of a small model that has read a few thousand sentences. It learns first with
all tokens, then with as many leaving as a speed-up drawn anew for each step takes, and is then asked at
several speed-ups, with tokens chosen by attention, at random, and by place alone.

    python examples/t5_from_scratch.py --out t5-small-reviews        # a long run
    python examples/t5_from_scratch.py --out try --rows 64 --epochs 1    # a short one; learns nothing
    lessen generate t5-small-reviews "sentiment: a gripping film"
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import lessen
from lessen.builtin import model_folder
from lessen.data.packaged import load as builtin
from lessen.data.prompts import TEMPLATES, prompted
from lessen.data.table import Table
from lessen.measure.answering import evaluate_answers

TASKS = {"sentiment": "movie-reviews", "question": "trec"}
SIZES = {"d_model": 256, "d_kv": 32, "d_ff": 512, "num_layers": 6, "num_decoder_layers": 2, "num_heads": 8}
BOLDEST = 3.0
SPEEDUPS = (1.0, 1.5, 2.0, 3.0)
SCORES = ("mean", "random", "first_k")
LONGEST = 96


class DrawnSpeedups(TrainerCallback):
    """Before each step: as many tokens leave as a speed-up from 1 to `BOLDEST` takes, often a low one."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any) -> None:
        model.dial(speedup=1 + (BOLDEST - 1) * float(torch.rand(()) ** 2))


def main() -> None:
    """Train, evaluate, and save model and figures."""
    options = _options()
    torch.manual_seed(options.seed)
    model = _fresh()
    train = [
        row for task, name in TASKS.items() for row in _rows(model, task, _part(name, "train", options.rows))
    ]
    _fit(model, train, options, options.epochs)
    reading = [text for task, name in TASKS.items() for text in _asked(task, _part(name, "train", 200))]
    model.measure_profile(reading, max_tokens=LONGEST)
    _fit(model, train, options, options.epochs / 2, DrawnSpeedups())
    figures = [
        {"task": task, "score": score, "speedup": speedup}
        | evaluate_answers(model, table, way, _at(model, score, speedup)).as_dict()
        for task, name in TASKS.items()
        for table in [_part(name, "test", options.rows)]
        for way in TEMPLATES[task]
        for score in SCORES
        for speedup in SPEEDUPS
        if score == "mean" or speedup > 1
    ]
    model.use("full").save_pretrained(options.out)
    options.out.joinpath("figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    for each in figures:
        print(f"{each['speedup']:.1f}x {each['score']:8} {each['value']:.4f}  {each['prompt']}")


def _fresh() -> lessen.LessenForSeq2SeqLM:
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


def _part(name: str, part: str, rows: int | None) -> Table:
    """A part of built-in data, or so many of its rows drawn at random: they are stored by class."""
    table = builtin(name, part)
    drawn = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    return table.take(sorted(drawn[:rows].tolist()))


def _asked(task: str, table: Table) -> list[str]:
    return [text for way in TEMPLATES[task] for text in prompted(table, way).prompts]


def _rows(model: Any, task: str, table: Table) -> list[dict[str, list[int]]]:
    """Every row in every way, as token ids."""
    rows = []
    for way in TEMPLATES[task]:
        asked = prompted(table, way)
        assert asked.labels is not None
        ids = model.tokenizer(asked.prompts, truncation=True, max_length=LONGEST)["input_ids"]
        answers = model.tokenizer(asked.answers)["input_ids"]
        rows += [
            {"input_ids": row, "labels": answers[label]} for row, label in zip(ids, asked.labels, strict=True)
        ]
    return rows


def _fit(model: Any, rows: list[Any], options: Any, epochs: float, *callbacks: TrainerCallback) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=32,
            learning_rate=options.learning_rate,
            warmup_steps=0.1,
            lr_scheduler_type="linear",
            seed=options.seed,
            save_strategy="no",
            report_to=[],
        )
        collate = DataCollatorForSeq2Seq(model.tokenizer, model)
        Trainer(
            model, arguments, train_dataset=rows, data_collator=collate, callbacks=list(callbacks)
        ).train()
    model.eval()


def _at(model: Any, score: str, speedup: float) -> lessen.Point:
    """The dial's Point, with the tokens that stay chosen by a score."""
    point = model.dial(speedup=speedup).point
    return point if point.retention is None else point.model_copy(update={"token_score": score})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, help="of each part of each data set; all if not given")
    parser.add_argument("--epochs", type=float, default=10.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
