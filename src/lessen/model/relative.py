"""A bias of attention scores by how far apart two tokens stand (T5, MPNet)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lessen.model.architecture import Architecture
from lessen.model.deriving import Deriving
from lessen.model.rows import Rows
from lessen.native import Bias
from lessen.native.state import state_of
from lessen.plan import LayerShape

SHORTEST = 64
"""Tables are made for rows of so many tokens at least: a growing text does not need one at each step."""


class RelativeBias(Deriving):
    """A learned bias for each head and bucket of signed distance, shared by all layers (MPNet, T5).

    Half of the buckets are for keys after the query; with `causal` all are for keys before it, and those
    after it are forbidden. Within a half, small distances have a bucket each and larger ones share
    logarithmically growing buckets up to `max_distance` (Raffel et al. 2020, section 2.1).
    """

    _derived: _Table | None

    def __init__(self, buckets: int, max_distance: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.causal = causal
        self.weight = nn.Parameter(torch.empty(buckets, heads).normal_(std=0.02))

    def forward(self, length: int, first: int = 0) -> Tensor:
        """Bias from query position (second axis, from `first` on) to key position (third axis).

        Returns:
            `[heads, length - first, length]`; with `causal` minus infinity where the key comes later.
        """
        places = torch.arange(length, device=self.weight.device)
        distance = places[None, :] - places[first:, None]
        bias = self.weight[self.bucket(distance)].permute(2, 0, 1).contiguous()
        return bias.masked_fill(distance > 0, float("-inf")) if self.causal else bias

    def by_distance(self, longest: int) -> Tensor:
        """The same without gradients by key position - query position, as the kernels take it.

        Like a laid-out matrix (`model.linear`) it is kept until the weights are seen to change, or `train()`
        is called. Weights made in inference mode show no change, so of these it is made anew each time.

        Args:
            longest: Tokens of the longest row.

        Returns:
            `[heads, 2 * most - 1]`, float32, from 1 - most on, where most is at least `longest`.
        """
        known = self._derived
        if known is None or not known.stands(self.weight, longest):
            known = self._derived = _Table(self, longest)
        return known.values

    def bucket(self, distance: Tensor) -> Tensor:
        """Bucket number of `distance` = key position - query position."""
        half = self.weight.shape[0] // (1 if self.causal else 2)
        exact = half // 2
        size = distance.clamp(max=0).abs() if self.causal else distance.abs()
        far = exact + (
            torch.log(size.clamp(min=1).float() / exact)
            / math.log(self.max_distance / exact)
            * (half - exact)
        ).to(torch.long)
        near_or_far = torch.where(size < exact, size, far.clamp(max=half - 1))
        return near_or_far if self.causal else near_or_far + half * (distance > 0)


class _Table:
    """A bias by distance, and the weights it was made of.

    Args:
        of: The bias.
        longest: Tokens of the longest row it must serve.
    """

    def __init__(self, of: RelativeBias, longest: int) -> None:
        most = max(SHORTEST, 1 << (longest - 1).bit_length())
        self.weight, self.most, self.state = of.weight, most, state_of(of.weight)
        distance = torch.arange(1 - most, most, device=of.weight.device)
        with torch.no_grad():
            values = of.weight[of.bucket(distance)].float()
            if of.causal:
                values[distance > 0] = float("-inf")
        self.values = values.t().contiguous()

    def stands(self, weight: Tensor, longest: int) -> bool:
        """Whether it is known to be of these weights as they are, and long enough."""
        if self.weight is not weight or longest > self.most or weight.is_inference():
            return False
        return self.state == state_of(weight)


def heads_left(architecture: Architecture, layer: LayerShape) -> list[int] | None:
    """Which heads of a bias a layer has; None: all."""
    return None if len(layer.heads) == architecture.num_attention_heads else list(layer.heads)


class PositionBias:
    """The bias of one batch, made when it is first asked for.

    Args:
        of: Of its stack.
        rows: Layout of the batch.
        dtype: Of the scores torch adds it to.
    """

    def __init__(self, of: RelativeBias, rows: Rows, dtype: torch.dtype) -> None:
        self.of, self.dtype = of, dtype
        self.longest = max(rows.full_lengths)
        self.first = 0
        if of.causal and rows.full is not None:
            pairs = zip(rows.full_lengths, rows.lengths, strict=True)
            self.first = min(full - new for full, new in pairs)
        self._written: Tensor | None = None
        if torch.is_grad_enabled():  # of all layers once, whatever mode each is computed in
            self.written_out()

    def written_out(self, heads: list[int] | None = None) -> Tensor:
        """From all positions tokens of the batch have, to all before them or beside them.

        Args:
            heads: Those a layer has left; all if None.

        Returns:
            `[heads, queries, keys]`, from the last `queries` of `keys` positions.
        """
        if self._written is None:
            self._written = self.of(self.longest, self.first).to(self.dtype)
        return self._written if heads is None else self._written[heads]

    def for_kernels(self, rows: Rows, heads: list[int] | None = None) -> Bias:
        """As the kernels take it.

        Args:
            rows: Layout of the batch now, of which tokens may have left.
            heads: As above, where the kernels are not told which a layer has.
        """
        near = self.of.by_distance(self.longest)
        kept = None if rows.kept is None else rows.kept.contiguous()
        return Bias(near if heads is None else near[heads], kept)
