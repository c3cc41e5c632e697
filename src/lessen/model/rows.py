"""The layout of a ragged batch: which stretch of a `[tokens, ...]` matrix belongs to which input row.

Rows are kept sorted by length, so that rows of equal length lie side by side and can be viewed as one dense
`[rows, length, ...]` tensor without copying and without padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lessen.errors import InputError


@dataclass(frozen=True)
class Group:
    """Neighbouring rows of one length: tokens `start .. start + count * length`."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.count * self.length

    def view(self, values: Tensor) -> Tensor:
        """The group's tokens as `[count, length, ...]`, sharing memory with `values`."""
        return values[self.start : self.stop].unflatten(0, (self.count, self.length))


@dataclass(frozen=True, eq=False)
class Rows:
    """Lengths of the rows in storage order (ascending) and the caller's index of each row.

    Attributes:
        lengths: Tokens of each row, ascending.
        original: For each stored row, its index in the batch the caller passed.
        device: Where the index tensors live.
        full: Tokens each row came with, if some have left since; None while all are there.
        kept: Of the tokens left, the position each had in its whole row, `[tokens]`, ascending within a row.
        gone: Sum of the last states of those that have left, `[rows, hidden]`, where a head will ask for it.
    """

    lengths: tuple[int, ...]
    original: tuple[int, ...]
    device: torch.device
    full: tuple[int, ...] | None = None
    kept: Tensor | None = None
    gone: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Number of tokens in the whole batch."""
        return self._bounds[-1]

    @property
    def even(self) -> bool:
        """Whether all rows are of one length, and a padded batch has no padding."""
        return self.lengths[0] == self.lengths[-1]

    @cached_property
    def _bounds(self) -> tuple[int, ...]:
        return (0, *itertools.accumulate(self.lengths))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Maximal runs of rows of equal length."""
        groups = []
        row = 0
        for length, run in itertools.groupby(self.lengths):
            count = sum(1 for _ in run)
            groups.append(Group(self._bounds[row], count, length))
            row += count
        return tuple(groups)

    def split(self, values: Tensor) -> list[Tensor]:
        """The tokens of all groups, `[count, length, ...]` each: one step, whose gradient is one step too."""
        parts = values.split([group.stop - group.start for group in self.groups])
        shapes = [(group.count, group.length) for group in self.groups]
        return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]

    @cached_property
    def first(self) -> Tensor:
        """Index of each row's first token, `[rows]`."""
        return torch.tensor(self._bounds[:-1], device=self.device)

    @cached_property
    def last(self) -> Tensor:
        """Index of each row's last token, `[rows]`."""
        return torch.tensor(self._bounds[1:], device=self.device) - 1

    @property
    def full_lengths(self) -> tuple[int, ...]:
        """Tokens each row came with."""
        return self.lengths if self.full is None else self.full

    @property
    def positions(self) -> Tensor:
        """Position of each token in its whole row, `[tokens]`."""
        return self._ranks if self.kept is None else self.kept

    @cached_property
    def _ranks(self) -> Tensor:
        """Position of each token among those left in its row, `[tokens]`."""
        return torch.cat(
            [torch.arange(group.length, device=self.device).repeat(group.count) for group in self.groups]
        )

    @cached_property
    def _places(self) -> Tensor:
        """Index `[tokens]` of each token in a flattened batch padded to the longest row."""
        row = torch.repeat_interleave(
            torch.arange(len(self), device=self.device), torch.tensor(self.lengths, device=self.device)
        )
        return row * self.lengths[-1] + self._ranks

    @cached_property
    def key_mask(self) -> Tensor:
        """Added to scores of the padded batch, `[rows, 1, 1, longest]`: 0 at tokens, -inf at padding."""
        mask = torch.full((len(self) * self.lengths[-1],), float("-inf"), device=self.device)
        return mask.index_fill(0, self._places, 0.0).view(len(self), 1, 1, self.lengths[-1])

    @cached_property
    def real(self) -> Tensor:
        """Which places of the padded batch hold a token, `[rows, longest]`, bool."""
        return self.key_mask[:, 0, 0] == 0

    def pad(self, values: Tensor) -> Tensor:
        """`[tokens, ...]` to `[rows, longest, ...]` in storage order, zero at padding."""
        if self.even:
            return values.unflatten(0, (len(self), self.lengths[0]))
        padded = values.new_zeros(len(self) * self.lengths[-1], *values.shape[1:])
        return padded.index_copy(0, self._places, values).unflatten(0, (len(self), self.lengths[-1]))

    def unpad(self, padded: Tensor) -> Tensor:
        """The inverse of `pad`."""
        if self.even:
            return padded.flatten(0, 1)
        return padded.flatten(0, 1).index_select(0, self._places)

    def select(self, stay: Sequence[bool]) -> Rows:
        """The layout of the rows for which `stay` is true, in the same order."""
        return Rows(
            tuple(itertools.compress(self.lengths, stay)),
            tuple(itertools.compress(self.original, stay)),
            self.device,
            None if self.full is None else tuple(itertools.compress(self.full, stay)),
            None if self.kept is None else self.gather(self.kept, stay),
            None if self.gone is None else self.gone[torch.tensor(stay, device=self.device)],
        )

    def keep(self, index: Tensor, lengths: tuple[int, ...], gone: Tensor | None = None) -> Rows:
        """The layout when only some tokens of each row are left.

        Args:
            index: Of the tokens that stay, `[tokens left]`, ascending.
            lengths: How many stay of each row, ascending as the rows are.
            gone: Sum of the last states of all that have left by then.
        """
        positions = self.positions[index]
        return Rows(lengths, self.original, self.device, self.full_lengths, positions, gone)

    def gather(self, values: Tensor, stay: Sequence[bool]) -> Tensor:
        """The tokens `[tokens left, ...]` of the rows for which `stay` is true."""
        runs = [values[start:stop] for start, stop in self._runs(stay)]
        return runs[0] if len(runs) == 1 else torch.cat(runs) if runs else values[:0]

    def _runs(self, stay: Sequence[bool]) -> Iterator[tuple[int, int]]:
        row = 0
        for staying, run in itertools.groupby(stay):
            count = sum(1 for _ in run)
            if staying:
                yield self._bounds[row], self._bounds[row + count]
            row += count

    def restore(self, per_row: Tensor) -> Tensor:
        """Reorder `[rows, ...]` from storage order to the caller's order."""
        if self.original == tuple(range(len(self))):
            return per_row
        order = torch.tensor(self.original, device=per_row.device)
        return torch.empty_like(per_row).index_copy_(0, order, per_row)


def pack(sequences: Sequence[Tensor]) -> tuple[Tensor, Rows]:
    """Lay rows of different lengths end to end, shortest first.

    Args:
        sequences: One `[length, ...]` tensor per row; at least one row, each at least one token long.

    Returns:
        The tokens `[tokens, ...]` and their layout.
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    values = torch.cat([sequences[i] for i in order])
    lengths = tuple(len(sequences[i]) for i in order)
    return values, Rows(lengths, tuple(order), values.device)


def following(rows: Rows, before: Sequence[int]) -> Rows:
    """The layout of tokens that come after others of their rows.

    Args:
        rows: Layout of the new tokens alone.
        before: How many tokens each of the caller's rows had so far.
    """
    starts = [before[row] for row in rows.original]
    counts = torch.tensor(rows.lengths, device=rows.device)
    shift = torch.repeat_interleave(torch.tensor(starts, device=rows.device), counts)
    full = tuple(start + length for start, length in zip(starts, rows.lengths, strict=True))
    return Rows(rows.lengths, rows.original, rows.device, full, rows.positions + shift)


def rows_of_mask(attention_mask: Tensor) -> tuple[Tensor, Rows]:
    """Where the real tokens of a padded batch go in the ragged one.

    Args:
        attention_mask: `[batch, length]`, nonzero at real tokens; padding may stand on either side.

    Returns:
        Index `[tokens]` into the flattened `[batch * length]` batch, and the layout.

    Raises:
        InputError: When a row has no real token.
    """
    mask = attention_mask.bool()
    lengths = mask.sum(1).tolist()
    if not lengths or min(lengths) == 0:
        raise InputError("every row of attention_mask needs at least one token")
    width = mask.shape[1]
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if lengths[order[0]] == width:
        index = torch.arange(mask.numel(), device=mask.device)
    else:
        rank = torch.tensor(order, device=mask.device)
        row, column = mask[rank].nonzero(as_tuple=True)
        index = rank[row] * width + column
    return index, Rows(tuple(lengths[i] for i in order), tuple(order), mask.device)


def scatter(values: Tensor, index: Tensor, shape: tuple[int, int]) -> Tensor:
    """The inverse of taking `index` out of a flattened batch: `[batch, length, hidden]`, zero elsewhere."""
    padded = values.new_zeros(shape[0] * shape[1], *values.shape[1:])
    return padded.index_copy(0, index, values).unflatten(0, shape)
