"""What kernels make of modules, kept for as long as their tensors stay the same and nobody watches them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from lessen.model.few_bits import FewBits
from lessen.model.linear import Linear
from lessen.model.watch import Watch
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
        self.watch: Watch | None = None

    def ready(self, kernels: Native) -> Made | None:
        """What was made for these kernels; None where they cannot read it, or somebody watches a module."""
        if self.watch is None or self.kernels is not kernels or not self.watch.unchanged():
            self.made = self.make(kernels) if can_read(self.parts, self.kinds, narrow=self.narrow) else None
            # Making it may have made weights ready.
            self.kernels, self.watch = kernels, Watch((*self.wholes, *self.parts))
        return None if self.watch.observed else self.made


def can_read(parts: Iterable[nn.Module], kinds: tuple[type[nn.Module], ...], *, narrow: bool = False) -> bool:
    """Whether the kernels can read all tensors of modules.

    Args:
        parts: The modules.
        kinds: What they may be, besides matrices of few bits.
        narrow: Whether their tensors may be bfloat16.
    """
    for part in parts:
        if type(part) not in kinds and not isinstance(part, FewBits):
            return False
        if isinstance(part, nn.LayerNorm) and (part.weight is None or part.bias is None):
            return False
        for tensor in part._parameters.values():
            if tensor is None:
                continue
            if not tensor.numel() or not tensor.is_contiguous() or tensor.device.type != "cpu":
                return False
            wide = not tensor.is_floating_point() or tensor.dtype == torch.float32
            if not wide and not (narrow and tensor.dtype == torch.bfloat16):
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
