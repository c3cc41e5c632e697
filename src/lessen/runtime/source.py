"""What a decoder reads at every step: keys and values of each layer, made once of an encoder's output."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lessen.model.cross import CrossAttention, Source
from lessen.model.rows import Rows
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
        contexts = []
        for part, row in zip(query.split(rows.lengths), rows.original, strict=True):
            keys, values = self.held[row]
            asked = part.to(keys.dtype).transpose(0, 1)[None]
            contexts.append(scaled_dot_product_attention(asked, keys, values)[0].transpose(0, 1))
        context = contexts[0] if len(contexts) == 1 else torch.cat(contexts)
        return context.to(query.dtype)
