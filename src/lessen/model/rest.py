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
        self.made: LayerRest | None = None
        self.kernels: Native | None = None
        self.marks: list[int] = []

    def ready(self, kernels: Native, tokens: int) -> LayerRest | None:
        """The layer for these kernels, or None where they cannot compute it, or torch would be faster.

        Args:
            kernels: Whose.
            tokens: To be computed.
        """
        parts = self.parts
        if tokens > FEW_TOKENS and any(type(part) is Linear for part in parts.matrices()):
            return None
        if parts.activation not in ACTIVATIONS or any(type(norm) is not nn.LayerNorm for norm in parts.norms):
            return None
        marks = marks_of([parts.half], parts.matrices(), parts.norms, kernels)
        if marks is None:
            return None
        if self.made is None or self.kernels is not kernels or marks != self.marks:
            self.made, self.kernels, self.marks = _made(parts, kernels), kernels, marks
        return self.made


def marks_of(
    wholes: Sequence[nn.Module],
    matrices: Sequence[nn.Module],
    norms: Sequence[nn.Module],
    kernels: Native,
    *,
    narrow: bool = False,
) -> list[int] | None:
    """Where the tensors of a layer lie; None if one is not what the kernels read, or a module is watched.

    Args:
        wholes: Modules that are passed over when their parts are called in one.
        matrices: The parts that multiply.
        norms: The others.
        kernels: Whose.
        narrow: Whether tensors may be bfloat16. Of small ones copies are made, so their versions count too.
    """
    if any(_is_watched(whole) for whole in wholes):
        return None
    marks = []
    for part in (*matrices, *norms):
        if type(part) not in (Linear, nn.LayerNorm, nn.RMSNorm) and not isinstance(part, FewBits):
            return None
        if _is_watched(part):
            return None
        tensors: list[Tensor] = [tensor for tensor in part._parameters.values() if tensor is not None]
        for tensor in tensors:
            if not tensor.numel() or not tensor.is_contiguous():
                return None
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                if not narrow or tensor.dtype != torch.bfloat16:
                    return None
                marks.append(tensor._version)
        if isinstance(part, FewBits):
            tensors += [tensor for tensor in part.made_ready(kernels) if tensor is not None]
        marks += [tensor.data_ptr() for tensor in tensors]
    return marks


def _is_watched(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks)


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
