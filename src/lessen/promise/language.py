"""From traces to certified Points of a generator: freeze a path on tuning prompts, test it on others.

The unit is the prompt: tokens of one text depend on each other (self-supervised exits page, 6.1 to 6.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lessen.depth.criteria import CRITERIA
from lessen.depth.decay import DECAYING, check_decay
from lessen.depth.thresholds import global_path, matched_path
from lessen.errors import PlanError
from lessen.guarantee import (
    Losses,
    disagreement,
    rows_like_these,
    selective_token_disagreement,
    token_disagreement,
)
from lessen.guarantee.choose import leading
from lessen.guarantee.pvalues import betting
from lessen.model.architecture import Architecture
from lessen.model.macs import block_equivalents
from lessen.plan import FULL, Decay, ExitRule, Point, Shape
from lessen.promise.traces import Traces
from lessen.promise.verdict import Rule, Verdict, choose, first_evident

LanguageLoss = Literal["disagreement", "selective", "block"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Thresholds:
    """What thresholds a path is made of.

    Attributes:
        one: The same for all exits (CALM), not matched for each by how often it is right.
        decay: How they grow bolder along a text.
    """

    one: bool = False
    decay: Decay | None = None


EACH = Thresholds()

FEW_EXITS = 4
"""Up to so many exits a path is tried with every set of them; of more with all, and with each alone."""


@dataclass(frozen=True)
class Decoder:
    """What it takes to judge traces: sizes of the model, and what is counted.

    Attributes:
        facts: Of the architecture.
        shape: With language exits.
        block: Tokens that must all be right, for the loss `block`.
    """

    facts: Architecture
    shape: Shape
    block: int = 32

    def depths(self, left: NDArray[np.int64]) -> Array:
        """Layers a token went through before it was named, given the index of its exit; any shape."""
        return np.array([*self.shape.exit_layers, len(self.shape.writing_layers)], dtype=float)[left]

    def cost(self, traces: Traces, rule: ExitRule | None) -> float:
        """Block-equivalents of a token, on average (page, 1.3); an exit without a threshold is not asked."""
        if rule is None:
            return self.whole_cost
        left = traces.left_at(rule, self.shape.exit_layers)
        return float(self.costs(traces, rule, left)[left[traces.there]].mean())

    def costs(self, traces: Traces, rule: ExitRule, left: NDArray[np.int64]) -> Array:
        """The same by where a token left, `[exits + 1]`; infinite where none can.

        Args:
            traces: Say how often the probe of an exit lets a token pass that gets there.
            rule: Which exits are asked.
            left: Index of the exit each token leaves at, `[prompts, tokens]`.
        """
        exits, passes, passing = self.shape.language_exits, np.isfinite(traces.scores[0]), []
        asked = [place for place, exit in enumerate(exits) if rule.at(exit.layer) is not None]
        for place in asked:
            reached = (left >= place) & traces.there
            passing.append(float(passes[place][reached].mean()) if reached.any() else 1.0)
        shape = self.shape.model_copy(update={"language_exits": tuple(exits[place] for place in asked)})
        found = np.full(len(exits) + 1, np.inf)
        for number, place in enumerate([*asked, len(exits)]):
            leaving = [float(number == other) for other in range(len(asked))]
            found[place] = block_equivalents(self.facts, shape, leaving, passing)
        return found

    @property
    def whole_cost(self) -> float:
        """Block-equivalents of a token of the model without exits."""
        return block_equivalents(self.facts, self.shape.model_copy(update={"language_exits": ()}), ())


def losses_of(
    kind: LanguageLoss, traces: Traces, path: Sequence[Point], decoder: Decoder, epsilon: float
) -> Losses:
    """Losses of the steps of a path, a row for each prompt (page, 6.2).

    `disagreement` (C2): share of a continuation's tokens that left early and are not the model's own.
    `selective` (C3): the same among early tokens, in linear form. `block` (C1): 1 where any of the first
    `block` tokens differs; with an exact cache that is whether the output differs at all.
    """
    layers, longest = decoder.shape.exit_layers, traces.right.shape[2]
    wrong, early = np.zeros((2, len(traces), len(path)))
    failed = np.zeros((len(traces), len(path)), dtype=bool)
    for step, point in enumerate(path):
        left = traces.left_at(point.exits, layers)
        differs = traces.wrong_at(left)
        wrong[:, step], early[:, step] = differs.sum(1), (left < len(layers)).sum(1)
        failed[:, step] = differs[:, : decoder.block].any(1)
    if kind == "block":
        return disagreement(~failed)
    if kind == "selective":
        return selective_token_disagreement(wrong / longest, early / longest, epsilon)
    return token_disagreement(wrong / traces.lengths[:, None])


def path_of(
    tune: Traces,
    criterion: str,
    layers: Sequence[int],
    thresholds: Thresholds = EACH,
    asked: Sequence[int] | None = None,
) -> tuple[Point, ...]:
    """Points of one criterion, the most careful first; the tokens that leave at one leave at all after it.

    Args:
        tune: On prompts paths are made from.
        criterion: Its name.
        layers: Depth of each exit.
        thresholds: What they are.
        asked: Places of the exits at which tokens may leave; all if None. The same threshold is for all.

    Raises:
        PlanError: For a decay of a criterion that has none.
    """
    kind, decay = CRITERIA[criterion], thresholds.decay
    check_decay(ExitRule(criterion=criterion, threshold=0.0, decay=decay))
    scores = tune.compared(criterion, decay)[:, tune.there].astype(float)
    if thresholds.one:
        rules = global_path(kind, scores)[1:]  # no token is below the lowest
    else:
        places = list(range(len(layers)) if asked is None else asked)
        right = tune.right[:, tune.there][places]
        rules = matched_path(kind, scores[places], right, [layers[place] for place in places])
        rules = [rule for rule in rules if rule.thresholds]
    rules = [rule.model_copy(update={"decay": decay}) for rule in rules]
    return tuple(Point(name=f"step {number}", exits=rule) for number, rule in enumerate(rules, start=1))


def freeze_path(
    tune: Traces, decoder: Decoder, epsilon: float, loss: LanguageLoss, thresholds: Thresholds = EACH
) -> tuple[Point, ...]:
    """The path that should save most at this bound, judged on the tuning prompts alone.

    There is one for each criterion and each set of exits: every token would be asked at an exit at which few
    of them leave. As for classifiers, the boldest step is found whose loss there is below the bound by 1.3
    standard errors, and the path whose step costs the fewest block-equivalents wins. Step 0, at which no
    token leaves, is not on it: it is always within the bound.

    Raises:
        PlanError: For a decay where thresholds of no criterion may.
    """
    if thresholds.decay is not None and not set(tune.criteria) & set(DECAYING):
        names = ", ".join(tune.criteria)
        raise PlanError(f"decay: thresholds of {names} cannot; use {' or '.join(DECAYING)}")
    layers = decoder.shape.exit_layers
    sets = [tuple(range(len(layers)))] if thresholds.one else sets_of_exits(len(layers))
    best: tuple[float, tuple[Point, ...]] | None = None
    for criterion, asked in ((criterion, asked) for criterion in tune.criteria for asked in sets):
        if thresholds.decay is not None and criterion not in DECAYING:
            continue
        path = path_of(tune, criterion, layers, thresholds, asked)
        if not path:
            continue
        found = losses_of(loss, tune, path, decoder, epsilon)
        if loss == "selective":
            start = first_evident(betting(found, epsilon))
            path, found = path[start:], losses_of(loss, tune, path[start:], decoder, epsilon)
        passed = evidently_within(found, epsilon)
        cost = decoder.cost(tune, path[passed - 1].exits if passed else None)
        if best is None or cost < best[0]:
            best = cost, path
    return () if best is None else best[1]


def evidently_within(losses: Losses, epsilon: float) -> int:
    """How many steps from the first on stay below the bound by 1.3 standard errors, on tuning prompts."""
    error = losses.values.std(0) / np.sqrt(len(losses.values))
    return leading(losses.values.mean(0) + 1.3 * error <= epsilon)


def sets_of_exits(count: int) -> list[tuple[int, ...]]:
    """Sets of exits a path is tried with, by their places; all of them first."""
    sizes = range(count, 0, -1) if count <= FEW_EXITS else (count, 1)
    return [chosen for size in sizes for chosen in combinations(range(count), size)]


def judge(
    traces: Traces,
    path: Sequence[Point],
    decoder: Decoder,
    bounds: Sequence[float],
    delta: float,
    *,
    loss: LanguageLoss = "disagreement",
    rule: Rule = "certified",
) -> list[Verdict]:
    """The boldest step of the path that each bound allows; each gets an equal part of `delta`.

    Args:
        traces: On calibration prompts.
        path: Frozen before these prompts were looked at.
        decoder: Whose.
        bounds: Losses allowed.
        delta: Probability that any of the statements is wrong.
        loss: What is bounded.
        rule: As in `promise.judging.judge`.
    """
    return [_judge(traces, path, decoder, bound, delta / len(bounds), loss, rule) for bound in bounds]


def _judge(
    traces: Traces,
    path: Sequence[Point],
    decoder: Decoder,
    bound: float,
    delta: float,
    loss: LanguageLoss,
    rule: Rule,
) -> Verdict:
    chosen = choose(losses_of(loss, traces, path, decoder, bound), traces.keys, bound, delta, rule)
    taken = FULL if chosen.step is None else path[chosen.step]
    did = measured(traces, taken.exits, decoder)
    saving = decoder.whole_cost / did["block_equivalents"] if chosen.step is not None else 1.0
    return Verdict(bound, delta, chosen, did["mean_layers"], did["early"], saving)


def measured(traces: Traces, rule: ExitRule | None, decoder: Decoder) -> dict[str, float]:
    """What a rule does on some prompts: figures, not promises.

    Returns:
        `early`: share of the tokens that leave early; `agreement`: share of all tokens that are the model's
        own; `selective_agreement`: the same of the early ones; `exact`: share of the continuations whose
        first `block` tokens are; `mean_layers`; and `block_equivalents`, where what is skipped is never
        computed.
    """
    left, there = traces.left_at(rule, decoder.shape.exit_layers), traces.there
    wrong, early = traces.wrong_at(left), (left < len(traces.right)) & there
    return {
        "early": float(early[there].mean()),
        "agreement": 1 - float((wrong.sum(1) / traces.lengths).mean()),
        "selective_agreement": 1 - float(wrong.sum() / max(1, early.sum())),
        "exact": 1 - float(wrong[:, : decoder.block].any(1).mean()),
        "mean_layers": float(decoder.depths(left)[there].mean()),
        "block_equivalents": decoder.cost(traces, rule),
    }


def why_not(
    traces: Traces, path: Sequence[Point], decoder: Decoder, verdict: Verdict, loss: LanguageLoss
) -> str:
    """Why a bound could not be kept, and how many prompts should do if more of them would help."""
    if not path:
        return "on the tuning prompts no exit is right often enough to be of use"
    if verdict.epsilon == 0:
        return "a bound of 0 is not tested; give one above it"
    losses = losses_of(loss, traces, path[:1], decoder, verdict.epsilon)
    bound, prompts = f"{100 * verdict.epsilon:g}%", len(traces)
    if float(losses.risks[0]) >= verdict.epsilon or verdict.chosen.test in ("plug-in", "expectation"):
        return f"even the most careful step is over {bound} on these {prompts:,} prompts"
    needed = rows_like_these(losses, verdict.epsilon, verdict.delta)
    would_do = f"more than {100 * prompts:,}" if needed is None else f"about {needed:,}"
    return (
        f"{prompts:,} prompts are too few to certify {bound} with {100 * (1 - verdict.delta):.10g}% "
        f"confidence; {would_do} would do for the most careful step"
    )
