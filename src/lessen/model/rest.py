"""The rest of a layer after its attention, in one call of the kernels where they can compute all of it.

It is a dozen small products and sums, and one call spares the overhead of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lessen.model.few_bits import FewBits
from lessen.model.linear import FEW_TOKENS, Linear
from lessen.native import LayerRest, MatrixOf, Native
from lessen.native.library import ACTIVATIONS, Kind


class Parts(NamedTuple):
    """The modules of a layer that run after its attention.

    Attributes:
        half: The feed-forward half as a whole.
        output: Of the attention.
        up: Of the feed-forward half.
        down: The same; of SLFN, that of the gate.
        learned: Of SLFN's other branch, or None.
        norms: After each of the two sums.
        activation: Its name; of the gate where there is one.
        centre: What `down` takes off its inputs.
    """

    half: nn.Module
    output: nn.Module
    up: nn.Module
    down: nn.Module
    learned: nn.Module | None
    norms: tuple[nn.Module, nn.Module]
    activation: str
    centre: float = 0.0

    def matrices(self) -> list[nn.Module]:
        """Those there are."""
        return [part for part in (self.output, self.up, self.down, self.learned) if part is not None]


class Rest:
    """What was made ready of a layer, for as long as its tensors stay the same.

    Args:
        parts: Of the layer.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.all = (*parts.matrices(), *parts.norms)
        self.in_float = any(type(part) is Linear for part in parts.matrices())
        self.made: LayerRest | None = None
        self.kernels: Native | None = None
        self.marks: list[int] = []
        self.held: list[object] = []  # or another object could get the number one of them had

    def ready(self, kernels: Native, tokens: int) -> LayerRest | None:
        """The layer for these kernels, or None where they cannot compute it, or torch would be faster.

        Args:
            kernels: Whose.
            tokens: To be computed.
        """
        if tokens > FEW_TOKENS and self.in_float:
            return None
        marks = self._marks()
        if marks is None:
            return None
        if self.kernels is not kernels or marks != self.marks:
            self.made = _made(self.parts, kernels) if _can_be_made(self.parts, self.all) else None
            self.kernels, self.marks = kernels, self._marks() or []  # making it may have made weights ready
            self.held = [part._ready for part in self.all if isinstance(part, FewBits)]
        return self.made

    def _marks(self) -> list[int] | None:
        """Where the tensors lie, and what was made of them; None if somebody watches a module.

        It is asked at every call of the layer, so it asks for no more than it needs.
        """
        if self.parts.half._forward_hooks or self.parts.half._forward_pre_hooks:
            return None
        marks = []
        for part in self.all:
            if part._forward_hooks or part._forward_pre_hooks:
                return None
            marks += [tensor.data_ptr() for tensor in part._parameters.values() if tensor is not None]
            if isinstance(part, FewBits):
                marks.append(id(part._ready))
        return marks


def _can_be_made(parts: Parts, modules: Sequence[nn.Module]) -> bool:
    """Whether the kernels can read all of it."""
    if parts.activation not in ACTIVATIONS:
        return False
    for part in modules:
        if type(part) is not Linear and type(part) is not nn.LayerNorm and not isinstance(part, FewBits):
            return False
        for tensor in part._parameters.values():
            if tensor is None:
                continue
            if not tensor.numel() or not tensor.is_contiguous():
                return False
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                return False
    return True


def _made(parts: Parts, kernels: Native) -> LayerRest:
    return LayerRest(
        matrix_of(parts.output, kernels),
        matrix_of(parts.up, kernels),
        matrix_of(parts.down, kernels),
        None if parts.learned is None else matrix_of(parts.learned, kernels),
        [_norm(norm) for norm in parts.norms],
        parts.activation,
        parts.centre,
    )


def matrix_of(part: nn.Module, kernels: Native) -> MatrixOf:
    """A matrix as the kernels take it."""
    if isinstance(part, FewBits):
        weight, bias = part.made_ready(kernels)
        return MatrixOf(part.kind, weight, part.scales, bias, part.in_features, part.out_features)
    assert isinstance(part, Linear)
    kind: Kind = "bf16" if part.weight.dtype == torch.bfloat16 else None
    bias = None if part.bias is None else part.bias.float()
    return MatrixOf(kind, part.weight, None, bias, part.in_features, part.out_features)


def _norm(norm: nn.Module) -> tuple[Tensor, Tensor, float]:
    assert isinstance(norm, nn.LayerNorm)
    return norm.weight, norm.bias, norm.eps
