"""Drafted tokens, and which of them stand: none but those full depth says, or draws by its own law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lessen.depth.language import Decision
from lessen.runtime.sampling import Sampling, likeliest, probabilities


@dataclass(frozen=True)
class Draft:
    """A token an exit drafted.

    Attributes:
        token: Its id.
        layer: Layers run before it was drafted.
        shares: What it was drawn from, `[vocabulary]`; None where it was the likeliest.
    """

    token: int
    layer: int
    shares: Tensor | None


def drafted(decision: Decision, place: int, layer: int, sampling: Sampling, draw: torch.Generator) -> Draft:
    """The draft of an exit.

    Args:
        decision: Of the exit.
        place: Of the token, among those that leave.
        layer: Layers run.
        sampling: How tokens are drawn: as at full depth.
        draw: Of the row.
    """
    if sampling.temperature == 0:
        return Draft(decision.named[place], layer, None)
    logits = decision.head.over_vocabulary(decision.outcomes[place : place + 1])
    shares = probabilities(logits, sampling)[0].cpu()
    return Draft(_drawn(shares, draw), layer, shares)


def verified(logits: Tensor, drafts: Sequence[Draft], sampling: Sampling, draw: torch.Generator) -> list[int]:
    """The drafts that stand, and the token after them: full depth's own.

    The likeliest tokens are those of full depth, whatever was drafted: drafts only say for how many of them
    the logits are right. Where tokens are drawn, a draft drawn by q stands with probability min(1, p / q),
    and the first that does not is drawn anew from what p has more than q, which together is p (Leviathan et
    al. 2023; Chen et al. 2023).

    Args:
        logits: Of full depth, `[drafts + 1, vocabulary]`: the first row of what came before the drafts, each
            further one of the draft before it.
        drafts: In order.
        sampling: How tokens are drawn.
        draw: Of the row.

    Returns:
        One token at least; one more than there are drafts at most.
    """
    if sampling.temperature == 0:
        tokens = likeliest(logits)
        for place, draft in enumerate(drafts):
            if draft.token != tokens[place]:
                return tokens[: place + 1]
        return tokens
    shares = probabilities(logits, sampling).cpu()
    stand: list[int] = []
    for ours, draft in zip(shares, drafts, strict=False):
        assert draft.shares is not None
        lot = torch.rand((), generator=draw, dtype=ours.dtype)
        if lot * draft.shares[draft.token] >= ours[draft.token]:
            more = (ours - draft.shares).clamp_min(0)
            return [*stand, _drawn(more if more.any() else ours, draw)]
        stand.append(draft.token)
    return [*stand, _drawn(shares[-1], draw)]


def _drawn(shares: Tensor, draw: torch.Generator) -> int:
    return int(torch.multinomial(shares, 1, generator=draw))
