"""One transformer layer: attention, then feed-forward, each with its residual and norm."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from transformers.activations import ACT2FN

from lessen.model.architecture import Architecture
from lessen.model.attention import Attention, Score
from lessen.model.few_bits import Int8Linear
from lessen.model.linear import Linear, LowRank, linear
from lessen.model.rows import Rows
from lessen.plan import Bits, LayerShape, Rank


class Keep(Protocol):
    """Which tokens of a layer go on, decided between its attention and its feed-forward half.

    Attributes:
        score: What it wants to know of the attention; None if nothing.
    """

    @property
    def score(self) -> Score | None: ...

    def __call__(self, scores: Tensor | None, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        """From scores `[tokens]` and the layer's input `[tokens, hidden]` to an index `[tokens left]`."""
        ...


class FeedForward(nn.Module):
    """Two linear layers around an activation, applied to each token alone."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        rank: Rank | None = None,
        bits: Bits = 32,
    ) -> None:
        super().__init__()
        rank = rank or Rank()
        self.up = linear(hidden_size, intermediate_size, rank.up, bits)
        self.activation = activation
        self.down = linear(intermediate_size, hidden_size, rank.down, bits)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[tokens, hidden]` to the same; a layer put in the place of `up` is called as any other."""
        if type(self.up) in (Linear, Int8Linear, LowRank):
            return self.down(self.up.activated(hidden, self.activation))
        return self.down(ACT2FN[self.activation](self.up(hidden)))


class Block(nn.Module):
    """A layer with its norms after each residual sum (post, as in BERT) or before each branch (pre)."""

    def __init__(self, architecture: Architecture, shape: LayerShape) -> None:
        super().__init__()
        hidden = architecture.hidden_size
        self.pre = architecture.norm_place == "pre"
        self.attention = Attention(
            hidden,
            len(shape.heads),
            architecture.head_dim,
            architecture.attention_dropout,
            shape.rank,
            shape.bits,
        )
        self.attention_norm = nn.LayerNorm(hidden, eps=architecture.norm_eps)
        self.feed_forward = FeedForward(
            hidden, shape.intermediate_size, architecture.hidden_act, shape.rank, shape.bits
        )
        self.feed_forward_norm = nn.LayerNorm(hidden, eps=architecture.norm_eps)
        self.dropout = nn.Dropout(architecture.dropout)
        complete = len(shape.heads) == architecture.num_attention_heads
        self.heads_of_bias = None if complete else list(shape.heads)

    def forward(
        self, hidden: Tensor, rows: Rows, bias: Tensor | None = None, keep: Keep | None = None
    ) -> tuple[Tensor, Rows]:
        """One layer, in which tokens may leave once they have been attended to.

        Args:
            hidden: `[tokens, hidden]`.
            rows: Layout of the batch.
            bias: Of all original heads, as in `attend`.
            keep: Says which tokens stay; None: all.

        Returns:
            `[tokens left, hidden]` and their layout.
        """
        if bias is not None and self.heads_of_bias is not None:
            bias = bias[self.heads_of_bias]
        given = self.attention_norm(hidden) if self.pre else hidden
        context, scores = self.attention.context(given, rows, bias, None if keep is None else keep.score)
        if keep is not None:
            index, rows = keep(scores, hidden, rows)
            hidden, context = hidden.index_select(0, index), context.index_select(0, index)
        hidden = hidden + self.dropout(self.attention.output(context))
        if self.pre:
            return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden))), rows
        hidden = self.attention_norm(hidden)
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden))), rows
