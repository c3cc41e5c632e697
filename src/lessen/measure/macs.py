"""Multiply-accumulate operations, exactly: matrix products only, counted for each row's own length.

Embedding lookups, norms, activations, softmax and residual sums are not counted; every exit head that is
evaluated is. `docs/measuring.md` has the definition in words.
"""

from __future__ import annotations

from collections.abc import Sequence

from lessen.model.architecture import Architecture
from lessen.plan import ExitShape, LayerShape, Shape


def layer_macs(architecture: Architecture, layer: LayerShape, tokens: int) -> int:
    """One layer on one row: projections, scores, context, output, feed-forward."""
    hidden = architecture.hidden_size
    inner = len(layer.heads) * architecture.head_dim
    attention = 4 * hidden * inner * tokens + 2 * inner * tokens**2
    return attention + 2 * hidden * layer.intermediate_size * tokens


def head_macs(architecture: Architecture, exit: ExitShape, outputs: int) -> int:
    """One exit head on one row."""
    hidden = architecture.hidden_size
    if exit.hidden_size is None:
        return hidden * outputs
    return hidden * exit.hidden_size + exit.hidden_size * outputs


def row_macs(
    architecture: Architecture,
    shape: Shape,
    outputs: int,
    tokens: int,
    *,
    layers: int | None = None,
    heads: Sequence[int] | None = None,
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
    """
    depth = len(shape.layers) if layers is None else layers
    total = architecture.embedding_size * architecture.hidden_size * tokens
    if architecture.embedding_size == architecture.hidden_size:
        total = 0
    total += sum(layer_macs(architecture, layer, tokens) for layer in shape.layers[:depth])
    places = shape.exit_layers[-1:] if heads is None else heads
    by_place = {exit.layer: exit for exit in shape.exits}
    return total + sum(head_macs(architecture, by_place[place], outputs) for place in places)
