"""The transformer: embeddings, a stack of blocks, the heads that may answer along the way, a second stack.

The stack runs on a ragged batch and calls `after_layer` between layers. The training form passes a callable
that records every exit's answer; the running form passes one that lets finished rows leave. Neither is known
here.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from lessen.errors import PlanError
from lessen.model.architecture import Architecture
from lessen.model.block import Block
from lessen.model.causal import Memory
from lessen.model.cross import Source
from lessen.model.embeddings import Embeddings
from lessen.model.few_bits import Int8Embedding, Int8Weights
from lessen.model.heads import Head
from lessen.model.language_heads import LanguageHead
from lessen.model.latent import LatentEmbedding, LatentLinear, start_scales
from lessen.model.linear import Linear, multiply
from lessen.model.matrices import weights_of
from lessen.model.norms import norm
from lessen.model.rows import Rows
from lessen.model.stack import AfterLayer, Decoder, InLayer, relative_bias, run_layers
from lessen.model.vocabulary import ShortList, Vocabulary
from lessen.plan import LayerShape, Shape

__all__ = ["AfterLayer", "InLayer", "Transformer", "initialise", "parameter_counts"]


class Transformer(nn.Module):
    """An encoder or decoder of the given architecture with the weights its Shape says exist.

    Of an encoder-decoder model it is the encoder, which `forward` runs; `decoder` reads what comes of that.

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
        self.relative_bias = relative_bias(architecture)
        blocks = shape.layers[:1] if architecture.shared_layers else shape.layers
        self.layers = nn.ModuleList(Block(architecture, layer, shape.latent) for layer in blocks)
        self.final_norm = norm(architecture) if architecture.norm_place == "pre" else None
        self.language_head: Linear | Int8Weights | None = None
        if architecture.language_head == "own":
            kind = Int8Weights if shape.embedding_bits == 8 else Linear
            self.language_head = kind(hidden, architecture.vocab_size, bias=False)
        self.exits = nn.ModuleDict(
            {str(exit.layer): Head(hidden, outputs, exit, architecture.dropout) for exit in shape.exits}
        )
        self.language_exits = nn.ModuleDict(
            {str(exit.layer): LanguageHead(architecture, exit) for exit in shape.language_exits}
        )
        writer = architecture.decoder
        self.decoder = None if writer is None else Decoder(writer, shape.decoder_layers, shape.latent)
        self._short_lists: list[ShortList] = []
        if shape.few_bits and shape.latent is None:  # norms would ask for gradients through what has none
            self.requires_grad_(False)

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
        memory: Sequence[Memory] | None = None,
        asked: Collection[int] | None = None,
    ) -> tuple[Tensor, Rows]:
        """Run the stack on a ragged batch.

        Args:
            ids: Token ids `[tokens]`.
            rows: Layout of the batch.
            segments: Segment ids `[tokens]`, or None for all zero.
            after_layer: Asked after each layer which rows go on, and with what hidden states.
            in_layer: Asked before each layer whether tokens leave in it.
            memory: Of earlier tokens of the rows, for each layer; None: the rows begin here.
            asked: After which layers (1-based) `after_layer` is asked; all if None. Those between may run in
                one call.

        Returns:
            Hidden states `[tokens left, hidden]` and their layout; no rows are left if all of them exited.
        """
        hidden = self.embeddings(ids, rows, segments)
        return self.stack(hidden, rows, after_layer, in_layer, memory, asked=asked)

    def stack(
        self,
        hidden: Tensor,
        rows: Rows,
        after_layer: AfterLayer | None = None,
        in_layer: InLayer | None = None,
        memory: Sequence[Memory] | None = None,
        layers: range | None = None,
        asked: Collection[int] | None = None,
    ) -> tuple[Tensor, Rows]:
        """Run the layers on what the embeddings, or the layers before, returned.

        Args:
            hidden: `[tokens, hidden]`.
            rows: As in `forward`.
            after_layer: As in `forward`.
            in_layer: As in `forward`.
            memory: As in `forward`; for all layers, also where only some run.
            layers: Which of them (0-based) to run; all if None.
            asked: As in `forward`.

        Returns:
            As `forward`; normed once more after the last layer, where the architecture has such a norm.
        """
        return run_layers(self, hidden, rows, after_layer, in_layer, memory, layers, asked=asked)

    @property
    def writer(self) -> Transformer | Decoder:
        """The layers whose last states name the next token: the decoder's, or all there are."""
        return self if self.decoder is None else self.decoder

    def write(
        self,
        ids: Tensor,
        rows: Rows,
        in_layer: InLayer | None = None,
        memory: Sequence[Memory] | None = None,
        source: Source | None = None,
        after_layer: AfterLayer | None = None,
    ) -> tuple[Tensor, Rows]:
        """Last states of the tokens of a text that is being written, for `next_token`.

        Args:
            ids: Token ids `[tokens]`; of an encoder-decoder model the decoder's.
            rows: Their layout.
            in_layer: As in `forward`; a decoder that reads an encoder has none.
            memory: Of earlier tokens and the source, for each layer that writes; None: the rows begin here.
            source: What a decoder reads, where there is no memory.
            after_layer: As in `forward`, of the layers that write.

        Returns:
            `[tokens left, hidden]`, and their layout.
        """
        if self.decoder is None:
            return self(ids, rows, None, after_layer, in_layer, memory)
        return self.decoder(self.embeddings(ids, rows), rows, memory, source, after_layer)

    def next_token(self, hidden: Tensor) -> Tensor:
        """From last hidden states `[tokens, hidden]` to logits of the token after each.

        Returns:
            `[tokens, vocabulary]`, float32 or wider.

        Raises:
            PlanError: When the model has no language head.
        """
        if (scale := self.architecture.language_head_scale) != 1:
            hidden = hidden * scale
        if self.language_head is not None:
            logits = self.language_head(hidden)
        elif isinstance(self.embeddings.token, Int8Embedding):
            logits = self.embeddings.token.activated(hidden, None)
        else:
            logits = multiply(hidden, self.vocabulary_matrix)
        return logits.float() if logits.dtype.itemsize < 4 else logits

    @property
    def vocabulary_matrix(self) -> Tensor:
        """What `next_token` multiplies by, `[vocabulary, hidden]`: the language head's, or the token table.

        Where it is int8, its rows count `vocabulary_scales` times.

        Raises:
            PlanError: When the model has no language head.
        """
        if self.language_head is not None:
            return self.language_head.weight
        if self.architecture.language_head == "tied":
            return _table_as_head(self.embeddings)
        raise PlanError("the model has no language head, so it cannot name a next token")

    @property
    def vocabulary(self) -> Vocabulary:
        """From last hidden states to logits, as heads may share it."""
        return Vocabulary(self.next_token, self.vocabulary_matrix, self.vocabulary_scales, self._short_lists)

    @property
    def vocabulary_scales(self) -> Tensor | None:
        """Factors of the rows of `vocabulary_matrix`, `[vocabulary]`, where it has 8 bits."""
        head = self.embeddings.token if self.language_head is None else self.language_head
        return head.scales if isinstance(head, Int8Weights) else None


def _table_as_head(embeddings: Embeddings) -> Tensor:
    table = embeddings.token
    if not isinstance(table, nn.Embedding | Int8Embedding):
        raise PlanError("a token table of one bit cannot be the language head too")
    if embeddings.project is not None or embeddings.widen is not None:
        raise PlanError("a token table of another width than the layers cannot be the language head too")
    return table.weight


KINDS = {(32, 32), (8, 8), (8, 32), (4, 8), (1, 32), (1, 8), (1, 1)}
"""Bits of weights and of activations that there are products for."""


def _refuse_what_is_not_built(shape: Shape) -> None:
    """The schema has room for all axes; refuse what this version cannot build rather than build it wrong."""
    for field, layers in (("layers", shape.layers), ("decoder_layers", shape.decoder_layers)):
        for place, layer in enumerate(layers):
            if (layer.bits, layer.activation_bits) not in KINDS:
                raise PlanError(
                    f"shape.{field}[{place}]: weights of {layer.bits} bits times activations of "
                    f"{layer.activation_bits} cannot be computed; there is 32 x 32, 8 x 8 or 32, 4 x 8, "
                    "1 x 32, 8 or 1"
                )
    if any(layer.bits == 1 for layer in shape.decoder_layers):
        raise PlanError("shape.decoder_layers: a decoder that reads an encoder has no weights of 1 bit")
    if shape.embedding_bits not in (32, 8, 1):
        raise PlanError(f"shape.embedding_bits: {shape.embedding_bits}, but a table has 32 bits, 8 or 1")


def _refuse_what_does_not_fit(architecture: Architecture, shape: Shape) -> None:
    alike = [layer.model_copy(update={"layer": 0}) for layer in shape.layers]
    if architecture.shared_layers and any(layer != alike[0] for layer in alike):
        raise PlanError("shape.layers: one block is all layers of this architecture, so they must be alike")
    if bool(shape.decoder_layers) != bool(architecture.num_decoder_layers):
        count = architecture.num_decoder_layers
        raise PlanError(f"shape.decoder_layers: {len(shape.decoder_layers)}, the architecture has {count}")
    _refuse_layers("layers", shape.layers, architecture.num_hidden_layers, architecture)
    _refuse_layers("decoder_layers", shape.decoder_layers, architecture.num_decoder_layers, architecture)
    if shape.language_exits and architecture.language_head is None:
        raise PlanError("shape.language_exits: the architecture has no language head, so it names no tokens")
    if shape.language_exits and architecture.norm_place != "pre":
        raise PlanError("shape.language_exits: they copy the norm after the last layer, and there is none")
    for place, exit in enumerate(shape.language_exits):
        if exit.words is not None and exit.words >= architecture.vocab_size:
            raise PlanError(
                f"shape.language_exits[{place}].words: {exit.words}, but the vocabulary has "
                f"{architecture.vocab_size}; a short list has fewer"
            )


def _refuse_layers(field: str, layers: Sequence[LayerShape], count: int, architecture: Architecture) -> None:
    for place, layer in enumerate(layers):
        if layer.layer >= count:
            raise PlanError(
                f"shape.{field}[{place}].layer: {layer.layer}, but the architecture has "
                f"{count} layers, numbered from 0"
            )
        if place == 0 and not layer.heads and (architecture.causal or field == "decoder_layers"):
            raise PlanError(
                f"shape.{field}[0].heads: none, but tokens that were read are counted by what this layer "
                "keeps of them"
            )
        if not _are_whole_groups(layer.heads, architecture.shared_heads):
            raise PlanError(
                f"shape.{field}[{place}].heads: {architecture.shared_heads} neighbouring heads share keys "
                "and values; they stay or leave together"
            )
        if layer.heads and layer.heads[-1] >= architecture.num_attention_heads:
            raise PlanError(
                f"shape.{field}[{place}].heads: {layer.heads[-1]}, but the architecture has "
                f"{architecture.num_attention_heads} heads, numbered from 0"
            )


def _are_whole_groups(heads: Sequence[int], size: int) -> bool:
    """Whether heads, ascending, are runs of `size` that begin at a multiple of it."""
    begins = range(0, len(heads), size)
    runs = [tuple(range(heads[begin], heads[begin] + size)) for begin in begins]
    return tuple(itertools.chain(*runs)) == tuple(heads) and all(run[0] % size == 0 for run in runs)


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
        elif isinstance(part, nn.RMSNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, LatentLinear | LatentEmbedding):
            start_scales(part)


def parameter_counts(model: Transformer) -> dict[str, int]:
    """Number of parameters: in all, in the layers alone (the encoder), in embeddings and in exit heads.

    A language head of its own counts with the embeddings; a tied one is counted once. Of an encoder-decoder
    model the decoder's are counted too.
    """
    head = 0 if model.language_head is None else weights_of(model.language_head)
    decoder = {} if model.decoder is None else {"decoder": weights_of(model.decoder.layers)}
    return {
        "total": weights_of(model),
        "encoder": weights_of(model.layers),
        **decoder,
        "embeddings": weights_of(model.embeddings) + head,
        "exits": weights_of(model.exits) + weights_of(model.language_exits),
    }
