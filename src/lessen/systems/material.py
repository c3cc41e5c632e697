"""What exits of a generator learn from and are measured on, and which words their short lists have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from lessen.data.table import Table
from lessen.hf import LessenGenerator
from lessen.plan import LanguageExitShape
from lessen.progress import Watch, counting
from lessen.promise.batches import KeptBatches
from lessen.promise.prompts import Prompting, prompts_of
from lessen.promise.traces import AT_ONCE, continued, identity_of
from lessen.runtime.source import Reply, Written, reply
from lessen.runtime.text import WHOLE, encode, stretches
from lessen.systems.working import ANSWERED, Say
from lessen.train.language_exits import LanguageRecipe

REPLIES = 4096
"""Of an encoder-decoder model's own, at most, that its exits learn from."""

STRETCHES = 32
"""Of tuning text that figures about exits are measured on."""


def material(
    recipe: LanguageRecipe,
    prompting: Prompting,
    model: LessenGenerator,
    tables: dict[str, Table],
    work: Path,
    say: Say,
    *,
    quiet: bool,
) -> tuple[Sequence[Sequence[int]] | Sequence[Reply], Sequence[Written]]:
    """What exits learn from, and what is measured on of the tuning text.

    A model that continues learns from documents; one that answers from its own answers to them, since its
    decoder never reads plain text. As many are made as the training has room for, and kept in the working
    folder.
    """
    if model.transformer.decoder is None:
        longest = min(recipe.max_tokens, model.config.facts().max_tokens)
        return _tokens(model, tables["train"]), stretches(_tokens(model, tables["tune"]), longest)[:STRETCHES]
    most = min(REPLIES, recipe.steps * recipe.batch_size)
    say(f"answering up to {min(most, len(tables['train'])):,} documents to learn from")
    replies = []
    for name, count in (("train", most), ("tune", STRETCHES)):
        some = tables[name].take(range(min(count, len(tables[name]))))
        with counting(f"answering {name} documents", "documents", quiet=quiet) as watch:
            replies.append(_replies(model, some, prompting, work / ANSWERED / name, watch))
    return replies[0], replies[1]


def _replies(
    model: LessenGenerator, table: Table, prompting: Prompting, kept_in: Path, watch: Watch
) -> list[Reply]:
    """The model's own answers, the likeliest tokens, to the beginnings of documents."""
    prompts, inner = prompts_of(model, table, prompting), model.eval().transformer
    stop, most = model.stop_tokens, prompting.new_tokens
    parts = KeptBatches(kept_in, identity_of(inner, [prompts, most, sorted(stop)]))
    found: list[Reply] = []
    watch(0, len(prompts))
    for number, start in enumerate(range(0, len(prompts), AT_ONCE)):
        batch = prompts[start : start + AT_ONCE]
        kept = parts.get(number)
        if kept is None:
            answers = [torch.tensor(answer) for answer in continued(inner, batch, most, stop)]
            lengths = torch.tensor([len(answer) for answer in answers])
            kept = parts.put(number, {"tokens": torch.cat(answers), "lengths": lengths})
        answers = list(kept["tokens"].split(kept["lengths"].tolist()))
        found += [reply(inner, prompt, said.tolist()) for prompt, said in zip(batch, answers, strict=True)]
        watch(start + len(batch), len(prompts))
    return found


def _tokens(model: LessenGenerator, table: Table) -> list[list[int]]:
    return [row.ids for row in encode(model.tokenizer, table.texts, WHOLE)]


def listing(exits: Sequence[LanguageExitShape], words: int, say: Say) -> list[LanguageExitShape]:
    """The exits, their short lists no longer than the text has different tokens."""
    if any(exit.words is not None and exit.words > words for exit in exits):
        say(f"the text has {words:,} different tokens: short lists are of these")
    return [exit.model_copy(update={"words": exit.words and min(exit.words, words)}) for exit in exits]


def by_frequency(texts: Sequence[Sequence[int]]) -> list[int]:
    """Token ids, the most frequent first; of equally frequent ones the smaller id."""
    counts = Counter(token for text in texts for token in text)
    return sorted(counts, key=lambda token: (-counts[token], token))
