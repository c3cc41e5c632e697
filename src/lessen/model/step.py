"""A decoder's layer for a few new tokens, in one call of the kernels where they can compute all of it.

Reading its matrices is the work; what is between them is two dozen small operations, which in torch take as
long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from lessen.model.architecture import Architecture
from lessen.model.few_bits import FewBits
from lessen.model.linear import FEW_TOKENS, Linear
from lessen.model.rest import matrix_of
from lessen.native import DecoderLayer, Form, Native
from lessen.native.library import ACTIVATIONS


class StepParts(NamedTuple):
    """The modules of a decoder's layer.

    Attributes:
        halves: Attention and feed-forward as wholes.
        matrices: For queries, keys and values; of the attention's output; up; and down.
        norms: Before the two halves.
        head_norms: Of queries and keys, or none.
    """

    halves: tuple[nn.Module, nn.Module]
    matrices: tuple[nn.Module, nn.Module, nn.Module, nn.Module]
    norms: tuple[nn.Module, nn.Module]
    head_norms: tuple[nn.Module, ...]


class Step:
    """What was made ready of a layer, for as long as its tensors stay the same.

    Args:
        parts: Of the layer.
        architecture: Family facts.
        heads: Query heads the layer has.
    """

    def __init__(self, parts: StepParts, architecture: Architecture, heads: int) -> None:
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
        )
        self.made: DecoderLayer | None = None
        self.kernels: Native | None = None
        self.marks: list[int] = []

    def ready(self, kernels: Native, tokens: int) -> DecoderLayer | None:
        """The layer for these kernels, or None where they cannot compute it, or torch would be faster.

        Args:
            kernels: Whose.
            tokens: To be computed.
        """
        parts = self.parts
        if self.form.activation not in ACTIVATIONS:
            return None
        if tokens > FEW_TOKENS and any(type(part) is Linear for part in parts.matrices):
            return None
        norms = (*parts.norms, *parts.head_norms)
        marks = _marks(parts.halves, parts.matrices, norms, kernels)
        if marks is None:
            return None
        if self.made is None or self.kernels is not kernels or marks != self.marks:
            self.made, self.kernels, self.marks = self._made(kernels), kernels, marks
        return self.made

    def _made(self, kernels: Native) -> DecoderLayer:
        qkv, output, up, down = (matrix_of(part, kernels) for part in self.parts.matrices)
        first, second, *of_heads = (_norm(part) for part in (*self.parts.norms, *self.parts.head_norms))
        head_norms = (of_heads[0], of_heads[1]) if of_heads else None
        return DecoderLayer(self.form, (qkv, output, up, down), (first, second), head_norms)


def _marks(
    wholes: Sequence[nn.Module], matrices: Sequence[nn.Module], norms: Sequence[nn.Module], kernels: Native
) -> list[int] | None:
    """Where the tensors of a layer lie; None if one is not what the kernels read, or a module is watched.

    Tensors may be bfloat16. Of small ones copies are made, so their versions count too.

    Args:
        wholes: Modules that are passed over when their parts are called in one.
        matrices: The parts that multiply.
        norms: The others.
        kernels: Whose.
    """
    if any(whole._forward_hooks or whole._forward_pre_hooks for whole in wholes):
        return None
    marks = []
    for part in (*matrices, *norms):
        if type(part) not in (Linear, nn.LayerNorm, nn.RMSNorm) and not isinstance(part, FewBits):
            return None
        if part._forward_hooks or part._forward_pre_hooks:
            return None
        tensors: list[torch.Tensor] = [tensor for tensor in part._parameters.values() if tensor is not None]
        for tensor in tensors:
            if not tensor.numel() or not tensor.is_contiguous():
                return None
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                if tensor.dtype != torch.bfloat16:
                    return None
                marks.append(tensor._version)
        if isinstance(part, FewBits):
            tensors += [tensor for tensor in part.made_ready(kernels) if tensor is not None]
        marks += [tensor.data_ptr() for tensor in tensors]
    return marks


def _norm(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None, float]:
    if isinstance(norm, nn.RMSNorm):
        assert norm.eps is not None
        return norm.weight.float(), None, norm.eps
    assert isinstance(norm, nn.LayerNorm)
    return norm.weight.float(), norm.bias.float(), norm.eps
