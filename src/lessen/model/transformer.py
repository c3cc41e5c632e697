"""The transformer: embeddings, a stack of blocks, and the heads that may answer along the way.

The stack runs on a ragged batch and calls `after_layer` between layers. The training form passes a callable
that records every exit's answer; the running form passes one that lets finished rows leave. Neither is known
here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lessen.errors import PlanError
from lessen.model.architecture import Architecture
from lessen.model.attention import RelativeBias
from lessen.model.block import Block, Keep
from lessen.model.dropout import Dropout
from lessen.model.heads import Head
from lessen.model.latent import LatentEmbedding, LatentLinear, start_scales
from lessen.model.linear import Linear
from lessen.model.matrices import table, weights_of
from lessen.model.rows import Rows
from lessen.plan import Shape

AfterLayer = Callable[[int, Tensor, Rows], tuple[Tensor, Rows]]
"""`after_layer(layer, hidden, rows)`, with the number of layers run (1-based), returns what goes on."""


InLayer = Callable[[int, Rows], Keep | None]
"""`in_layer(layer, rows)`, with the number of the layer about to run (1-based): what decides who stays."""


class Embeddings(nn.Module):
    """Token, position and segment tables, summed and normed; projected if narrower than the stack.

    The token table may be stored as a product: a narrow table, and a matrix that widens it; or in one bit.

    Attributes:
        word_dropout: Share of the tokens that are left out in training.
    """

    word_dropout = 0.0

    def __init__(self, architecture: Architecture, shape: Shape) -> None:
        super().__init__()
        width, rank = architecture.embedding_size, shape.embedding_rank
        self.offset = architecture.position_offset
        self.token = table(architecture.vocab_size, rank or width, shape.embedding_bits, shape.latent)
        self.widen = None if rank is None else Linear(rank, width, bias=False)
        self.position = nn.Embedding(architecture.max_position_embeddings, width)
        self.segment = (
            nn.Embedding(architecture.type_vocab_size, width) if architecture.type_vocab_size else None
        )
        self.norm = nn.LayerNorm(width, eps=architecture.norm_eps)
        self.dropout = Dropout(architecture.dropout)
        self.project = Linear(width, architecture.hidden_size) if width != architecture.hidden_size else None

    def forward(self, ids: Tensor, rows: Rows, segments: Tensor | None = None) -> Tensor:
        """Token ids `[tokens]` (and segment ids `[tokens]`, zero if None) to `[tokens, hidden]`."""
        hidden = self.token(ids)
        if self.widen is not None:
            hidden = self.widen(hidden)
        if self.training and self.word_dropout:
            hidden = hidden * (torch.rand(len(ids), 1, device=ids.device) >= self.word_dropout)
        hidden = hidden + self.position(rows.positions + self.offset)
        if self.segment is not None:
            hidden = hidden + (self.segment.weight[0] if segments is None else self.segment(segments))
        hidden = self.dropout(self.norm(hidden))
        return hidden if self.project is None else self.project(hidden)


class Transformer(nn.Module):
    """An encoder of the given architecture with the weights its Shape says exist.

    Args:
        architecture: Family facts.
        shape: Which layers, heads, neurons and exits there are.
        outputs: Number of outputs of each exit head; unused when the shape has no exits.
    """

    def __init__(self, architecture: Architecture, shape: Shape, outputs: int) -> None:
        super().__init__()
        _refuse_what_is_not_built(shape)
        _refuse_what_does_not_fit(architecture, shape)
        self.architecture = architecture
        self.shape = shape
        self.outputs = outputs
        hidden = architecture.hidden_size
        self.embeddings = Embeddings(architecture, shape)
        self.relative_bias = (
            RelativeBias(
                architecture.relative_buckets,
                architecture.relative_max_distance,
                architecture.num_attention_heads,
            )
            if architecture.position == "learned+relative"
            else None
        )
        blocks = shape.layers[:1] if architecture.shared_layers else shape.layers
        self.layers = nn.ModuleList(Block(architecture, layer, shape.latent) for layer in blocks)
        self.final_norm = (
            nn.LayerNorm(hidden, eps=architecture.norm_eps) if architecture.norm_place == "pre" else None
        )
        self.exits = nn.ModuleDict(
            {str(exit.layer): Head(hidden, outputs, exit, architecture.dropout) for exit in shape.exits}
        )

    @property
    def depth(self) -> int:
        """Layers an input goes through; there are fewer blocks where they are shared."""
        return len(self.shape.layers)

    def forward(
        self,
        ids: Tensor,
        rows: Rows,
        segments: Tensor | None = None,
        after_layer: AfterLayer | None = None,
        in_layer: InLayer | None = None,
    ) -> tuple[Tensor, Rows]:
        """Run the stack on a ragged batch.

        Args:
            ids: Token ids `[tokens]`.
            rows: Layout of the batch.
            segments: Segment ids `[tokens]`, or None for all zero.
            after_layer: Asked after each layer which rows go on, and with what hidden states.
            in_layer: Asked before each layer whether tokens leave in it.

        Returns:
            Hidden states `[tokens left, hidden]` and their layout; no rows are left if all of them exited.
        """
        return self.stack(self.embeddings(ids, rows, segments), rows, after_layer, in_layer)

    def stack(
        self,
        hidden: Tensor,
        rows: Rows,
        after_layer: AfterLayer | None = None,
        in_layer: InLayer | None = None,
    ) -> tuple[Tensor, Rows]:
        """Run the layers on what the embeddings returned, `[tokens, hidden]`; the rest as in `forward`."""
        longest = rows.lengths[-1]
        bias = None if self.relative_bias is None else self.relative_bias(longest).to(hidden.dtype)
        for number in range(1, self.depth + 1):
            block = self.layers[min(number, len(self.layers)) - 1]
            keep = None if in_layer is None else in_layer(number, rows)
            hidden, rows = block(hidden, rows, bias, keep)
            if number == self.depth and self.final_norm is not None:
                hidden = self.final_norm(hidden)
            if after_layer is not None:
                hidden, rows = after_layer(number, hidden, rows)
                if len(rows) == 0:
                    break
        return hidden, rows


def _refuse_what_is_not_built(shape: Shape) -> None:
    """The schema has room for all axes; refuse what this version cannot build rather than build it wrong."""
    for place, layer in enumerate(shape.layers):
        if (layer.bits, layer.activation_bits) not in ((32, 32), (8, 8), (1, 32), (1, 8), (1, 1)):
            raise PlanError(
                f"shape.layers[{place}]: weights of {layer.bits} bits times activations of "
                f"{layer.activation_bits} cannot be computed; there is 32 x 32, 8 x 8, and 1 x 32, 8 or 1"
            )
    if shape.embedding_bits not in (32, 1):
        raise PlanError(f"shape.embedding_bits: {shape.embedding_bits}, but a table has 32 bits or 1")


def _refuse_what_does_not_fit(architecture: Architecture, shape: Shape) -> None:
    alike = [layer.model_copy(update={"layer": 0}) for layer in shape.layers]
    if architecture.shared_layers and any(layer != alike[0] for layer in alike):
        raise PlanError("shape.layers: one block is all layers of this architecture, so they must be alike")
    for place, layer in enumerate(shape.layers):
        if layer.layer >= architecture.num_hidden_layers:
            raise PlanError(
                f"shape.layers[{place}].layer: {layer.layer}, but the architecture has "
                f"{architecture.num_hidden_layers} layers, numbered from 0"
            )
        if layer.heads and layer.heads[-1] >= architecture.num_attention_heads:
            raise PlanError(
                f"shape.layers[{place}].heads: {layer.heads[-1]}, but the architecture has "
                f"{architecture.num_attention_heads} heads, numbered from 0"
            )


@torch.no_grad()
def initialise(module: nn.Module, std: float = 0.02) -> None:
    """Draw weights as BERT does: normal with deviation `std`, zero biases, unit norms."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(mean=0.0, std=std)
            if isinstance(part, nn.Linear) and part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        if isinstance(part, LatentLinear | LatentEmbedding):
            start_scales(part)


def parameter_counts(model: Transformer) -> dict[str, int]:
    """Number of parameters: in all, in the layers alone (the encoder), in embeddings and in exit heads."""
    return {
        "total": weights_of(model),
        "encoder": weights_of(model.layers),
        "embeddings": weights_of(model.embeddings),
        "exits": weights_of(model.exits),
    }
