"""What a decoder reads at every step: keys and values of each layer, made once of an encoder's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lessen.model.cross import CrossAttention, Source, attend_row_by_row
from lessen.model.rows import Rows, pack
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point
from lessen.runtime.engine import elimination_of


def encoded(model: Transformer, ids: Tensor, rows: Rows, point: Point = FULL) -> Source:
    """Run the encoder of an encoder-decoder model, in which tokens may leave.

    Args:
        model: Its decoder is not run.
        ids: Token ids `[tokens]`.
        rows: Their layout.
        point: Says how many leave. What is left, and nothing else, is what the decoder reads.
    """
    return Source(*model(ids, rows, None, None, elimination_of(point, model, ids, rows)))


class Reply(NamedTuple):
    """A text that was written, and what an encoder read for it.

    Attributes:
        text: Token ids `[tokens]` as the decoder reads them: what it begins with, then all but the last.
        prompt: Token ids of what was read.
    """

    text: Tensor
    prompt: Tensor

    def __len__(self) -> int:
        return len(self.text)


Written = Tensor | Reply
"""A stretch of text, of a model that continues; or a reply, of one that answers."""


def reply(model: Transformer, prompt: Sequence[int], tokens: Sequence[int]) -> Reply:
    """A reply of an encoder-decoder model, of which it named `tokens`."""
    begins = model.architecture.decoder_start_token_id
    return Reply(torch.tensor([begins, *tokens[:-1]]), torch.tensor(list(prompt)))


def batch_of(model: Transformer, texts: Sequence[Written]) -> tuple[Tensor, Rows, Source | None]:
    """Texts as the layers that write take them: ids `[tokens]`, their layout, and what they read.

    Args:
        model: A causal model, which takes stretches, or an encoder-decoder model, which takes replies; its
            encoder runs at full depth, with all tokens.
        texts: All of one kind.
    """
    device = model.embeddings.token.weight.device
    replies = [each for each in texts if isinstance(each, Reply)]
    ids, rows = pack([(each.text if isinstance(each, Reply) else each).to(device) for each in texts])
    if not replies:
        return ids, rows, None
    return ids, rows, encoded(model, *pack([each.prompt.to(device) for each in replies]))


class SourceCache:
    """Keys and values of one layer, `[1, heads, source tokens, head_dim]` for each row.

    Args:
        cross: Of the layer.
        source: What the encoder made of the rows.
        dtype: To keep them in.
    """

    def __init__(self, cross: CrossAttention, source: Source, dtype: torch.dtype) -> None:
        key, value = (part.to(dtype).split(source.rows.lengths) for part in cross.keys_values(source.hidden))
        self.held = {
            row: (keys.transpose(0, 1).contiguous()[None], values.transpose(0, 1).contiguous()[None])
            for row, keys, values in zip(source.rows.original, key, value, strict=True)
        }

    def attend(self, query: Tensor, rows: Rows) -> Tensor:
        """Context `[tokens, heads, head_dim]` of queries of the same form; `original` says whose they are."""
        return attend_row_by_row(query, [self.held[row] for row in rows.original], rows)
