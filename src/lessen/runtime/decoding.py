"""How a generator decodes: at full depth, with tokens that leave early, or with drafts that it verifies.

`off` runs all layers for every token and asks no exit. `direct` gives out what the first sure exit names: not
always the model's own text, and what of it is certified stands in the Point. `spec` only drafts so, and
verifies by the layers left over: the text, or its law where tokens are drawn, is that of `off`.
(Self-supervised exits page, 1.7.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lessen.errors import InputError, PlanError
from lessen.plan import FULL, ExitRule, Point, Shape

Mode = Literal["off", "direct", "spec"]

KeyValues = Literal["exact", "propagate"]
"""What the layers a token skips remember of it.

`exact`: what they would have at full depth; the token waits where it left until a later one of its text goes
deeper, and then runs with it, in one reading of the weights. `propagate`: keys and values made at once of the
state it left with (CALM, Schuster et al. 2022); fewer MACs, but no longer the model's own.
"""

MOST_EARLY = 16
"""Tokens named early before one goes through all layers, if none has by then (page, 1.7)."""


@dataclass(frozen=True)
class Decoding:
    """One way to decode.

    Attributes:
        mode: Which.
        rule: When a token leaves; None only in mode `off`.
        kv: In mode `direct`: what skipped layers remember. Drafts are always verified exactly.
        most: Tokens of a text named early, one after the other, before one goes through all layers: what
            waits is never more than these, and the prompt. Also the longest draft.
        prompts: How many tokens of the prompts leave on the way; exits of the Point are not looked at.

    Raises:
        InputError: When these do not go together.
    """

    mode: Mode = "off"
    rule: ExitRule | None = None
    kv: KeyValues = "exact"
    most: int = MOST_EARLY
    prompts: Point = FULL

    def __post_init__(self) -> None:
        for name, value, known in (("mode", self.mode, Mode), ("kv", self.kv, KeyValues)):
            if value not in get_args(known):
                raise InputError(f"{name} {value!r}: choose {', '.join(get_args(known))}")
        if self.mode != "off" and self.rule is None:
            raise InputError(f"mode {self.mode} needs a Point at which tokens leave early")
        if self.kv == "propagate" and self.mode != "direct":
            raise InputError("kv 'propagate' is for mode direct; off and spec keep exact keys and values")
        if self.most < 1:
            raise InputError(f"at most {self.most} early tokens: must be 1 or more; mode off has none")


OFF = Decoding()


def check_exits(shape: Shape, mode: str) -> None:
    """Refuse a mode in which tokens leave early of a model that has no place for it.

    Raises:
        PlanError: When the model has no language exits.
    """
    if mode in ("direct", "spec") and not shape.language_exits:
        raise PlanError(
            f"mode {mode}: the model has no exits that name tokens; give it some with "
            "`lessen compress MODEL --data TEXT --system self-exit`, or use mode off"
        )
