"""Notice that modules are no longer what something was made of; cheap enough to ask before every call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import attrgetter, contains, is_

import torch
from torch import Tensor, nn

from lessen.model.few_bits import FewBits

_DERIVED = attrgetter("_derived")
_VERSION = attrgetter("_version")


class Watch:
    """Modules as they are now.

    What is asked often is asked in loops of C: of a model of six layers, Python's own would take as long as a
    layer. The module that keeps this is not held on to, so that it goes when nobody else needs it.

    Args:
        modules: Those whose parts and tensors count; their parts' parts do where they are named too.
        keeper: The one of them that keeps this, if one does; whether it has a `forward` of its own is not
            looked at.
    """

    def __init__(self, modules: Iterable[nn.Module], keeper: nn.Module | None = None) -> None:
        watched = tuple(modules)
        self._hooks = [hooks for each in watched for hooks in (each._forward_hooks, each._forward_pre_hooks)]
        self._own = [vars(each) for each in watched if each is not keeper]
        self._parts_of = [each._modules for each in watched]
        self._tensors_of = [each._parameters for each in watched]
        self._few_bits = [each for each in watched if isinstance(each, FewBits)]
        self._parts = self._parts_now()
        self._tensors = self._tensors_now()
        self._ready = [*map(_DERIVED, self._few_bits)]
        self._held = [each for each in self._tensors if each is not None]
        # Matrices of few bits were arranged, and real numbers of other kinds may have been copied to float32.
        arranged = {id(each) for part in self._few_bits for each in part._parameters.values()}
        self._copied = [
            each
            for each in self._held
            if (id(each) in arranged or (each.dtype is not torch.float32 and each.is_floating_point()))
            and not each.is_inference()
        ]
        self._places = self._places_now()

    @property
    def observed(self) -> bool:
        """Whether somebody wants to see what goes in or out of one of them, or computes it in another way."""
        return any(self._hooks) or any(map(contains, self._own, repeat("forward")))

    def unchanged(self) -> bool:
        """Whether they have the parts and tensors they had, which lie where they lay.

        Tensors that were copied must also not have been written to.
        """
        return (
            _same(self._parts, self._parts_now())
            and _same(self._tensors, self._tensors_now())
            and _same(self._ready, [*map(_DERIVED, self._few_bits)])
            and self._places == self._places_now()
        )

    def _parts_now(self) -> list[nn.Module | None]:
        return [*chain.from_iterable(map(dict.values, self._parts_of))]

    def _tensors_now(self) -> list[Tensor | None]:
        return [*chain.from_iterable(map(dict.values, self._tensors_of))]

    def _places_now(self) -> list[int]:
        return [*map(Tensor.data_ptr, self._held), *map(_VERSION, self._copied)]


def _same(before: Sequence[object], now: Sequence[object]) -> bool:
    return len(before) == len(now) and all(map(is_, before, now))
