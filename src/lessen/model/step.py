"""A decoder's layer for a few new tokens, in one call of the kernels where they can compute all of it.

Reading its matrices is the work; what is between them is two dozen small operations, which in torch take as
long.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn

from lessen.model.architecture import Architecture
from lessen.model.causal import CausalAttention
from lessen.model.cross import CrossAttention
from lessen.model.linear import FEW_TOKENS, Linear
from lessen.model.norms import NORMS, norm_of
from lessen.model.prepared import Prepared, Settings, can_read, matrix_of
from lessen.model.rest import Parts, rest_of
from lessen.native import DecoderLayer, Form, Native, Reading
from lessen.native.matrix import ACTIVATIONS


class StepParts(NamedTuple):
    """The modules of a decoder's layer.

    Attributes:
        attention: As a whole.
        qkv: For its queries, keys and values.
        head_norms: Of queries and keys, or none.
        rest: What comes after it.
        cross: What reads a source, if the layer does.
        reading: The parts of that, and the norm before it.
    """

    attention: CausalAttention
    qkv: nn.Module
    head_norms: tuple[nn.Module, ...]
    rest: Parts
    cross: CrossAttention | None = None
    reading: tuple[nn.Module, nn.Module, nn.Module] | None = None

    def read(self) -> list[nn.Module]:
        """Those whose tensors the kernels read."""
        return [self.qkv, *self.head_norms, *self.rest.read(), *(self.reading or ())]

    def wholes(self) -> list[nn.Module]:
        """Those that are passed over."""
        return [each for each in (self.attention, self.rest.half, self.cross) if each is not None]


class Step:
    """What was made ready of a layer.

    Args:
        parts: Of the layer.
        architecture: Family facts.
    """

    def __init__(self, parts: StepParts, architecture: Architecture) -> None:
        rotary = architecture.rotary
        self.parts = parts
        self.turned = 0 if rotary is None else 2 * len(rotary.inverse_frequencies)
        self.parallel = architecture.parallel
        self.prepared = Prepared(self._made, lambda: (*parts.wholes(), *parts.read()))
        self.in_float = any(type(part) is Linear for part in parts.read())

    def ready(self, kernels: Native, tokens: int, settings: Settings) -> DecoderLayer | None:
        """The layer for these kernels, or None where they cannot compute it, or torch would be faster.

        Args:
            kernels: Whose.
            tokens: To be computed.
            settings: Of the layer, as in `Prepared`.
        """
        if tokens > FEW_TOKENS and self.in_float:
            return None
        return self.prepared.ready(kernels, settings)

    def _made(self, kernels: Native) -> DecoderLayer | None:
        parts = self.parts
        if parts.rest.activation not in ACTIVATIONS or not can_read(
            parts.read(), (Linear, *NORMS), narrow=True
        ):
            return None
        of_heads = [norm_of(part) for part in parts.head_norms]
        reading = None
        if parts.reading is not None:
            query, output, norm = parts.reading
            reading = Reading(matrix_of(query, kernels), matrix_of(output, kernels), norm_of(norm))
        attention = parts.attention
        form = Form(
            heads=attention.heads,
            key_heads=attention.key_heads,
            dim=attention.head_dim,
            turned=self.turned,
            parallel=self.parallel,
            scale=attention.stretch / math.sqrt(attention.head_dim),
            of_bias=None if attention.of_bias is None else tuple(attention.of_bias),
        )
        return DecoderLayer(
            form,
            matrix_of(parts.qkv, kernels),
            rest_of(parts.rest, kernels),
            (of_heads[0], of_heads[1]) if of_heads else None,
            reading,
        )
