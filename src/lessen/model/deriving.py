"""Modules that keep something made of their tensors: a laid-out matrix, a table by distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


def state_of(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor lies, and how often it was seen to be written to, as far as it tells.

    A tensor made in inference mode does not: of it only the place is known.
    """
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


class Deriving(nn.Module):
    """Forgets what was made of its tensors wherever they may change unseen, and does not save it.

    That is where they are moved or converted, loaded, or about to be trained. Changes that tensors themselves
    tell of are for subclasses to look for.
    """

    _derived: Any = None
    """What was made, and of what; None: nothing."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._derived = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._derived = None
        super()._load_from_state_dict(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; training forgets what was made."""
        if mode:
            self._derived = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_derived"}
