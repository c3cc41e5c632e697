"""A threshold that grows bolder along a text (CALM, Schuster et al. 2022, section 3.3).

The paper's tokens leave where they are surer than clip(0.9 lambda + 0.1 exp(-tau t / N)), at token t of at
most N. Scores here say how unsure a token is, 1 minus the paper's, so with theta = 1 - lambda a token leaves
where its score is below 0.9 theta + 0.1 (1 - exp(-tau t / N)), or, which is the same, where

    (score - 0.1 (1 - exp(-tau t / N))) / 0.9 < theta

So what a place in the text allows is taken off the score, and there is one threshold to choose, along a path
like any other. The paper's clip changes nothing: sureness lies between 0 and 1 anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from lessen.errors import PlanError
from lessen.plan import Decay, ExitRule

FIXED, FALLING = 0.9, 0.1
"""Parts of the paper's threshold."""

DECAYING = ("improbability", "closeness")
"""Criteria whose scores lie between 0 and 1; one minus `closeness` is the paper's."""


def check_decay(rule: ExitRule) -> None:
    """Refuse a decay of a criterion whose scores have another scale.

    Raises:
        PlanError: Naming those that may decay.
    """
    if rule.decay is not None and rule.criterion not in DECAYING:
        raise PlanError(
            f"exits.decay: thresholds of {rule.criterion!r} cannot decay; use {' or '.join(DECAYING)}"
        )


def slack(places: Iterable[int], decay: Decay) -> list[float]:
    """What places in a text allow, of scores between 0 and 1: nothing at the first token.

    Args:
        places: Of tokens in the text that is written, from 0.
        decay: Of the rule.
    """
    return [FALLING * -math.expm1(-decay.rate * place / decay.tokens) for place in places]
