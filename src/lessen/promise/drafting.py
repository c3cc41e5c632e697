"""How a generator should draft: at which exits and thresholds, and how far, to read the fewest weights.

Drafts change no text, or no law where tokens are drawn, so nothing has to be promised of them: they are
chosen on tuning prompts by what they would have read along the model's own continuations (self-supervised
exits page, 1.7 and 6.5).
"""

from __future__ import annotations

import numpy as np

from lessen.plan import Drafts, ExitRule
from lessen.promise.language import Decoder, path_of, sets_of_exits
from lessen.promise.traces import Traces

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Tokens of a draft at most."""

MIDDLE = 6
"""The length thresholds are chosen at, before the length is."""

STEPS = 16
"""Of each path that are tried, evenly from the most careful to the boldest."""


WORTH = 0.02
"""Share of the weights that drafts must save: less is lost to what verifying takes besides."""


def choose_drafts(tune: Traces, decoder: Decoder) -> Drafts | None:
    """The way to draft that reads the fewest weights for a token; None where full depth reads hardly more.

    Args:
        tune: On prompts nothing is certified with.
        decoder: Sizes of the model.
    """
    layers = decoder.shape.exit_layers
    rules: list[ExitRule] = []
    for criterion in tune.criteria:
        for asked in sets_of_exits(len(layers)):
            path = path_of(tune, criterion, layers, asked=asked)
            places = np.linspace(0, len(path) - 1, STEPS).round().astype(int) if path else ()
            rules += [rule for place in sorted({*places}) if (rule := path[place].exits) is not None]
    if not rules:
        return None
    rule = min(rules, key=lambda each: read_per_token(tune, each, MIDDLE, decoder))
    read = {most: read_per_token(tune, rule, most, decoder) for most in LENGTHS}
    most = min(read, key=lambda each: read[each])
    saved = 1 - read[most] / decoder.whole_cost
    return Drafts(rule=rule, most=most, weights_saved=saved) if saved >= WORTH else None


def read_per_token(tune: Traces, rule: ExitRule, most: int, decoder: Decoder) -> float:
    """Weights a token would have read in mode `spec`, in block-equivalents.

    A draft goes as far as its exit; the first token that does not leave, or must not, takes all that waits
    through the layers left over in one reading, and full depth names every token up to the first wrong draft.
    What was drafted after it is lost. Until then this is what decoding does (but that attention counts as if
    each token stood alone); how far it would have drafted on after a wrong token is not in the traces, so it
    is taken to be as far as along the right text.

    Args:
        tune: Continuations.
        rule: When a token leaves.
        most: Tokens of a draft at most.
        decoder: Sizes of the model.
    """
    never = tune.right.shape[2] + 1
    left = tune.left_at(rule, decoder.shape.exit_layers, never)
    wrong, costs, exits = tune.wrong_at(left), decoder.costs(tune, rule, left), len(tune.right)
    at, drafted = np.zeros((2, len(tune)), dtype=np.int64)
    failed = np.full(len(tune), -1)
    total = 0.0
    while len(rows := np.flatnonzero(at < tune.lengths)):
        place = at[rows]
        whole = (drafted[rows] >= most) | (place + 1 >= tune.lengths[rows])
        exit = np.where(whole, exits, left[rows, place])
        total += np.where(whole, decoder.whole_cost, costs[exit]).sum()
        early = exit < exits
        fails = early & wrong[rows, place] & (failed[rows] < 0)
        failed[rows[fails]] = place[fails]
        drafted[rows] = np.where(early, drafted[rows] + 1, 0)
        stands = np.where(failed[rows] < 0, place, failed[rows])
        at[rows] = np.where(early, place, stands) + 1
        failed[rows[~early]] = -1
    return total / float(tune.lengths.sum())
