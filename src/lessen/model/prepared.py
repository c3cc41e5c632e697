"""What kernels make of modules, kept for as long as their tensors stay the same and nobody watches them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
from torch import nn

from lessen.model.few_bits import FewBits
from lessen.model.linear import Linear
from lessen.model.watch import Watch
from lessen.native import MatrixOf, Native
from lessen.native.matrix import Kind

Made = TypeVar("Made")
Settings = tuple[object, ...]


class Prepared(Generic[Made]):
    """One call of the kernels in place of several modules.

    It has no reference to the model whose modules these are, so that a model is freed as soon as nobody needs
    it.
    """

    def __init__(self) -> None:
        self._made: Made | None = None
        self._kernels: Native | None = None
        self._settings: Settings = ()
        self._watch: Watch | None = None

    def ready(
        self,
        kernels: Native,
        make: Callable[[Native], Made | None],
        modules: Callable[[], Iterable[nn.Module]],
        settings: Settings = (),
        keeper: nn.Module | None = None,
    ) -> Made | None:
        """What was made; None where the kernels cannot read the modules, or somebody watches one.

        Args:
            kernels: That will compute it.
            make: Makes it of modules as they are now; None where these kernels cannot read them.
            modules: Those whose parts and tensors it depends on, those that are passed over among them.
            settings: What it depends on besides modules and tensors, as it is now.
            keeper: The one of the modules that keeps this, if one does.
        """
        watch = self._watch
        if (
            watch is None
            or self._kernels is not kernels
            or self._settings != settings
            or not watch.unchanged()
        ):
            self._made = make(kernels)
            # Making it may have made weights ready.
            watch = self._watch = Watch(modules(), keeper)
            self._kernels, self._settings = kernels, settings
        return None if watch.observed else self._made


def can_read(parts: Iterable[nn.Module], kinds: tuple[type[nn.Module], ...], *, narrow: bool = False) -> bool:
    """Whether the kernels can read all tensors of modules.

    Args:
        parts: The modules.
        kinds: What they may be, besides matrices of few bits.
        narrow: Whether tensors that are not of few bits may be bfloat16.
    """
    for part in parts:
        if type(part) not in kinds and not isinstance(part, FewBits):
            return False
        if isinstance(part, nn.LayerNorm) and (part.weight is None or part.bias is None):
            return False
        if isinstance(part, nn.RMSNorm) and (part.weight is None or part.eps is None):
            return False
        for tensor in part._parameters.values():
            if tensor is None:
                continue
            if not tensor.numel() or not tensor.is_contiguous() or tensor.device.type != "cpu":
                return False
            wide = not tensor.is_floating_point() or tensor.dtype == torch.float32
            may_be_narrow = narrow and not isinstance(part, FewBits)
            if not wide and not (may_be_narrow and tensor.dtype == torch.bfloat16):
                return False
    return True


def matrix_of(part: nn.Module, kernels: Native) -> MatrixOf:
    """A matrix as the kernels take it."""
    if isinstance(part, FewBits):
        ready = part.made_ready(kernels)
        return MatrixOf(
            part.kind, ready.weight, ready.scales, ready.bias, part.in_features, part.out_features
        )
    assert isinstance(part, Linear)
    kind: Kind = "bf16" if part.weight.dtype == torch.bfloat16 else None
    bias = None if part.bias is None else part.bias.float()
    outputs, inputs = size_of(part)
    return MatrixOf(kind, part.weight, None, bias, inputs, outputs)


def size_of(part: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a matrix, as it is stored."""
    if isinstance(part, FewBits):
        return part.out_features, part.in_features
    assert isinstance(part, Linear)
    outputs, inputs = part.weight.shape
    return outputs, inputs
