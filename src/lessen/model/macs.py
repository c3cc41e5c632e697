"""Multiply-accumulate operations, exactly: matrix products only, counted for each row's own length.

Embedding lookups, norms, activations, softmax and residual sums are not counted; every exit head that is
evaluated is. `docs/measuring.md` has the definition in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lessen.model.architecture import Architecture
from lessen.plan import ExitShape, LanguageExitShape, LayerShape, Shape

BRANCHES = {"ffn": (1, 1), "slfn": (2, 2), "slfn_lstm": (3, 1), "gated": (2, 1)}
"""How often the inner width of each feed-forward form is made, and read."""


def layer_macs(
    architecture: Architecture, layer: LayerShape, tokens: int, left: int | None = None, before: int = 0
) -> int:
    """One layer on one row: projections, scores, context; then output and feed-forward on the tokens left.

    Args:
        architecture: Family facts.
        layer: What exists of it.
        tokens: That enter it.
        left: That leave it; all if None.
        before: Tokens remembered of the row, which those that enter attend to as well.
    """
    hidden, neurons, rank = architecture.hidden_size, layer.intermediate_size, layer.rank
    inner = len(layer.heads) * architecture.head_dim
    stay = tokens if left is None else left
    projected = inner + 2 * inner // architecture.shared_heads
    attention = matrix_macs(hidden, projected, rank.qkv) * tokens
    attention += attention_macs(architecture, layer, tokens, before)
    after = matrix_macs(inner, hidden, rank.attention_output)
    ups, downs = BRANCHES[architecture.feed_forward]
    widening = matrix_macs(hidden, ups * neurons, rank.up)
    return attention + stay * (after + widening + downs * matrix_macs(neurons, hidden, rank.down))


def attention_macs(architecture: Architecture, layer: LayerShape, tokens: int, before: int = 0) -> int:
    """Scores and context alone of one layer on one row; arguments as in `layer_macs`."""
    pairs = tokens * before + (tokens * (tokens + 1) // 2 if architecture.causal else tokens**2)
    return 2 * len(layer.heads) * architecture.head_dim * pairs


def matrix_macs(inputs: int, outputs: int, rank: int | None = None) -> int:
    """One token through one matrix, or through the two of a rank."""
    return inputs * outputs if rank is None else rank * (inputs + outputs)


def head_macs(architecture: Architecture, exit: ExitShape, outputs: int) -> int:
    """One exit head on one row."""
    hidden = architecture.hidden_size
    if exit.hidden_size is None:
        return hidden * outputs
    return hidden * exit.hidden_size + exit.hidden_size * outputs


def token_macs(architecture: Architecture, shape: Shape, before: int) -> int:
    """One token of a generator, from its id to the logits of the next.

    Args:
        architecture: Family facts, of a causal model.
        shape: What exists.
        before: Tokens that stand before it in its row.
    """
    layers = sum(writing_macs(architecture, shape, before))
    widened = (shape.embedding_rank or 0) * architecture.embedding_size
    return widened + layers + matrix_macs(architecture.hidden_size, architecture.vocab_size)


def writing_macs(architecture: Architecture, shape: Shape, before: int = 0, source: int = 0) -> list[int]:
    """One token in each of the layers that write: a causal model's, or a decoder's, what it reads included.

    Args:
        architecture: Family facts.
        shape: What exists.
        before: Tokens that stand before it in its row.
        source: Tokens of its source that an encoder left.
    """
    writes = architecture.decoder
    if writes is None:
        return [layer_macs(architecture, layer, 1, before=before) for layer in shape.layers]
    width = architecture.hidden_size + source
    return [
        layer_macs(writes, layer, 1, before=before) + 2 * len(layer.heads) * writes.head_dim * width
        for layer in shape.decoder_layers
    ]


def skipped_layer_macs(architecture: Architecture, layer: LayerShape) -> int:
    """Keys and values alone, of one token that left before a layer (`CausalAttention.remember`).

    Where the matrix is stored as two, or in few bits, it is multiplied by as a whole.
    """
    inner = len(layer.heads) * architecture.head_dim
    keys = 2 * inner // architecture.shared_heads
    in_part = layer.rank.qkv is None and layer.bits == 32
    return matrix_macs(architecture.hidden_size, keys if in_part else inner + keys, layer.rank.qkv)


def source_macs(architecture: Architecture, shape: Shape) -> int:
    """Keys and values a decoder makes of one token of its encoder's output, in all layers, once for a text.

    Args:
        architecture: Family facts, of an encoder-decoder model.
        shape: What exists.
    """
    width, dim = architecture.hidden_size, architecture.head_dim
    return sum(matrix_macs(width, 2 * len(layer.heads) * dim) for layer in shape.decoder_layers)


def decoder_token_macs(architecture: Architecture, shape: Shape, before: int, source: int) -> int:
    """One token of a decoder that reads an encoder, from its id to the logits of the next.

    Args:
        architecture: Family facts, of an encoder-decoder model.
        shape: What exists.
        before: Tokens that stand before it in its row.
        source: Tokens of its source that the encoder left.
    """
    layers = sum(writing_macs(architecture, shape, before, source))
    widened = (shape.embedding_rank or 0) * architecture.embedding_size
    return widened + layers + matrix_macs(architecture.hidden_size, architecture.vocab_size)


class LanguageHeadMacs(NamedTuple):
    """MACs of one language exit on one token: always, and where a probe lets it pass."""

    always: int
    passing: int


def language_head_macs(architecture: Architecture, exit: LanguageExitShape) -> LanguageHeadMacs:
    """What a language exit costs a token (self-supervised exits page, 1.3)."""
    width = architecture.hidden_size
    whole = matrix_macs(width, architecture.vocab_size)
    correction = 0 if exit.rank is None else matrix_macs(width, width, exit.rank)
    if exit.kind == "gate":
        return LanguageHeadMacs(width, correction + whole)
    if exit.words is not None:
        return LanguageHeadMacs(correction + matrix_macs(width, exit.words + 1), 0)
    return LanguageHeadMacs(correction + whole, 0)


def early_token_macs(
    architecture: Architecture,
    shape: Shape,
    leaving: Sequence[float],
    passing: Sequence[float] | None = None,
    before: int = 0,
    source: int = 0,
) -> float:
    """One token on average, where some leave early and nothing of the layers they skip is computed.

    That is what skipping costs without a cache, or without the later layers' keys and values; with a cache in
    which those are filled in afterwards, layers run for all tokens, in fewer passes.

    Args:
        architecture: Family facts.
        shape: What exists.
        leaving: Share of all tokens that leave at each language exit, shallowest first.
        passing: Share of the tokens that reach an exit and pass its probe; 1 each if None.
        before: Tokens that stand before it.
        source: As in `writing_macs`.
    """
    layers = writing_macs(architecture, shape, before, source)
    total, reaching, place = (shape.embedding_rank or 0) * float(architecture.embedding_size), 1.0, 0
    for index, (exit, share) in enumerate(zip(shape.language_exits, leaving, strict=True)):
        head = language_head_macs(architecture, exit)
        total += reaching * (sum(layers[place : exit.layer]) + head.always)
        total += reaching * head.passing * (1.0 if passing is None else passing[index])
        reaching, place = reaching - share, exit.layer
    whole = matrix_macs(architecture.hidden_size, architecture.vocab_size)
    return total + reaching * (sum(layers[place:]) + whole)


def block_equivalents(
    architecture: Architecture,
    shape: Shape,
    leaving: Sequence[float],
    passing: Sequence[float] | None = None,
    before: int = 0,
    source: int = 0,
) -> float:
    """The same in layers: how many of the mean layer a token costs, the matrix to the vocabulary included."""
    layers = writing_macs(architecture, shape, before, source)
    total = early_token_macs(architecture, shape, leaving, passing, before, source)
    return total * len(layers) / sum(layers)


def row_macs(
    architecture: Architecture,
    shape: Shape,
    outputs: int,
    tokens: int,
    *,
    layers: int | None = None,
    heads: Sequence[int] | None = None,
    left: Sequence[int] | None = None,
) -> int:
    """One row from its embeddings to its answer.

    Args:
        architecture: Family facts.
        shape: What exists.
        outputs: Outputs of a head.
        tokens: Length of the row.
        layers: Layers the row goes through; all if None.
        heads: Depths of the exit heads evaluated on the way, the answering one included; only the last if
            None.
        left: Tokens that leave each layer; all if None.
    """
    depth = len(shape.layers) if layers is None else layers
    total = (shape.embedding_rank or 0) * architecture.embedding_size * tokens
    if architecture.embedding_size != architecture.hidden_size:
        total += architecture.embedding_size * architecture.hidden_size * tokens
    leaving = [tokens] * depth if left is None else list(left)
    entering = [tokens, *leaving]
    total += sum(
        layer_macs(architecture, layer, before, after)
        for layer, before, after in zip(shape.layers[:depth], entering, leaving, strict=False)
    )
    places = [exit.layer for exit in shape.exits[-1:]] if heads is None else heads
    by_place = {exit.layer: exit for exit in shape.exits}
    return total + sum(head_macs(architecture, by_place[place], outputs) for place in places)
