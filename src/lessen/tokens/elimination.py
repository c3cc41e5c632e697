"""Which tokens leave in which layer of one forward pass.

Counts depend on each row's own length, so they are known before the pass and independent of the other rows.
Survivors keep their order and their original positions. What a head reads never leaves, nor do the tokens at
both ends of a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lessen.model.architecture import Architecture
from lessen.model.attention import Score
from lessen.model.block import Keep
from lessen.model.rows import Rows
from lessen.plan import Shape
from lessen.tokens.score import SCORES

SINKS = 4
"""First tokens of a prompt that never leave: attention that is about nothing goes there (StreamingLLM)."""

RECENT = 4
"""Last tokens of a prompt that never leave; the very last names the token after it."""

RECENT_SHARE = 0.5
"""Of the tokens of a prompt that stay, so many are its last ones; a score chooses the others (H2O)."""

SPAN, SPANS = 32, 16
"""So many tokens of a prompt in a row are judged together, as a passage is worth more than words out of it;
fewer where there would not be so many passages to choose from."""

STEPS = 2.0**19
"""Of a score's own size; what differs by less, a few roundings of float32, may count as equal."""


def count_left(retention: float, full: int, now: int, fewest: int = 1) -> int:
    """Tokens of a row that leave a layer: the share `retention` of all it came with, rounded up.

    Args:
        retention: Share of the row's full length.
        full: Tokens it came with.
        now: Tokens that entered the layer.
        fewest: That always stay.
    """
    return min(now, max(fewest, math.ceil(retention * full - 1e-9)))


def left_after_layers(retention: Sequence[float] | None, tokens: int, fewest: int = 1) -> list[int] | None:
    """Tokens of a row that leave each layer; None if all stay."""
    if retention is None:
        return None
    left, now = [], tokens
    for share in retention:
        now = count_left(share, tokens, now, fewest)
        left.append(now)
    return left


def protected(shape: Shape, architecture: Architecture | None = None) -> tuple[int, int]:
    """How many of a row's first and last tokens never leave.

    Of a classifier it is the first ([CLS]), and the last where an exit reads it. Of a prompt that a causal
    model continues it is a few on both sides; of the input of an encoder whose output a decoder reads, one.

    Args:
        shape: Of the model.
        architecture: Of the model; None: of a classifier.
    """
    if architecture is not None and architecture.causal:
        return SINKS, RECENT
    reads_last = any(exit.pool == "last" for exit in shape.exits)
    return 1, int(reads_last or (architecture is not None and architecture.decoder is not None))


def fewest_left(shape: Shape, architecture: Architecture | None = None) -> int:
    """Tokens of a row that never leave; arguments as in `protected`."""
    return sum(protected(shape, architecture))


def elimination_for(
    shape: Shape,
    retention: Sequence[float],
    score: str = "mean",
    *,
    seed: int = 0,
    row_seeds: Mapping[int, int] | None = None,
    architecture: Architecture | None = None,
) -> Elimination:
    """The elimination that suits what a model's heads, or its decoder, read.

    Args:
        shape: Of the model.
        retention: Share of each row's tokens that leave each layer, not increasing.
        score: One of `score.NAMES`.
        seed: Of `random`.
        row_seeds: As in `Elimination`.
        architecture: As in `protected`.
    """
    first, last = protected(shape, architecture)
    continued = architecture is not None and architecture.causal
    by_mean = any(exit.pool == "mean" for exit in shape.exits)
    return Elimination(
        retention,
        score,
        protect_first=first,
        protect_last=last,
        sums=by_mean,
        recent=RECENT_SHARE if continued else 0.0,
        span=SPAN if continued else 1,
        seed=seed,
        row_seeds=row_seeds,
    )


def seeds_of(ids: Tensor, rows: Rows) -> dict[int, int]:
    """For `random`: of each row, by the caller's index, the CRC-32 of its token ids.

    So a row's draw is the same in every batch, and another one for another text of the same length.

    Args:
        ids: Token ids `[tokens]`.
        rows: Their layout.
    """
    parts = ids.cpu().split(rows.lengths)
    return {row: crc32(part.numpy().astype("<i8")) for row, part in zip(rows.original, parts, strict=True)}


class Elimination:
    """Token elimination of one forward pass; used as a transformer's `in_layer`.

    Args:
        retention: Share of each row's tokens that leave each layer, not increasing.
        score: One of `score.NAMES`.
        protect_first: How many of a row's first tokens always stay, at least one.
        protect_last: How many of its last ones do.
        recent: Share of the tokens that stay which are a row's last ones, whatever their scores.
        span: So many positions in a row, or a part of `SPANS` of it, have one score: the mean of theirs that
            are still there.
        sums: Whether the states of tokens that leave are summed up (pooling by the mean).
        seed: Of `random`.
        row_seeds: Of `random`, of each row by the caller's index; None: rows of one length draw alike.

    Attributes:
        kept: After the pass: for each layer in which tokens left, its number and the layout of the survivors.
    """

    def __init__(
        self,
        retention: Sequence[float],
        score: str = "mean",
        *,
        protect_first: int = 1,
        protect_last: int = 0,
        recent: float = 0.0,
        span: int = 1,
        sums: bool = False,
        seed: int = 0,
        row_seeds: Mapping[int, int] | None = None,
    ) -> None:
        self.retention = tuple(retention)
        self.name = score
        self.protect_first = protect_first
        self.protect_last = protect_last
        self.recent = recent
        self.span = span
        self.sums = sums
        self.seed = seed
        self.row_seeds = row_seeds
        self.kept: list[tuple[int, Rows]] = []
        self._sums: Tensor | None = None

    def __call__(self, layer: int, rows: Rows) -> Keep | None:
        """What decides in a layer (1-based); None where no token leaves: its attention stays fused.

        `cumulative` listens there too, as long as tokens will leave in a later layer.
        """
        counts = self._counts(self.retention[layer - 1], rows)
        if counts != rows.lengths:
            return _Layer(self, layer, counts)
        if self.name == "cumulative" and self._counts(self.retention[-1], rows) != rows.lengths:
            return _Listening(self, layer)
        return None

    def _counts(self, share: float, rows: Rows) -> tuple[int, ...]:
        """Tokens of each row that a retention leaves."""
        pairs = zip(rows.full_lengths, rows.lengths, strict=True)
        fewest = self.protect_first + self.protect_last
        return tuple(count_left(share, full, now, fewest) for full, now in pairs)

    def judge(self, scores: Tensor | None, layer: int, rows: Rows) -> Tensor:
        """What survivors are chosen by, `[tokens]`."""
        if self.name in ("first_k", "last_k"):
            places = rows.positions.float()
            return places if self.name == "last_k" else -places
        own = self._random(layer, rows) if scores is None else self._of_tokens(scores, rows)
        return own if self.span == 1 else of_spans(own, rows, self.span)

    def _of_tokens(self, scores: Tensor, rows: Rows) -> Tensor:
        if self.name != "cumulative":
            return scores
        if self._sums is None:
            self._sums = scores.new_zeros(max(rows.original) + 1, max(rows.full_lengths))
        row = torch.tensor(rows.original, device=rows.device)
        row = row.repeat_interleave(torch.tensor(rows.lengths, device=rows.device))
        self._sums[row, rows.positions] += scores
        return self._sums[row, rows.positions]

    def _random(self, layer: int, rows: Rows) -> Tensor:
        """A draw for each position, by the row's own seed or its length: rows do not depend on each other.

        NumPy's seeds mix all their parts; torch's generator on a CPU looks at 32 bits of its seed.
        """
        own = rows.full_lengths
        if self.row_seeds is not None:
            own = tuple(self.row_seeds[row] for row in rows.original)
        draws: dict[tuple[int, int], NDArray[np.float32]] = {}
        keys = list(zip(own, rows.full_lengths, strict=True))
        for number, length in set(keys):
            generator = np.random.default_rng((self.seed, layer, number))
            draws[number, length] = generator.random(length, dtype=np.float32)
        table = torch.from_numpy(np.concatenate([draws[key] for key in keys])).to(rows.device)
        full = torch.tensor(rows.full_lengths, device=rows.device)
        starts = (full.cumsum(0) - full).repeat_interleave(torch.tensor(rows.lengths, device=rows.device))
        return table[starts + rows.positions]


def of_spans(scores: Tensor, rows: Rows, span: int) -> Tensor:
    """The mean score of the tokens of each row's span that are still there, for every one of them.

    Args:
        scores: `[tokens]`.
        rows: Layout of the batch; spans are of positions in the text, so they stay what they were.
        span: Positions in each, or fewer, so that a text has `SPANS` of them.

    Returns:
        `[tokens]`, float64.
    """
    spans = [max(1, min(span, length // SPANS)) for length in rows.full_lengths]
    most = max(-(-length // own) for length, own in zip(rows.full_lengths, spans, strict=True))
    row = torch.arange(len(rows), device=rows.device)
    row = row.repeat_interleave(torch.tensor(rows.lengths, device=rows.device))
    place = row * most + rows.positions // torch.tensor(spans, device=rows.device)[row]
    sums = scores.new_zeros(len(rows) * most, dtype=torch.float64)
    counts = place.bincount(minlength=len(sums))
    return (sums.index_add(0, place, scores.double()) / counts)[place]


def _states_gone(hidden: Tensor, rows: Rows, stay: Tensor) -> Tensor:
    """For each row, the sum of the states of the tokens that leave and of those that have, `[rows, hidden]`.

    Args:
        hidden: States before the layer, `[tokens, hidden]`.
        rows: Layout before it.
        stay: Index of the tokens that stay.
    """
    staying = np.zeros(rows.tokens, dtype=bool)
    staying[stay.cpu().numpy()] = True
    leaving = np.flatnonzero(~staying)
    of_row = np.repeat(np.arange(len(rows)), rows.lengths)[leaving]
    index, row = (torch.from_numpy(each).to(hidden.device) for each in (leaving, of_row))
    states = hidden.index_select(0, index)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    before = hidden.new_zeros(len(rows), hidden.shape[1], dtype=wide) if rows.gone is None else rows.gone
    return before.index_add(0, row, states.to(wide))


class Watching:
    """Notes every layer's scores and takes nothing away; used as a transformer's `in_layer`.

    Args:
        score: From attention to scores.

    Attributes:
        scores: Of each layer so far, `[tokens]`.
    """

    def __init__(self, score: Score = SCORES["mean"]) -> None:
        self.score = score
        self.scores: list[Tensor] = []

    def __call__(self, layer: int, rows: Rows) -> Keep:
        """What notes the scores of a layer."""
        return _Watch(self)


@dataclass(frozen=True)
class _Watch:
    watching: Watching

    @property
    def score(self) -> Score | None:
        return self.watching.score

    def __call__(self, scores: Tensor | None, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        assert scores is not None
        self.watching.scores.append(scores)
        return torch.arange(len(hidden), device=hidden.device), rows


@dataclass(frozen=True)
class _Layer:
    """One layer's decision: so many of each row's tokens stay."""

    elimination: Elimination
    layer: int
    counts: tuple[int, ...]

    @property
    def score(self) -> Score | None:
        name = self.elimination.name
        return SCORES.get("mean" if name == "cumulative" else name)

    def __call__(self, scores: Tensor | None, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        judged = self.elimination.judge(scores, self.layer, rows)
        index = survivors(
            judged,
            rows,
            self.counts,
            protect_first=self.elimination.protect_first,
            protect_last=self.elimination.protect_last,
            recent=self.elimination.recent,
        )
        gone = _states_gone(hidden, rows, index) if self.elimination.sums else None
        left = rows.keep(index, self.counts, gone)
        self.elimination.kept.append((self.layer, left))
        return index, left


@dataclass(frozen=True)
class _Listening:
    """A layer in which no token leaves, and whose scores count in later ones (`cumulative`)."""

    elimination: Elimination
    layer: int

    @property
    def score(self) -> Score | None:
        return SCORES["mean"]

    def __call__(self, scores: Tensor | None, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        self.elimination.judge(scores, self.layer, rows)
        return torch.arange(len(hidden), device=hidden.device), rows


def layers_passed(
    kept: Sequence[tuple[int, Rows]], tokens: Sequence[int], layers: Sequence[int]
) -> list[list[int]]:
    """How many layers each token went through: as many as its row, or those before the one it left in.

    So it is the layer its last state comes from; the layer it left in read it once more, for the others.

    Args:
        kept: Of an `Elimination`, after the pass.
        tokens: Each row came with, in the caller's order; as is what is returned.
        layers: Each row went through.
    """
    passed = [[depth] * count for count, depth in zip(tokens, layers, strict=True)]
    here: list[Sequence[int]] = [range(count) for count in tokens]
    for layer, rows in kept:
        positions, start = rows.positions.tolist(), 0
        for row, length in zip(rows.original, rows.lengths, strict=True):
            left = positions[start : start + length]
            for token in set(here[row]).difference(left):
                passed[row][token] = layer - 1
            here[row], start = left, start + length
    return passed


def _rounded(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scores, whatever their size, with as much of each as `STEPS` tell apart."""
    part, power = np.frexp(scores)
    return np.ldexp(np.rint(part * STEPS), power)


def survivors(
    scores: Tensor,
    rows: Rows,
    counts: Sequence[int],
    *,
    protect_first: int = 1,
    protect_last: int = 0,
    recent: float = 0.0,
) -> Tensor:
    """Index of the tokens that stay, `[tokens left]`, ascending.

    Of equal scores the earlier one stays; those are equal that only rounding tells apart, so that kernels
    agree. Few numbers are sorted: NumPy does that faster than torch.

    Args:
        scores: `[tokens]`.
        rows: Layout of the batch.
        counts: How many of each row's tokens stay; all, or as many as are protected or more.
        protect_first: So many of each row's first tokens stay, whatever their scores.
        protect_last: The same of its last ones.
        recent: Of those that stay, but for the first ones, so great a share are the last ones.
    """
    table = scores.detach().cpu().numpy()
    parts = []
    row = token = 0
    while row < len(rows):
        length, count, stop = rows.lengths[row], counts[row], row + 1
        while stop < len(rows) and rows.lengths[stop] == length and counts[stop] == count:
            stop += 1
        size = (stop - row) * length
        start = np.arange(token, token + size, length)[:, None]
        if count == length:
            order = np.arange(length)[None]
        else:
            worst_last = -_rounded(table[token : token + size].reshape(-1, length))
            worst_last[:, :protect_first] = -np.inf
            last = max(protect_last, int(recent * (count - protect_first)))
            worst_last[:, length - last :] = -np.inf
            order = np.sort(worst_last.argsort(axis=1, kind="stable")[:, :count], axis=1)
        parts.append((start + order).ravel())
        row, token = stop, token + size
    index = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return torch.from_numpy(index).to(rows.device)
