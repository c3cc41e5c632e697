"""Whether there are kernels, and when they may stand in for torch's operators."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from lessen.errors import LessenWarning
from lessen.native.binding import opened, switched_off
from lessen.native.library import Native


def native() -> Native | None:
    """The kernels, or None."""
    return _loaded()[0]


def native_for(values: Tensor, *, narrow: bool = False) -> Native | None:
    """The kernels if they may stand in for torch's operators on such values, else None.

    They do in float32 on a CPU, outside of training, autocast, compilation and tracing.

    Args:
        values: To be computed with.
        narrow: Whether bfloat16 will do too.
    """
    if values.dtype != torch.float32 and not (narrow and values.dtype == torch.bfloat16):
        return None
    if not values.is_cpu or torch.is_grad_enabled():
        return None
    return None if torch.is_autocast_enabled("cpu") or recorded() else native()


def recorded() -> bool:
    """Whether torch compiles, traces, or lets a mode see its operators, and so must see them all."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return True
    return bool(torch._C._len_torch_dispatch_stack() > 0)


def why_not() -> str | None:
    """Why `native()` is None, in a few words."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[Native | None, str | None]:
    library, why = opened()
    if why is not None and not switched_off():
        warnings.warn(
            f"the kernels are not used ({why}); torch computes in their place, which is slower",
            LessenWarning,
            stacklevel=2,
        )
    return None if library is None else Native(library), why
