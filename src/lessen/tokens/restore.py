"""Answers for every token where some have left: each gets back the last state it had (Drop-and-Restore).

Needed by whatever reads all tokens: mean-pooled embeddings, labels for each token. Source: Length-Adaptive
Transformer (latency-adjustable page, 1.11).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lessen.errors import PlanError
from lessen.model.attention import Score
from lessen.model.block import Keep
from lessen.model.rows import Rows
from lessen.tokens.elimination import Elimination


@dataclass
class Restoring:
    """An elimination that remembers the states of the tokens it takes away; a transformer's `in_layer`.

    Attributes:
        elimination: What takes them away.
        rows: Layout of the whole batch.
    """

    elimination: Elimination
    rows: Rows
    _gone: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, layer: int, rows: Rows) -> Keep | None:
        """What decides in a layer, and notes the states that end there."""
        keep = self.elimination(layer, rows)
        return None if keep is None else _Noting(self, keep)

    def note(self, hidden: Tensor, rows: Rows, stay: Tensor) -> None:
        """Remember the states `[tokens, hidden]` of a layer's input but for those at index `stay`."""
        gone = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
        gone[stay] = False
        self._gone.append((self._places(rows)[gone], hidden[gone]))

    def restored(self, hidden: Tensor, rows: Rows) -> Tensor:
        """The last state of every token, `[tokens of the whole batch, hidden]`.

        Args:
            hidden: What the pass returned, `[tokens left, hidden]`.
            rows: Its layout.

        Raises:
            PlanError: When rows have left by an exit: their states are not among those the pass returned.
        """
        if missing := set(self.rows.original).difference(rows.original):
            raise PlanError(
                f"{len(missing)} of {len(self.rows)} rows left by an exit, and their tokens have no last "
                "state; restore states at a Point without exits"
            )
        places = [self._places(rows), *(place for place, _ in self._gone)]
        states = [hidden, *(state for _, state in self._gone)]
        whole = hidden.new_zeros(self.rows.tokens, *hidden.shape[1:])
        return whole.index_copy(0, torch.cat(places), torch.cat(states))

    def _places(self, rows: Rows) -> Tensor:
        """Where the tokens of a layout stand in the whole batch, `[tokens]`."""
        starts = dict(zip(self.rows.original, self.rows.first.tolist(), strict=True))
        first = torch.tensor([starts[row] for row in rows.original], device=rows.device)
        return first.repeat_interleave(torch.tensor(rows.lengths, device=rows.device)) + rows.positions


@dataclass(frozen=True)
class _Noting:
    restoring: Restoring
    keep: Keep

    @property
    def score(self) -> Score | None:
        return self.keep.score

    def __call__(self, scores: Tensor | None, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        index, left = self.keep(scores, hidden, rows)
        self.restoring.note(hidden, rows, index)
        return index, left
