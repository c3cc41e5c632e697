"""Exit criteria: from the logits of successive exits to one score per row, and when a score is good enough.

Every criterion has the same three parts: a score in its natural unit, the side of the threshold on which a
row leaves, and a memory carried from one exit to the next (nothing for most; the previous entropy or a count
for some). Scores are computed in float32 or wider from log-probabilities, so saturated logits such as (200,
0, 0) are safe.

Sources: entropy (DeeBERT; COST-EFF 1.10), its normalised form (FastBERT), maximum probability (Shallow-Deep),
margin (CALM; self-supervised exits 1.1), patience (PABEE), fractional entropy reduction (BEExformer 1.8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lessen.errors import PlanError
from lessen.model.lead import Lead, lead
from lessen.plan import ExitRule

Memory = Tensor | None
"""What a criterion remembers per row, `[rows, k]`; None before the first exit or without memory."""

Step = Callable[[Tensor, Memory, ExitRule], tuple[Tensor, Memory]]
"""`step(logits [rows, outputs], memory, rule)` to scores `[rows]` and the next memory."""

SMALLEST_ENTROPY = 1e-12

OF_LEAD: dict[str, Callable[[Lead], Tensor]] = {
    "entropy": lambda lead: lead.rest.log1p() - lead.moment / (1 + lead.rest),
    "improbability": lambda lead: lead.rest / (1 + lead.rest),
    "closeness": lambda lead: (lead.rest + lead.second.exp()) / (1 + lead.rest),
    "logit_closeness": lambda lead: lead.second,
}
"""Scores of criteria for tokens, `[rows]`: the entropy in nats, 1 - p1, 1 - (p1 - p2), and z2 - z1."""


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats, `[rows]`, between 0 and ln C."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


@dataclass(frozen=True)
class Criterion:
    """How to score an answer, and which scores let a row leave.

    Attributes:
        name: As written in an `ExitRule`.
        step: Computes the scores of one exit.
        leaves: `below`: a row leaves where score < threshold. `at_least`: where score >= threshold.
        remembers: Whether every exit must be evaluated because later scores depend on earlier answers.
        task: What answers it understands: one class of several, one number, any number of labels, or the
            next token of a text.
    """

    name: str
    step: Step
    leaves: Literal["below", "at_least"]
    remembers: bool = False
    task: Literal["classification", "regression", "multi-label", "language"] = "classification"

    def passes(self, scores: Tensor, threshold: float) -> Tensor:
        """Which rows may leave, `[rows]` bool."""
        return scores < threshold if self.leaves == "below" else scores >= threshold


def _entropy(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    return entropy(logits), None


def _normalised_entropy(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    return entropy(logits) / math.log(max(logits.shape[-1], 2)), None


def _max_probability(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    return logits.softmax(-1).amax(-1), None


def _margin(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    best = logits.softmax(-1).topk(min(2, logits.shape[-1]), -1).values
    return best[:, 0] - best[:, -1], None


def _of_lead(name: str) -> Step:
    def step(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
        return OF_LEAD[name](lead(logits)), None

    return step


def _patience(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    answer = logits.argmax(-1).to(logits.dtype)
    return _count_agreements(answer, memory, tolerance=0.0)


def _regression_patience(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    return _count_agreements(logits[:, 0], memory, tolerance=rule.change or 0.0)


def _count_agreements(answer: Tensor, memory: Memory, tolerance: float) -> tuple[Tensor, Memory]:
    """How many exits in a row have given the same answer as the one before them."""
    if memory is None:
        count = torch.zeros_like(answer)
    else:
        agrees = (answer - memory[:, 0]).abs() <= tolerance
        count = torch.where(agrees, memory[:, 1] + 1, torch.zeros_like(answer))
    return count, torch.stack([answer, count], 1)


def _label_probability(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    """Of the decision on the least certain label: every label must be decided, for or against."""
    return torch.sigmoid(logits.abs()).amin(-1), None


def _label_patience(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    answer = (logits > 0).to(logits.dtype)
    if memory is None:
        count = torch.zeros_like(answer[:, 0])
    else:
        agrees = (answer == memory[:, 1:]).all(-1)
        count = torch.where(agrees, memory[:, 0] + 1, torch.zeros_like(memory[:, 0]))
    return count, torch.cat([count[:, None], answer], 1)


def _reduction(now: Tensor, before: Tensor) -> Tensor:
    return (before - now) / before.clamp(min=SMALLEST_ENTROPY)


def _plateau(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    now = entropy(logits)
    if memory is None:
        return torch.full_like(now, math.inf), now[:, None]
    before = memory[:, 0]
    certain = before <= SMALLEST_ENTROPY
    return torch.where(certain, torch.full_like(now, -math.inf), _reduction(now, before)), now[:, None]


def _drop(logits: Tensor, memory: Memory, rule: ExitRule) -> tuple[Tensor, Memory]:
    now = entropy(logits)
    before = torch.full_like(now, math.log(logits.shape[-1])) if memory is None else memory[:, 0]
    certain = before <= SMALLEST_ENTROPY
    return torch.where(certain, torch.full_like(now, math.inf), _reduction(now, before)), now[:, None]


CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("entropy", _entropy, "below"),
        Criterion("normalised_entropy", _normalised_entropy, "below"),
        Criterion("max_probability", _max_probability, "at_least"),
        Criterion("margin", _margin, "at_least"),
        Criterion("patience", _patience, "at_least", remembers=True),
        Criterion("entropy_plateau", _plateau, "below", remembers=True),
        Criterion("entropy_drop", _drop, "at_least", remembers=True),
        Criterion("regression_patience", _regression_patience, "at_least", remembers=True, task="regression"),
        Criterion("label_probability", _label_probability, "at_least", task="multi-label"),
        Criterion("label_patience", _label_patience, "at_least", remembers=True, task="multi-label"),
        Criterion("improbability", _of_lead("improbability"), "below", task="language"),
        Criterion("closeness", _of_lead("closeness"), "below", task="language"),
        Criterion("logit_closeness", _of_lead("logit_closeness"), "below", task="language"),
    )
}
"""`entropy_plateau` leaves when an exit no longer reduces the entropy by the given fraction (the default
reading of BEExformer's rule), `entropy_drop` when it does (the alternative); see the spec page, 1.8. The
`label_` criteria judge multi-label answers: all labels must be decided. The last three are for tokens, with
`entropy`: 1 - max p, 1 - (p1 - p2) and z2 - z1, the smaller the surer, and a token leaves strictly below its
threshold. Written like this they tell sure tokens apart where p itself has rounded to 1 (page, 1.7 `off`)."""

LANGUAGE = tuple(OF_LEAD)
"""The criteria a generator's exits may use (self-supervised exits page, 1.1)."""


def criteria_for(problem_type: str) -> list[str]:
    """Names of the criteria that understand the answers of a task (`problem_type` as in transformers)."""
    task = {"regression": "regression", "multi_label_classification": "multi-label"}
    wanted = task.get(problem_type, "classification")
    return [criterion.name for criterion in CRITERIA.values() if criterion.task == wanted]


def check_rule(rule: ExitRule, problem_type: str) -> None:
    """Refuse an exit rule that cannot judge the answers of a task, or says what is not looked at there.

    Args:
        rule: Of a Point.
        problem_type: As in transformers, or `language` of a model that writes.

    Raises:
        PlanError: Naming what does not fit.
    """
    language = problem_type == "language"
    fitting = list(LANGUAGE) if language else criteria_for(problem_type)
    if rule.criterion not in fitting:
        task = "a next token" if language else problem_type.replace("_", " ")
        raise PlanError(f"exit criterion {rule.criterion!r} cannot judge {task}; use {', '.join(fitting)}")
    if rule.decay is not None and not language:
        raise PlanError("exits.decay: thresholds decay along a text that is written; leave it out")
    if rule.entropy_ceiling is not None and language:
        raise PlanError("exits.entropy_ceiling: tokens leave by the criterion alone; leave it out")


def criterion_of(rule: ExitRule, *, outputs: int) -> Criterion:
    """The criterion an exit rule names.

    Args:
        rule: Of a Point.
        outputs: Number of outputs of the model's heads.

    Raises:
        PlanError: When it is unknown, or cannot judge so many outputs.
    """
    if rule.criterion not in CRITERIA:
        raise PlanError(
            f"exit criterion {rule.criterion!r} is unknown; this version has {', '.join(sorted(CRITERIA))}"
        )
    criterion = CRITERIA[rule.criterion]
    if (criterion.task == "classification" and outputs == 1) or (
        criterion.task == "regression" and outputs > 1
    ):
        many = "one output" if outputs == 1 else f"{outputs} outputs"
        raise PlanError(f"exit criterion {rule.criterion!r} is for {criterion.task}; this model has {many}")
    return criterion


def may_leave(
    criterion: Criterion, rule: ExitRule, layer: int, logits: Tensor, memory: Memory
) -> tuple[Tensor | None, Memory]:
    """One exit's decision.

    Args:
        criterion: What `criterion_of(rule)` returned.
        rule: Thresholds and options.
        layer: Layers run so far (1-based).
        logits: This exit's answers, `[rows, outputs]`.
        memory: What the previous exit's call returned, for the same rows.

    Returns:
        Which rows leave, `[rows]` bool, or None if none may leave here; and the memory to carry on.
    """
    threshold = rule.at(layer)
    if threshold is None and not criterion.remembers:
        return None, None
    scores, memory = criterion.step(logits, memory, rule)
    if threshold is None:
        return None, memory
    leaving = criterion.passes(scores, threshold)
    if rule.entropy_ceiling is not None:
        leaving &= entropy(logits) <= rule.entropy_ceiling
    return leaving, memory


def scores_at_every_exit(criterion: Criterion, rule: ExitRule, logits: Sequence[Tensor]) -> Tensor:
    """Scores `[exits, rows]` as if no row ever left: what thresholds are chosen from."""
    memory: Memory = None
    scores = []
    for answer in logits:
        score, memory = criterion.step(answer, memory, rule)
        scores.append(score)
    return torch.stack(scores)


def exit_of_every_row(rule: ExitRule, layers: Sequence[int], logits: Sequence[Tensor]) -> Tensor:
    """The index of the exit at which each row leaves, `[rows]`: the slow, obvious form of the running engine.

    Args:
        rule: When a row leaves.
        layers: Depth of each exit (1-based), ascending.
        logits: Answers of each exit for all rows, `[rows, outputs]` each.
    """
    criterion = criterion_of(rule, outputs=logits[0].shape[-1])
    chosen = torch.full((len(logits[0]),), len(layers) - 1)
    gone = torch.zeros(len(logits[0]), dtype=torch.bool)
    memory: Memory = None
    for index, layer in enumerate(layers[:-1]):
        leaving, memory = may_leave(criterion, rule, layer, logits[index], memory)
        if leaving is not None:
            chosen[leaving & ~gone] = index
            gone |= leaving
    return chosen


def exits_of_every_row(rules: Sequence[ExitRule], layers: Sequence[int], logits: Sequence[Tensor]) -> Tensor:
    """`exit_of_every_row` for many rules, `[rows, rules]`: exits are scored once for all of a criterion.

    Args:
        rules: When a row leaves.
        layers: Depth of each exit (1-based), ascending.
        logits: Answers of each exit for all rows, `[rows, outputs]` each.
    """
    scored: dict[tuple[str, float | None], Tensor] = {}
    entropies: list[Tensor] = []
    found = torch.empty(len(rules), len(logits[0]), dtype=torch.long)
    for chosen, rule in zip(found, rules, strict=True):
        criterion = criterion_of(rule, outputs=logits[0].shape[-1])
        key = rule.criterion, rule.change
        if key not in scored:
            scored[key] = scores_at_every_exit(criterion, rule, logits[:-1])
        if rule.entropy_ceiling is not None and not entropies:
            entropies = [entropy(answer) for answer in logits[:-1]]
        chosen.fill_(len(layers) - 1)
        for index in reversed(range(len(layers) - 1)):
            if (threshold := rule.at(layers[index])) is None:
                continue
            leaving = criterion.passes(scored[key][index], threshold)
            if rule.entropy_ceiling is not None:
                leaving &= entropies[index] <= rule.entropy_ceiling
            chosen.masked_fill_(leaving, index)
    return found.T
