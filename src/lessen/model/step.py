"""A decoder's layer for a few new tokens, in one call of the kernels where they can compute all of it.

Reading its matrices is the work; what is between them is two dozen small operations, which in torch take as
long.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn

from lessen.model.architecture import Architecture
from lessen.model.attention import stretch_of
from lessen.model.cross import CrossAttention
from lessen.model.linear import FEW_TOKENS, Linear
from lessen.model.norms import NORMS, norm_of
from lessen.model.prepared import Prepared, can_read, matrix_of
from lessen.native import DecoderLayer, Form, Native, Reading
from lessen.native.matrix import ACTIVATIONS


class StepParts(NamedTuple):
    """The modules of a decoder's layer.

    Attributes:
        halves: Attention and feed-forward as wholes.
        matrices: For queries, keys and values; of the attention's output; up; and down.
        norms: Before the two halves.
        head_norms: Of queries and keys, or none.
        cross: What reads a source, if the layer does.
        cross_norm: Before it.
    """

    halves: tuple[nn.Module, nn.Module]
    matrices: tuple[nn.Module, nn.Module, nn.Module, nn.Module]
    norms: tuple[nn.Module, nn.Module]
    head_norms: tuple[nn.Module, ...]
    cross: CrossAttention | None = None
    cross_norm: nn.Module | None = None

    def read(self) -> list[nn.Module]:
        """Those whose tensors the kernels read."""
        parts = [*self.matrices, *self.norms, *self.head_norms]
        if self.cross is not None and self.cross_norm is not None:
            parts += [self.cross.query, self.cross.output, self.cross_norm]
        return parts

    def wholes(self) -> list[nn.Module]:
        """Those that are passed over."""
        return [*self.halves] if self.cross is None else [*self.halves, self.cross]


class Step:
    """What was made ready of a layer.

    Args:
        parts: Of the layer.
        architecture: Family facts.
        heads: Query heads the layer has.
        of_bias: Which they were, where not all are left.
    """

    def __init__(
        self, parts: StepParts, architecture: Architecture, heads: int, of_bias: list[int] | None = None
    ) -> None:
        rotary = architecture.rotary
        self.parts = parts
        self.form = Form(
            heads=heads,
            key_heads=heads // architecture.shared_heads,
            dim=architecture.head_dim,
            turned=0 if rotary is None else 2 * len(rotary.inverse_frequencies),
            rms=architecture.norm == "rms",
            gated=architecture.feed_forward == "gated",
            parallel=architecture.parallel,
            activation=architecture.hidden_act,
            scale=stretch_of(architecture) / math.sqrt(architecture.head_dim),
        )
        self.of_bias = of_bias
        self.prepared = Prepared(self._made, lambda: (*parts.wholes(), *parts.read()))
        self.in_float = any(type(part) is Linear for part in parts.read())

    def ready(self, kernels: Native, tokens: int) -> DecoderLayer | None:
        """The layer for these kernels, or None where they cannot compute it, or torch would be faster.

        Args:
            kernels: Whose.
            tokens: To be computed.
        """
        if self.form.activation not in ACTIVATIONS or (tokens > FEW_TOKENS and self.in_float):
            return None
        return self.prepared.ready(kernels)

    def _made(self, kernels: Native) -> DecoderLayer | None:
        parts = self.parts
        if not can_read(parts.read(), (Linear, *NORMS), narrow=True):
            return None
        qkv, output, up, down = (matrix_of(part, kernels) for part in parts.matrices)
        first, second, *of_heads = (norm_of(part) for part in (*parts.norms, *parts.head_norms))
        head_norms = (of_heads[0], of_heads[1]) if of_heads else None
        reading = None
        if parts.cross is not None and parts.cross_norm is not None:
            query, found = matrix_of(parts.cross.query, kernels), matrix_of(parts.cross.output, kernels)
            reading = Reading(query, found, norm_of(parts.cross_norm))
        matrices = (qkv, output, up, down)
        return DecoderLayer(self.form, matrices, (first, second), head_norms, reading, self.of_bias)
