"""An exit with a short list, asked in one call of the kernels: its matrices are small, its steps many."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from lessen.model.linear import Linear
from lessen.model.norms import NORMS, norm_of
from lessen.model.prepared import Prepared, can_read, matrix_of
from lessen.model.vocabulary import ShortList, Vocabulary
from lessen.native import Head, MatrixOf, Native
from lessen.native.matrix import NormOf
from lessen.native.state import state_of

if TYPE_CHECKING:
    from lessen.model.language_heads import LanguageHead


class _Parts(NamedTuple):
    """What of a head the kernels read, but for the rows of its words."""

    norm: NormOf
    correction: tuple[MatrixOf, MatrixOf] | None
    elsewhere: MatrixOf


class _Made(NamedTuple):
    """What the kernels are given, and of what it was made."""

    head: Head | None
    parts: _Parts
    words: Tensor
    state: tuple[int, int]
    listed: ShortList

    def of(self, parts: _Parts, words: Tensor, matrix: Tensor) -> bool:
        """Whether it was made of these, as they are now."""
        if self.parts is not parts or self.words is not words or self.state != state_of(words):
            return False
        return self.listed.stands(matrix)


class Ask:
    """What was made ready of a head for the kernels; anew when it, its list or the matrix changes.

    Args:
        head: With a short list.
    """

    def __init__(self, head: LanguageHead) -> None:
        assert head.elsewhere is not None
        self.head = head
        parts = (head.norm, head.down, head.up, head.elsewhere)
        self.read = [part for part in parts if part is not None]
        self.prepared: Prepared[_Parts] = Prepared()
        self.made: _Made | None = None

    def ready(self, kernels: Native, vocabulary: Vocabulary) -> Head | None:
        """The head for these kernels; None where they cannot compute it."""
        parts = self.prepared.ready(kernels, self._parts, lambda: (self.head, *self.read))
        words, made = self.head.words, self.made
        if parts is None:
            return None
        if made is not None and made.of(parts, words, vocabulary.matrix):
            return made.head
        listed = vocabulary.listed(words)
        rows = listed.matrix_of(kernels)
        head = None if rows is None else self._with(parts, rows)
        self.made = _Made(head, parts, words, state_of(words), listed)
        return head

    def _parts(self, kernels: Native) -> _Parts | None:
        head = self.head
        if not can_read(self.read, (Linear, *NORMS), narrow=True):
            return None
        assert head.elsewhere is not None
        correction = None
        if head.down is not None and head.up is not None:
            correction = matrix_of(head.down, kernels), matrix_of(head.up, kernels)
        return _Parts(norm_of(head.norm), correction, matrix_of(head.elsewhere, kernels))

    def _with(self, parts: _Parts, rows: MatrixOf) -> Head:
        rms = isinstance(self.head.norm, nn.RMSNorm)
        return Head(parts.norm, parts.correction, rows, parts.elsewhere, rms=rms, scale=self.head.scale)
