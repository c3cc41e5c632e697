"""What language exits minimise: sums over tokens of a distance from the model's own last answer.

No labels are needed: the model is its own teacher (self-supervised exits page, 1.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LanguageObjective = Literal["imitation", "penalized"]


def imitation(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || exit) at temperature 1, summed over tokens: the paper's second version.

    Args:
        logits: Of the exit, `[tokens, vocabulary]`.
        teacher: Of the whole model, the same shape; gets no gradient.
    """
    target = teacher.detach().log_softmax(-1)
    return functional.kl_div(logits.log_softmax(-1), target, log_target=True, reduction="sum")


def penalized(logits: Tensor, teacher: Tensor, penalty: float) -> Tensor:
    """(1 - penalty) CE(exit, the model's likeliest token) - penalty H(exit), summed: the first version.

    Entropy is rewarded, which keeps an exit from being too sure. With y the teacher's token, the best exit
    has log(p_y / q) = (1 - penalty) / (penalty p_y), q being the probability of each other token.

    Args:
        logits: As in `imitation`, and so is the next one.
        teacher: Only its likeliest token counts.
        penalty: Lambda of the page, from 0 to 1.
    """
    log_p = logits.log_softmax(-1)
    wrong = functional.nll_loss(log_p, teacher.argmax(-1), reduction="sum")
    entropy = -(log_p.exp() * log_p).sum()
    return (1 - penalty) * wrong - penalty * entropy


def foresight(probed: Tensor, logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of a probe that foretells whether an exit agrees with the model, summed over tokens.

    Args:
        probed: The probe's logits, `[tokens]`.
        logits: Of the exit, `[tokens, vocabulary]`.
        teacher: Of the whole model.
    """
    agrees = (logits.argmax(-1) == teacher.argmax(-1)).to(probed.dtype)
    return functional.binary_cross_entropy_with_logits(probed, agrees, reduction="sum")


LIKELIEST = 8
"""Tokens of the teacher's at each place that are always looked at."""


@dataclass(frozen=True)
class Candidates:
    """Tokens that stand for the whole vocabulary where probabilities are compared.

    Attributes:
        tokens: Ids, `[candidates]`.
        more: Added to the logit of each, `[candidates]`.
    """

    tokens: Tensor
    more: Tensor


def candidates(teacher: Tensor, drawn: int, draw: torch.Generator) -> Candidates | None:
    """The teacher's likeliest tokens, and some drawn of all others; None where nearly all would be looked at.

    A drawn one counts for as many as were left out, so that the sum of exp(logit) over the candidates, which
    is what a softmax divides by, is that of the whole vocabulary on average (sampled softmax: Bengio and
    Senecal 2008; Jean et al. 2015).

    Args:
        teacher: Of the whole model, `[tokens, vocabulary]`.
        drawn: How many are drawn.
        draw: What they are drawn by, on the CPU.
    """
    vocabulary = teacher.shape[1]
    sure = torch.zeros(vocabulary, dtype=torch.bool, device=teacher.device)
    sure[teacher.topk(min(LIKELIEST, vocabulary), -1).indices.flatten()] = True
    others = (~sure).nonzero()[:, 0]
    if len(others) <= 2 * drawn:
        return None
    chosen = others[torch.randperm(len(others), generator=draw)[:drawn].to(others.device)]
    likeliest = sure.nonzero()[:, 0]
    more = teacher.new_zeros(len(likeliest) + drawn)
    more[len(likeliest) :] = log(len(others) / drawn)
    return Candidates(torch.cat([likeliest, chosen]), more)


LOGITS_BYTES = 48 << 20
"""Of one tensor of logits of the whole vocabulary; a step of training holds one or two."""


def positions_at_once(vocabulary: int, dtype: torch.dtype = torch.float32) -> int:
    """How many tokens' logits fit into `LOGITS_BYTES`."""
    return max(1, LOGITS_BYTES // (vocabulary * dtype.itemsize))
