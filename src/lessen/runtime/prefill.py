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
        ids: Tokens of the first pass, `[tokens]`: the prompts, or the token a decoder begins with.
        rows: Their layout.
        in_layer: What takes prompt tokens away in that pass; None: none leave.
        left: How many tokens each row may get.
    """

    cache: KeyValueCache
    ids: Tensor
    rows: Rows
    in_layer: InLayer | None
    left: list[int]


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
    most = facts.max_tokens
    ids, rows = pack([torch.tensor(prompt, device=device) for prompt in prompts])
    if model.decoder is None:
        capacity = min(max(map(len, prompts)) + max_new_tokens - 1, most)
        left = [min(max_new_tokens, most - len(prompt) + 1) for prompt in prompts]
        cache = KeyValueCache(model, len(prompts), capacity)
        return Beginning(cache, ids, rows, elimination_of(point, model), left)
    count = min(max_new_tokens, most)
    cache = KeyValueCache(model, len(prompts), count, encoded(model, ids, rows, point))
    ids = torch.full((len(prompts),), facts.decoder_start_token_id, device=device)
    return Beginning(cache, ids, cache.step(list(range(len(prompts)))), None, [count] * len(prompts))
