"""The model's own way from hidden states to tokens, as exits share it: all of it, or some of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lessen.model.few_bits import Int8Weights
from lessen.model.linear import multiply
from lessen.model.prepared import matrix_of
from lessen.native import MatrixOf, Native
from lessen.native.matrix import Kind
from lessen.native.state import state_of

Product = Callable[[Tensor], Tensor]
"""From `[tokens, hidden]` to `[tokens, rows]`."""


@dataclass(frozen=True)
class ShortList:
    """Some rows of a matrix, as they were when they were gathered.

    Attributes:
        words: Which rows.
        matrix: Of all words.
        state: Of the matrix, and its type.
        rows: `[words, hidden]`, or as a product where they have 8 bits.
    """

    words: Tensor
    matrix: Tensor
    state: tuple[tuple[int, int], torch.dtype]
    rows: Tensor | Int8Weights

    def stands(self, matrix: Tensor) -> bool:
        """Whether this is the matrix, unchanged."""
        return matrix is self.matrix and (state_of(matrix), matrix.dtype) == self.state

    def product(self, values: Tensor) -> Tensor:
        """`[tokens, hidden]` times the rows."""
        return self.rows(values) if isinstance(self.rows, Int8Weights) else multiply(values, self.rows)

    def matrix_of(self, kernels: Native) -> MatrixOf | None:
        """The rows as the kernels take them; None where they cannot."""
        if isinstance(self.rows, Int8Weights):
            return matrix_of(self.rows, kernels)
        if self.rows.dtype not in (torch.float32, torch.bfloat16) or not self.rows.numel():
            return None
        words, width = self.rows.shape
        kind: Kind = None if self.rows.dtype == torch.float32 else "bf16"
        return MatrixOf(kind, self.rows, None, None, width, words)


@dataclass(frozen=True)
class Vocabulary:
    """The model's own way from normed hidden states to logits, of all tokens and of short lists.

    Attributes:
        unembed: From `[tokens, hidden]` to `[tokens, vocabulary]`.
        matrix: What it multiplies by, `[vocabulary, hidden]`.
        scales: Of the matrix's rows, `[vocabulary]`, where it has 8 bits.
        lists: What was gathered before; changed in place.
    """

    unembed: Product
    matrix: Tensor
    scales: Tensor | None = None
    lists: list[ShortList] = field(default_factory=list)

    def listed(self, words: Tensor) -> ShortList:
        """Some of the matrix's rows.

        They are gathered once for all heads that have the same list, and again when the matrix has changed.

        Args:
            words: Token ids, `[words]`.
        """
        self.lists[:] = [known for known in self.lists if known.stands(self.matrix)]
        for known in self.lists:
            if torch.equal(known.words, words):
                return known
        state = state_of(self.matrix), self.matrix.dtype
        self.lists.append(ShortList(words.clone(), self.matrix, state, self._of_rows(words)))
        return self.lists[-1]

    def _of_rows(self, words: Tensor) -> Tensor | Int8Weights:
        rows = self.matrix.detach()[words]
        if self.scales is None:
            return rows
        few = Int8Weights(rows.shape[1], rows.shape[0], bias=False)
        few.load_state_dict({"weight": rows, "scales": self.scales.detach()[words]})
        return few
