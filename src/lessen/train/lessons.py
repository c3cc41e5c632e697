"""Train what writes with prompt tokens leaving: the loss is that of what is written, and of nothing else.

A prompt is read as it is when the model runs, and what has left is gone: its continuation, or a decoder, sees
the survivors only. Prompt tokens are never named themselves, for those that left have no last state, and
which ones stay was chosen by tokens after them (latency-adjustable page, 1.9 and 1.10).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from lessen.depth.language_losses import imitation
from lessen.errors import InputError
from lessen.model.causal import attend_causal, spread
from lessen.model.cross import Source
from lessen.model.rows import Rows, following, pack
from lessen.model.transformer import InLayer, Transformer
from lessen.runtime.text import Encoded
from lessen.tokens.passes import Passes, all_stay
from lessen.train.callbacks import Along
from lessen.train.changing import changed
from lessen.train.fine_tuning import EncodedRows, Recipe, steps_of

LEFT_OUT = -100
"""Fills up answers of a batch; no token has this number."""


class Lesson(NamedTuple):
    """What is read, and what is to be written after it: token ids, at least one of each."""

    prompt: list[int]
    answer: list[int]


class Held:
    """Keys and values of one layer, of the prompts of a batch: a memory that gradients flow through.

    The oracle of what is cached (`runtime/cache.py`), which is written in place: no gradient could follow.
    """

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def room(self, rows: Rows) -> None:
        """As `model.causal.Memory`: kernels have no gradient."""
        return

    def remember(self, key: Tensor, value: Tensor, rows: Rows) -> None:
        """As `model.causal.Memory`."""
        for held, new in ((self.keys, key), (self.values, value)):
            for row, part in zip(rows.original, new.split(rows.lengths), strict=True):
                held[row] = torch.cat([held[row], part]) if row in held else part

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, rows: Rows, bias: Tensor | None = None
    ) -> Tensor:
        """As `model.causal.Memory`, of models without a bias of positions."""
        before = [len(self.keys[row]) if row in self.keys else 0 for row in rows.original]
        self.remember(key, value, rows)
        if not any(before):
            return attend_causal(query, key, value, rows, bias)
        contexts = []
        for part, row, held in zip(query.split(rows.lengths), rows.original, before, strict=True):
            keys, values = (spread(each[row], part.shape[1]) for each in (self.keys, self.values))
            sees = torch.ones(len(part), len(keys), dtype=torch.bool, device=part.device).tril(held)
            query, key, value = (states.transpose(0, 1)[None] for states in (part, keys, values))
            context = scaled_dot_product_attention(query, key, value, attn_mask=sees)
            contexts.append(context[0].transpose(0, 1))
        return torch.cat(contexts)

    def across(self, query: Tensor, rows: Rows) -> Tensor:
        """As `model.causal.Memory`; a causal model reads no encoder."""
        raise NotImplementedError


def states_before(
    model: Transformer, prompts: Sequence[Tensor], answers: Sequence[Tensor], in_layer: InLayer | None = None
) -> Tensor:
    """Last states after which each token of each answer is named, with prompt tokens leaving on the way.

    Args:
        model: A causal model, or one whose decoder answers what its encoder read.
        prompts: Token ids of each row.
        answers: The same.
        in_layer: What takes prompt tokens away.

    Returns:
        `[tokens of all answers, hidden]`, row after row in the order given.
    """
    device, order = prompts[0].device, range(len(answers))
    if model.decoder is not None:
        source = Source(*model(*pack(prompts), None, None, in_layer))
        begins = torch.tensor([model.architecture.decoder_start_token_id], device=device)
        hidden, rows = model.write(
            *pack([torch.cat([begins, answer[:-1]]) for answer in answers]), source=source
        )
        parts = dict(zip(rows.original, hidden.split(rows.lengths), strict=True))
        return torch.cat([parts[row] for row in order])
    memory = [Held() for _ in model.layers]
    hidden, rows = model.write(*pack(prompts), in_layer, memory)
    last = dict(zip(rows.original, hidden.index_select(0, rows.last).split(1), strict=True))
    longer = [row for row in order if len(answers[row]) > 1]
    parts = {}
    if longer:
        ids, some = pack([answers[row][:-1] for row in longer])
        some = Rows(some.lengths, tuple(longer[place] for place in some.original), device)
        rows = following(some, [len(prompt) for prompt in prompts])
        hidden, rows = model.write(ids, rows, None, memory)
        parts = dict(zip(rows.original, hidden.split(rows.lengths), strict=True))
    return torch.cat([torch.cat([last[row], parts[row]]) if row in parts else last[row] for row in order])


class Answering(nn.Module):
    """A model and how its prompts lose tokens, as the Trainer wants it.

    Args:
        transformer: Trained in place.
        passes: Of each step: the first learns the answers, others imitate it.
    """

    def __init__(self, transformer: Transformer, passes: Passes) -> None:
        super().__init__()
        self.transformer, self.passes = transformer, passes

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **unused: Any
    ) -> dict[str, Tensor]:
        """Mean cross-entropy over the tokens of the answers, nats.

        Args:
            input_ids: Prompts, padded at the end, `[rows, longest]`.
            attention_mask: Nonzero at their tokens.
            labels: Answers, filled up with `LEFT_OUT`, `[rows, longest answer]`.
            unused: Other options of the Trainer.
        """
        prompts = [row[kept.bool()] for row, kept in zip(input_ids, attention_mask, strict=True)]
        answers = [row[row != LEFT_OUT] for row in labels]
        learning, *imitating = self.passes()
        logits = self._logits(prompts, answers, learning)
        loss = cross_entropy(logits, torch.cat(answers))
        for takes_away in imitating:
            other = self._logits(prompts, answers, takes_away)
            loss = loss + imitation(other, logits) / len(logits) / len(imitating)
        return {"loss": loss}

    def _logits(self, prompts: list[Tensor], answers: list[Tensor], in_layer: InLayer | None) -> Tensor:
        return self.transformer.next_token(states_before(self.transformer, prompts, answers, in_layer))


class LessonRows(EncodedRows):
    """Lessons as the Trainer takes them."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        encoded = [Encoded(lesson.prompt, None, False) for lesson in lessons]
        super().__init__(encoded, [lesson.answer for lesson in lessons])

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A padded batch of both sides."""
        batch = super().collate([{**row, "labels": 0} for row in rows])
        width = max(len(row["labels"]) for row in rows)
        filled = [row["labels"] + [LEFT_OUT] * (width - len(row["labels"])) for row in rows]
        return batch | {"labels": torch.tensor(filled)}


def learn_to_answer(
    model: Any,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    folder: Path,
    *,
    passes: Passes | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train `model` in place, continuing from the newest checkpoint in `folder` if there is one.

    Args:
        model: A `LessenGenerator`.
        lessons: What to learn.
        recipe: How; the objective is the likelihood of the answers.
        folder: Where checkpoints go.
        passes: What takes prompt tokens away in each step; None: nothing does.
        quiet: No progress bar.

    Returns:
        As `fine_tune`.

    Raises:
        InputError: When there is nothing to learn.
        Diverged: When the loss is no finite number, or a weight in the end.
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    if not lessons:
        raise InputError("there is no text long enough to learn from")
    transformer = model.train().transformer
    answering = Answering(transformer, passes or all_stay)
    dropout: list[tuple[Any, str, Any]] = []
    if recipe.attention_dropout is not None and transformer.decoder is not None:
        for block in transformer.decoder.layers:
            parts = (block.attention, block.cross)
            dropout += [(part, "dropout", recipe.attention_dropout) for part in parts]
    try:
        with changed(dropout):
            rows = LessonRows(lessons)
            return steps_of(answering, transformer, rows, recipe, folder, Along(None), quiet=quiet)
    finally:
        model.eval()
