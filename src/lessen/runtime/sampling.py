"""Which token comes next: the likeliest, or one drawn from what temperature, top-k and top-p leave."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lessen.errors import InputError, LessenError
from lessen.native import native_for
from lessen.records import MOST_SEED


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: Logits are divided by it; 0 takes the likeliest token.
        top_k: Only so many of the likeliest tokens may be drawn; None: all.
        top_p: Only the likeliest tokens that together have at least this probability may (Holtzman et al.
            2020); None: all.
        seed: Row i of a batch draws by `seed + i`, whatever other rows there are.

    Raises:
        InputError: For a value that makes no sense.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kinds in (
            ("temperature", float | int),
            ("top_k", int | None),
            ("top_p", float | int | None),
        ):
            if not isinstance(value := getattr(self, name), kinds):
                raise InputError(f"{name} {value!r}: expected a number")
        if not isinstance(self.seed, int) or not 0 <= self.seed <= MOST_SEED:
            raise InputError(f"seed {self.seed!r}: expected a whole number from 0 to {MOST_SEED}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(
                f"temperature {self.temperature}: must be 0 or more, and finite; 0 takes the likeliest token"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k {self.top_k}: must be 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p}: must be above 0 and at most 1")

    def draws(self, rows: int) -> list[torch.Generator]:
        """A source of randomness for each row."""
        return [torch.Generator().manual_seed(self.seed + row) for row in range(rows)]


GREEDY = Sampling()


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """What tokens are drawn from, `[rows, vocabulary]`, float32 or wider; for a temperature above 0.

    Temperature comes first, then top-k, then top-p, as in transformers. Of equal logits at the edge of top-k
    all stay.

    Raises:
        LessenError: When a logit is no number.
    """
    scores = logits / sampling.temperature
    never = float("-inf")
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, never)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = scores.sort(descending=True, stable=True)
        share = ordered.softmax(-1)
        beyond = share.cumsum(-1) - share >= sampling.top_p
        scores = scores.masked_fill(beyond.scatter(-1, order, beyond), never)
    shares = scores.softmax(-1)
    if shares[:, 0].isnan().any():  # one NaN makes all of its row NaN
        raise LessenError(NO_NUMBERS)
    return shares


NO_NUMBERS = (
    "the model's logits are not numbers (NaN): its weights are damaged, or it overflows in this precision; "
    "try --precision float32, or make the model again"
)


def likeliest(logits: Tensor) -> list[int]:
    """The likeliest token of each row of `[rows, vocabulary]`; of equal ones the first.

    Raises:
        LessenError: When a logit is no number.
    """
    kernels = native_for(logits) if logits.numel() else None
    if kernels is not None:
        tokens = kernels.likeliest(logits)
        broken = -1 in tokens
    else:
        tokens, broken = logits.argmax(-1).tolist(), bool(logits.isnan().any())
    if broken:
        raise LessenError(NO_NUMBERS)
    return tokens
