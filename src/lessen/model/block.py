"""One transformer layer: attention, then feed-forward, each with its residual and norm."""

from __future__ import annotations

from typing import Protocol, TypeGuard

from torch import Tensor, nn

from lessen.model.architecture import Architecture
from lessen.model.attention import Attention, Score, stretch_of
from lessen.model.causal import CausalAttention, Memory
from lessen.model.cross import CrossAttention, Source
from lessen.model.dropout import Dropout
from lessen.model.feed_forward import feed_forward
from lessen.model.fused import Fused
from lessen.model.matrices import Numbers
from lessen.model.norms import norm
from lessen.model.relative import PositionBias, heads_left
from lessen.model.rotary import Rotation
from lessen.model.rows import Rows
from lessen.native import native_for
from lessen.plan import Latent, LayerShape


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


class Block(nn.Module):
    """A layer with its norms after each residual sum (post, as in BERT) or before each branch (pre).

    Branches follow one another, or with `parallel` both read the layer's input. A layer that `reads` an
    encoder's output does so in a branch of its own, between the other two.
    """

    def __init__(
        self,
        architecture: Architecture,
        shape: LayerShape,
        latent: Latent | None = None,
        *,
        reads: bool = False,
    ) -> None:
        super().__init__()
        numbers = Numbers.of(shape, latent)
        hidden = architecture.hidden_size
        self.pre = architecture.norm_place == "pre"
        self.parallel = architecture.parallel
        self.attention: Attention | CausalAttention
        if architecture.causal:
            self.attention = CausalAttention(architecture, shape, numbers)
        else:
            self.attention = Attention(
                hidden,
                len(shape.heads),
                architecture.head_dim,
                architecture.attention_dropout,
                shape.rank,
                numbers,
                architecture.biases,
                stretch_of(architecture),
                heads_left(architecture, shape),
            )
        self.attention_norm = norm(architecture)
        self.cross = CrossAttention(architecture, shape, numbers) if reads else None
        self.cross_norm = norm(architecture) if reads else None
        self.feed_forward = feed_forward(architecture, shape, numbers)
        self.feed_forward_norm = norm(architecture)
        self.dropout = Dropout(architecture.dropout)
        self.fused = Fused(architecture)

    def forward(
        self,
        hidden: Tensor,
        rows: Rows,
        bias: PositionBias | None = None,
        keep: Keep | None = None,
        rotation: Rotation | None = None,
        memory: Memory | None = None,
        source: Source | None = None,
    ) -> tuple[Tensor, Rows]:
        """One layer, in which tokens may leave once they have been attended to.

        Args:
            hidden: `[tokens, hidden]`.
            rows: Layout of the batch.
            bias: Of scores, of all original heads.
            keep: Says which tokens stay; None: all.
            rotation: Of each token, where positions are rotary.
            memory: Of earlier tokens of the rows, in causal models; None: there are none.
            source: What a layer that reads reads, where there is no memory of it.

        Returns:
            `[tokens left, hidden]` and their layout.
        """
        if memory is not None and keep is None:
            kernels = native_for(hidden, narrow=True)
            step = None if kernels is None else self.fused.step(self, kernels, len(hidden))
            if kernels is not None and step is not None and (room := memory.room(rows)) is not None:
                near = None if bias is None else bias.for_kernels(rows)
                return kernels.decoder_layers([step], [room], rotation, hidden, bias=near), rows
        given = self.attention_norm(hidden) if self.pre else hidden
        score = None if keep is None else keep.score
        if isinstance(self.attention, CausalAttention):
            context, scores = self.attention.context(given, rows, rotation, score, memory, bias)
        else:
            context, scores = self.attention.context(given, rows, bias, score)
        if keep is not None:
            index, rows = keep(scores, hidden, rows)
            hidden, context = hidden.index_select(0, index), context.index_select(0, index)
        kernels = native_for(hidden)
        if kernels is not None and (rest := self.fused.rest(self, kernels, len(hidden))):
            return kernels.layer_rest(rest, context, hidden), rows
        found = self.dropout(self.attention.output(context))
        if self.parallel:
            return hidden + found + self.dropout(self.feed_forward(self.feed_forward_norm(hidden))), rows
        hidden = hidden + found
        if self.cross is not None and self.cross_norm is not None:
            hidden = hidden + self.dropout(self.cross(self.cross_norm(hidden), rows, source, memory))
        if self.pre:
            return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden))), rows
        hidden = self.attention_norm(hidden)
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden))), rows


def is_plain(layer: nn.Module) -> TypeGuard[Block]:
    """Whether calling a layer is `Block.forward` and nothing else, so that it may be passed over."""
    if type(layer) is not Block or "forward" in vars(layer):
        return False
    return not layer._forward_hooks and not layer._forward_pre_hooks
