"""What every exit would have said along the model's own greedy continuations of prompts, token by token.

One pass over each continuation, all of it known in advance, says for every threshold which tokens would have
left where and whether they would have been the model's own. As long as none was wrong, that is exactly what
early decoding with an exact cache does (self-supervised exits page, 6.2 and P11). No text is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lessen.depth.decay import FIXED, slack
from lessen.depth.language import states_at_exits, unsure
from lessen.depth.language_losses import positions_at_once
from lessen.errors import InputError
from lessen.model.digests import base_digest, heads_digest
from lessen.model.transformer import Transformer
from lessen.plan import Decay, ExitRule
from lessen.promise.batches import KeptBatches
from lessen.runtime.decoding import MOST_EARLY
from lessen.runtime.generation import generate
from lessen.runtime.source import Written, batch_of, reply

AT_ONCE = 16
"""Prompts continued together."""

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Traces:
    """Scores and agreement of every exit on continuations of prompts, each of which is one draw.

    Attributes:
        criteria: Names, in the order of `scores`.
        scores: `[criteria, exits, prompts, tokens]`; infinite where a token cannot leave, or none is there.
        right: Whether the exit names the continuation's own token, `[exits, prompts, tokens]`.
        lengths: Tokens of each continuation, `[prompts]`; at least one.
        keys: Hash of each document, as 16 hex digits.
    """

    criteria: tuple[str, ...]
    scores: Floats
    right: Bools
    lengths: Ints
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def there(self) -> Bools:
        """Which places hold a token, `[prompts, tokens]`."""
        return np.arange(self.right.shape[2])[None] < self.lengths[:, None]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        content = hashlib.sha256(" ".join((*self.criteria, *self.keys)).encode())
        for array in (self.scores, self.right, self.lengths):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()

    def take(self, prompts: Sequence[int] | Ints) -> Traces:
        """Some prompts, in the order given."""
        chosen = np.asarray(prompts, dtype=np.int64)
        return replace(
            self,
            scores=self.scores[:, :, chosen],
            right=self.right[:, chosen],
            lengths=self.lengths[chosen],
            keys=tuple(self.keys[i] for i in chosen),
        )

    def left_at(self, rule: ExitRule | None, layers: Sequence[int], most: int = MOST_EARLY) -> Ints:
        """Index of the exit each token leaves at, `[prompts, tokens]`; the number of exits where it stays.

        Args:
            rule: Of a Point; None: no token leaves.
            layers: Depth of each exit (1-based).
            most: Tokens in a row that leave, before one goes through all layers, as in decoding.

        Raises:
            InputError: When the rule's criterion was not asked here.
        """
        exits = len(layers)
        left = np.full(self.right.shape[1:], exits, dtype=np.int64)
        if rule is None:
            return left
        if rule.criterion not in self.criteria:
            raise InputError(
                f"criterion {rule.criterion!r} is none of those kept: {', '.join(self.criteria)}"
            )
        scores = self.compared(rule.criterion, rule.decay)
        for index in reversed(range(exits)):
            threshold = rule.at(layers[index])
            if threshold is not None:
                left[scores[index] < threshold] = index
        in_a_row, tokens = np.zeros(len(left), dtype=np.int64), self.right.shape[2]
        for token in range(tokens if tokens > most else 0):
            left[in_a_row >= most, token] = exits
            in_a_row = np.where(left[:, token] < exits, in_a_row + 1, 0)
        return left

    def compared(self, criterion: str, decay: Decay | None = None) -> Floats:
        """What is compared with thresholds, `[exits, prompts, tokens]`: scores, less what places allow."""
        scores = self.scores[self.criteria.index(criterion)]
        if decay is None:
            return scores
        allowed = np.asarray(slack(range(scores.shape[2]), decay), dtype=np.float32)
        return (scores - allowed) / np.float32(FIXED)

    def wrong_at(self, left: Ints) -> Bools:
        """Which tokens left early and are not the continuation's own, `[prompts, tokens]`."""
        exits = len(self.right)
        taken = np.take_along_axis(self.right, np.minimum(left, exits - 1)[None], 0)[0]
        return (left < exits) & ~taken


def trace(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    *,
    criteria: Sequence[str],
    new_tokens: int,
    stop: Collection[int] = (),
    kept_in: Path | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Traces:
    """Continue prompts greedily at full depth, then ask every exit about every token.

    The first token asked about is the one after the prompt: a prompt itself is read at full depth.

    Args:
        model: With language exits, in evaluation mode.
        prompts: Token ids.
        keys: Hash of each document a prompt is the beginning of.
        criteria: Names of those to score by.
        new_tokens: Of each continuation at most.
        stop: Tokens that end a continuation; none of them is named early.
        kept_in: A folder in which finished prompts are kept; another call with the same arguments goes on
            from there.
        watch: Told how many prompts are finished, of how many.
    """
    shape = len(model.shape.exit_layers), len(prompts), new_tokens
    scores = np.full((len(criteria), *shape), np.inf, dtype=np.float32)
    right = np.zeros(shape, dtype=bool)
    lengths = np.zeros(len(prompts), dtype=np.int64)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    asked = [prompts, criteria, new_tokens, sorted(stop)]
    parts = KeptBatches(kept_in, "" if kept_in is None else identity_of(model, asked))
    watch(0, len(order))
    for number, start in enumerate(range(0, len(order), AT_ONCE)):
        batch = order[start : start + AT_ONCE]
        found = parts.get(number)
        if found is None:
            given = [prompts[row] for row in batch]
            found = parts.put(number, _asked(model, given, criteria, new_tokens, stop))
        scores[:, :, batch] = found["scores"].numpy()
        right[:, batch] = found["right"].numpy()
        lengths[batch] = found["lengths"].numpy()
        watch(start + len(batch), len(order))
    return Traces(tuple(criteria), scores, right, lengths, tuple(keys))


@torch.no_grad()
def _asked(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    criteria: Sequence[str],
    new_tokens: int,
    stop: Collection[int],
) -> dict[str, torch.Tensor]:
    """`scores`, `right` and `lengths` of some prompts, as in `Traces`."""
    layers = model.shape.exit_layers
    shape = len(layers), len(prompts), new_tokens
    scores = torch.full((len(criteria), *shape), float("inf"))
    right = torch.zeros(shape, dtype=torch.bool)
    texts = continued(model, prompts, new_tokens, stop)
    written: list[Written] = [
        torch.tensor([*prompt, *text][:-1]) if model.decoder is None else reply(model, prompt, text)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    ids, rows, source = batch_of(model, written)
    states, _ = states_at_exits(model, ids, rows, source)
    ends = np.cumsum(rows.lengths)
    for row, end in zip(rows.original, ends, strict=True):
        tokens, length = torch.tensor(texts[row]), len(texts[row])
        for exit, (layer, state) in enumerate(zip(layers, states, strict=True)):
            asked = state[end - length : end].split(positions_at_once(model.architecture.vocab_size))
            found = [unsure(model, layer, part, criteria, stop) for part in asked]
            scores[:, exit, row, :length] = torch.cat([each[0] for each in found], 1).float().cpu()
            right[exit, row, :length] = torch.cat([each[1] for each in found]).cpu() == tokens
    return {"scores": scores, "right": right, "lengths": torch.tensor([len(text) for text in texts])}


def identity_of(model: Transformer, asked: object) -> str:
    """SHA-256 of weights, of the precision they run in, and of prompts and what is asked, which are JSON."""
    precisions = sorted({str(weight.dtype) for weight in model.parameters()})
    content = [base_digest(model), heads_digest(model), precisions, asked]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def continued(
    model: Transformer, prompts: Sequence[Sequence[int]], new_tokens: int, stop: Collection[int]
) -> list[list[int]]:
    """The model's own greedy continuation of each prompt, at full depth."""
    found: list[list[int]] = [[] for _ in prompts]
    for step in generate(model, prompts, max_new_tokens=new_tokens, stop=stop):
        for row, token in step.items():
            found[row].append(token)
    return found
