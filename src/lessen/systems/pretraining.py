"""From a checkpoint and plain text to a checkpoint that has read it: a start for the other systems.

The result has no exits, no Points and no promises. Binary weights in it are kept as the real numbers they
learn by, since it is there to be trained on.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from lessen.data.reading import read
from lessen.data.splits import split
from lessen.errors import InputError
from lessen.history import learned_by, remember
from lessen.loading import load
from lessen.systems.binarizing import Binarizing, binarized, check_bits, turning
from lessen.systems.working import Say, begin_work, result_folder
from lessen.train.masked_words import Guessing, Vocabulary, guessed, learn_words, pieces

FEWEST_TEXTS = 20
"""Fewer do not fill a part to judge by."""


class Pretraining(Binarizing):
    """How to learn from masked words.

    Attributes:
        parts: What kind of stage it is.
        masked: Share of the tokens that are to be guessed.
    """

    parts: Literal["words"] = "words"  # type: ignore[assignment]
    objective: Literal["masked_words"] = "masked_words"
    masked: Annotated[float, Field(gt=0, lt=1)] = 0.15


@dataclass(frozen=True)
class Pretrained:
    """What was made: the folder, the model, and how it guesses words of texts it was not trained on."""

    folder: Path
    model: Any
    before: dict[str, float]
    after: dict[str, float]
    rows: dict[str, int]
    training: dict[str, Any]


def pretrain(plan: Any, work: Path, out: Path, say: Say = print, *, quiet: bool = False) -> Pretrained:
    """Carry out a plan whose one stage is a `Pretraining`, and save the result in `out`.

    Args:
        plan: A `CompressionPlan`.
        work: Folder of the unfinished work.
        out: Folder for the result.
        say: Told how it goes.
        quiet: No progress bar.

    Raises:
        InputError: When there are too few texts, or the model's tokenizer has no mask token.
        Interrupted: When stopped; the same call continues.
    """
    [stage] = plan.stages
    table = read(plan.data, text=plan.columns.text, pair=plan.columns.pair, labelled=False)
    if len(table) < FEWEST_TEXTS:
        raise InputError(f"{plan.data}: {len(table)} texts are too few to learn from and judge by")
    parts = split(table, {"train": 1 - plan.test_share, "test": plan.test_share}, plan.seed)
    torch.manual_seed(plan.seed)
    model = load(plan.model)
    if model.config.form().exits:
        raise InputError(
            f"{plan.model} has a classifier; words are learned before a task, by an encoder alone"
        )
    check_bits(model, stage)
    model = binarized(model, stage)
    limit = min(stage.max_tokens, model.config.facts().max_tokens)
    vocabulary = Vocabulary(model.tokenizer, model.config.facts().vocab_size)
    encoded = {name: pieces(model.tokenizer, part.texts, limit) for name, part in parts.items()}
    say(", ".join(f"{name} {len(rows):,}" for name, rows in encoded.items()) + f" pieces of {limit} tokens")
    begin_work(work, plan, parts, model)
    torch.manual_seed(stage.seed)
    before = guessed(Guessing(model.transformer, vocabulary, stage.masked).eval(), encoded["test"])
    training, guessing = learn_words(
        model,
        encoded["train"],
        stage,
        stage.masked,
        work / "checkpoints",
        told=turning(model, stage),
        quiet=quiet,
    )
    after = guessed(guessing, encoded["test"])
    model.eval()
    rows = {name: len(part) for name, part in parts.items()}
    with result_folder(out, plan) as (fresh, record):
        model.save_pretrained(fresh)
        learned = learned_by(plan.model)
        remember(fresh, learned, learned)  # plain text has shown it no label
        record |= {"rows": rows, "training": [training], "masked_words": {"before": before, "after": after}}
    shutil.rmtree(work, ignore_errors=True)
    return Pretrained(out, model, before, after, rows, training)
