"""Rotary positions (Su et al. 2021): queries and keys turn by angles that grow with their position.

The product of a query and a key then depends on how far apart they are, and on nothing else of where they
stand. A token that is left when others have gone keeps its own position.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lessen.model.architecture import Rotary
from lessen.model.rows import Rows


class Rotation(NamedTuple):
    """How the heads of each token turn.

    Attributes:
        cosine: `[tokens, 1, turned]`, where `turned` is the number of dimensions that turn.
        sine: The same, negative for the first half.
    """

    cosine: Tensor
    sine: Tensor


def rotation(rotary: Rotary, positions: Tensor, dtype: torch.dtype) -> Rotation:
    """The rotation of tokens at their positions.

    Angles are float32 whatever the model computes in, as they are in transformers: models were trained so.

    Args:
        rotary: Of the architecture.
        positions: `[tokens]`.
        dtype: Of the result.
    """
    pace = torch.tensor(rotary.inverse_frequencies, dtype=torch.float32, device=positions.device)
    angles = positions[:, None, None].float() * pace
    cosine, sine = angles.cos() * rotary.scale, angles.sin() * rotary.scale
    return Rotation(torch.cat([cosine, cosine], -1).to(dtype), torch.cat([-sine, sine], -1).to(dtype))


class Turns:
    """Rotations of all positions so far, worked out once and looked up for each token.

    Args:
        rotary: Of the architecture.
    """

    def __init__(self, rotary: Rotary) -> None:
        self.rotary = rotary
        self._known: Rotation | None = None

    def at(self, rows: Rows, dtype: torch.dtype) -> Rotation:
        """The same as `rotation` of the positions of the rows; always of one type."""
        end = max(rows.full_lengths)
        if self._known is None or len(self._known.cosine) < end:
            positions = torch.arange(max(256, 2 * end), device=rows.device)
            self._known = rotation(self.rotary, positions, dtype)
        return Rotation(*(part.index_select(0, rows.positions) for part in self._known))


def turn(heads: Tensor, by: Rotation) -> Tensor:
    """`[tokens, heads, head_dim]` turned; without gradients in place, and the same tensor is returned."""
    turned = by.cosine.shape[-1]
    part = heads[..., :turned]
    across = part.roll(turned // 2, -1)
    if not torch.is_grad_enabled():
        part.mul_(by.cosine).addcmul_(across, by.sine)
        return heads
    part = part * by.cosine + across * by.sine
    return part if turned == heads.shape[-1] else torch.cat([part, heads[..., turned:]], -1)
