"""What has to be done with prompts before the first token: of a decoder, or of an encoder that one reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lessen.model.rows import Rows, pack
from lessen.model.transformer import InLayer, Transformer
from lessen.plan import FULL, Point
from lessen.runtime.cache import KeyValueCache
from lessen.runtime.engine import elimination_of
from lessen.runtime.source import encoded


@dataclass
class Beginning:
    """Where a batch of texts begins.

    Attributes:
        cache: Of the layers that write; a decoder's knows its source.
        given: By row, the tokens of the first pass: the prompt, or the token a decoder begins with.
        in_layer: What takes prompt tokens away in that pass; None: none leave.
        left: How many tokens each row may get.
        sources: How many tokens of each row a decoder reads; 0 where it reads none.
    """

    cache: KeyValueCache
    given: dict[int, Sequence[int]]
    in_layer: InLayer | None
    left: list[int]
    sources: list[int]

    def first_pass(self) -> tuple[Tensor, Rows]:
        """Token ids `[tokens]` of the first pass, and their layout."""
        rows = self.cache.layout({row: len(ids) for row, ids in self.given.items()})
        ids = [token for row in rows.original for token in self.given[row]]
        return torch.tensor(ids, device=rows.device), rows


def begin(
    model: Transformer, prompts: Sequence[Sequence[int]], max_new_tokens: int, point: Point = FULL
) -> Beginning:
    """Make everything ready for the pass that names the first token of each row.

    Prompt tokens that leave do so for good: later layers do not hold them, and no later token attends to them
    there (latency-adjustable page, 1.9). Tokens that are written stay. Positions are those of the whole
    prompt.

    Args:
        model: A causal model, or an encoder-decoder model, whose encoder reads the prompts.
        prompts: Token ids of each row, none empty.
        max_new_tokens: For each row at most.
        point: How many prompt tokens leave.
    """
    facts, device = model.architecture, model.embeddings.token.weight.device
    most, count = facts.max_tokens, len(prompts)
    if model.decoder is None:
        capacity = min(max(map(len, prompts)) + max_new_tokens - 1, most)
        left = [min(max_new_tokens, most - len(prompt) + 1) for prompt in prompts]
        cache = KeyValueCache(model, count, capacity)
        start = Beginning(cache, dict(enumerate(prompts)), None, left, [0] * count)
        start.in_layer = elimination_of(point, model, *start.first_pass())
        return start
    source = encoded(model, *pack([torch.tensor(prompt, device=device) for prompt in prompts]), point)
    lengths = dict(zip(source.rows.original, source.rows.lengths, strict=True))
    capacity = min(max_new_tokens, most)
    cache = KeyValueCache(model, count, capacity, source)
    first = [facts.decoder_start_token_id]
    given: dict[int, Sequence[int]] = dict.fromkeys(range(count), first)
    return Beginning(cache, given, None, [capacity] * count, [lengths[row] for row in range(count)])
