"""Modules that keep something made of their tensors: a laid-out matrix, a table by distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


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
