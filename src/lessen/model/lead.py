"""How far the likeliest outcome is ahead of all others: what criteria for tokens are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lessen.native import native_for


class Lead(NamedTuple):
    """Of each row of logits z; the share of an outcome is e^(z - z1), and so 1 of the likeliest.

    Shares are summed without the likeliest, whose 1 would swallow what is below the type's resolution.

    Attributes:
        place: Of the likeliest, z1; the first of equal ones. `[rows]`, int64.
        second: z2 - z1, `[rows]`.
        rest: Shares of all but the likeliest, summed, `[rows]`.
        moment: The same, each times z - z1, `[rows]`.
    """

    place: Tensor
    second: Tensor
    rest: Tensor
    moment: Tensor


def lead(logits: Tensor) -> Lead:
    """That of each row; where one of its logits is NaN, all but its place are NaN.

    Args:
        logits: `[rows, outcomes]`, two or more, float32 or wider.
    """
    if (kernels := native_for(logits)) is not None:
        return Lead(*kernels.lead(logits))
    place = logits.argmax(-1)
    apart = logits - logits.gather(1, place[:, None])
    second = apart.scatter(1, place[:, None], float("-inf")).amax(-1)
    shares = apart.exp().scatter(1, place[:, None], 0.0)
    moment = torch.where(shares > 0, shares * apart, shares)
    broken = logits.isnan().any(-1)
    found = (part.masked_fill(broken, float("nan")) for part in (second, shares.sum(-1), moment.sum(-1)))
    return Lead(place, *found)
