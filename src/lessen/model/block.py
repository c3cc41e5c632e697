"""One transformer layer: attention, then feed-forward, each with its residual and norm."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.activations import ACT2FN

from lessen.model.architecture import Architecture
from lessen.model.attention import Attention
from lessen.model.linear import Linear
from lessen.model.rows import Rows
from lessen.plan import LayerShape


class FeedForward(nn.Module):
    """Two linear layers around an activation, applied to each token alone."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str) -> None:
        super().__init__()
        self.up = Linear(hidden_size, intermediate_size)
        self.activation = activation
        self.down = Linear(intermediate_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[tokens, hidden]` to the same; a layer put in the place of `up` is called as any other."""
        if type(self.up) is Linear:
            return self.down(self.up.activated(hidden, self.activation))
        return self.down(ACT2FN[self.activation](self.up(hidden)))


class Block(nn.Module):
    """A layer with its norms after each residual sum (post, as in BERT) or before each branch (pre)."""

    def __init__(self, architecture: Architecture, shape: LayerShape) -> None:
        super().__init__()
        hidden = architecture.hidden_size
        self.pre = architecture.norm_place == "pre"
        self.attention = Attention(
            hidden, len(shape.heads), architecture.head_dim, architecture.attention_dropout
        )
        self.attention_norm = nn.LayerNorm(hidden, eps=architecture.norm_eps)
        self.feed_forward = FeedForward(hidden, shape.intermediate_size, architecture.hidden_act)
        self.feed_forward_norm = nn.LayerNorm(hidden, eps=architecture.norm_eps)
        self.dropout = nn.Dropout(architecture.dropout)
        complete = len(shape.heads) == architecture.num_attention_heads
        self.heads_of_bias = None if complete else list(shape.heads)

    def forward(self, hidden: Tensor, rows: Rows, bias: Tensor | None = None) -> Tensor:
        """`[tokens, hidden]` to `[tokens, hidden]`; `bias` of all original heads, as in `attend`."""
        if bias is not None and self.heads_of_bias is not None:
            bias = bias[self.heads_of_bias]
        if self.pre:
            hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), rows, bias))
            return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))
        hidden = self.attention_norm(hidden + self.dropout(self.attention(hidden, rows, bias)))
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden)))
