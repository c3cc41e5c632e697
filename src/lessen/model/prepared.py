"""What kernels make of modules, kept for as long as their tensors stay the same and nobody watches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from lessen.model.few_bits import FewBits
from lessen.model.linear import Linear
from lessen.native import MatrixOf, Native
from lessen.native.matrix import Kind

Made = TypeVar("Made")


class Prepared(Generic[Made]):
    """One call of the kernels in place of several modules.

    Args:
        make: Makes it.
        wholes: Modules that are passed over when their parts run in one call.
        parts: Those whose tensors are read.
        kinds: What parts may be, besides matrices of few bits.
        narrow: Whether their tensors may be bfloat16.
    """

    def __init__(
        self,
        make: Callable[[Native], Made],
        wholes: Sequence[nn.Module],
        parts: Sequence[nn.Module],
        kinds: tuple[type[nn.Module], ...],
        *,
        narrow: bool = False,
    ) -> None:
        self.make, self.wholes, self.parts = make, wholes, parts
        self.kinds, self.narrow = kinds, narrow
        self.in_float = any(type(part) is Linear for part in parts)
        self.made: Made | None = None
        self.kernels: Native | None = None
        self.marks: list[int] = []
        self.held: list[object] = []  # or another object could get the number one of them had

    def ready(self, kernels: Native) -> Made | None:
        """What was made for these kernels; None where they cannot read it, or somebody watches a module."""
        marks = self._marks()
        if marks is None:
            return None
        if self.kernels is not kernels or marks != self.marks:
            self.made = self.make(kernels) if self._can_be_read() else None
            self.kernels, self.marks = kernels, self._marks() or []  # making it may have made weights ready
            self.held = [part._ready for part in self.parts if isinstance(part, FewBits)]
        return self.made

    def _marks(self) -> list[int] | None:
        """Where the tensors lie, and what was made of them; None if somebody watches a module.

        It is asked at every call, so it asks for no more than it needs. Of bfloat16 copies may have been
        made, so versions count too.
        """
        for whole in self.wholes:
            if whole._forward_hooks or whole._forward_pre_hooks:
                return None
        marks = []
        for part in self.parts:
            if part._forward_hooks or part._forward_pre_hooks:
                return None
            for tensor in part._parameters.values():
                if tensor is not None:
                    marks.append(tensor.data_ptr())
                    if tensor.dtype is not torch.float32 and tensor.is_floating_point():
                        marks.append(tensor._version)
            if isinstance(part, FewBits):
                marks.append(id(part._ready))
        return marks

    def _can_be_read(self) -> bool:
        for part in self.parts:
            if type(part) not in self.kinds and not isinstance(part, FewBits):
                return False
            for tensor in part._parameters.values():
                if tensor is None:
                    continue
                if not tensor.numel() or not tensor.is_contiguous():
                    return False
                wide = not tensor.is_floating_point() or tensor.dtype == torch.float32
                if not wide and not (self.narrow and tensor.dtype == torch.bfloat16):
                    return False
        return True


def matrix_of(part: nn.Module, kernels: Native) -> MatrixOf:
    """A matrix as the kernels take it."""
    if isinstance(part, FewBits):
        weight, bias = part.made_ready(kernels)
        return MatrixOf(part.kind, weight, part.scales, bias, part.in_features, part.out_features)
    assert isinstance(part, Linear)
    kind: Kind = "bf16" if part.weight.dtype == torch.bfloat16 else None
    bias = None if part.bias is None else part.bias.float()
    return MatrixOf(kind, part.weight, None, bias, part.in_features, part.out_features)
