"""Language exits at run time: how unsure a head is of the next token, and which tokens leave.

Decoding asks `decide` after each layer that has a head; calibration asks `unsure`, by the same code, what it
would have said at every threshold. (Self-supervised exits page, 1.1 and 1.7.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lessen.depth.criteria import CRITERIA, LANGUAGE, OF_LEAD, Criterion
from lessen.depth.decay import FIXED, check_decay, slack
from lessen.errors import PlanError
from lessen.model.cross import Source
from lessen.model.language_heads import LanguageHead
from lessen.model.lead import Lead, lead
from lessen.model.rows import Rows
from lessen.model.transformer import Transformer
from lessen.plan import ExitRule


@dataclass(frozen=True)
class Decision:
    """What a head decided of some tokens.

    Attributes:
        leaves: Which of them leave here, `[tokens]`, bool.
        named: What comes next of those that leave.
        unsure: How unsure the head was of each, `[tokens]`, as compared with the threshold; infinite where it
            was not asked.
        head: Which decided.
        outcomes: What it said of those that leave, `[leaving, outcomes]`, float32 or wider.
    """

    leaves: Tensor
    named: list[int]
    unsure: Tensor
    head: LanguageHead
    outcomes: Tensor

    @property
    def logits(self) -> Tensor:
        """Of those that leave, `[leaving, vocabulary]`; minus infinity for what is on no short list."""
        return self.head.over_vocabulary(self.outcomes)


def language_criterion(name: str) -> Criterion:
    """The criterion of this name, if it can judge a next token.

    Raises:
        PlanError: Naming those that can.
    """
    if name not in LANGUAGE:
        raise PlanError(f"exit criterion {name!r} cannot judge a next token; use {', '.join(LANGUAGE)}")
    return CRITERIA[name]


@torch.no_grad()
def decide(
    model: Transformer,
    layer: int,
    hidden: Tensor,
    rule: ExitRule | None,
    never: Collection[int] = (),
    places: Sequence[int] | None = None,
) -> Decision | None:
    """Which tokens leave after a layer, and what they say.

    A token leaves where its head is less unsure than the threshold, strictly, and not where the likeliest one
    to come is on no short list. Without a threshold the head is not even asked. What is decided of a token
    depends on that token alone, and with a decay on its place.

    Args:
        model: With a language exit there, in evaluation mode.
        layer: Layers run so far (1-based).
        hidden: What the layer put out, `[tokens, hidden]`.
        rule: Of a Point; None: no token leaves.
        never: Tokens that are not named early: a text that ended wrongly cannot be mended (page, 5.14).
        places: Of each token in the text that is written, from 0; asked for where thresholds decay.

    Returns:
        None where no token may leave.

    Raises:
        PlanError: For a criterion that cannot judge a next token, or whose thresholds cannot decay.
    """
    threshold = None if rule is None else rule.at(layer)
    if rule is None or threshold is None or str(layer) not in model.language_exits:
        return None
    head, kind = head_after(model, layer), language_criterion(rule.criterion)
    judged = _judged(model, head, hidden, [rule.criterion])
    unsure = judged.scores[0]
    if rule.decay is not None:
        check_decay(rule)
        if places is None:
            raise ValueError("thresholds that decay need the places of tokens")
        unsure = (unsure - unsure.new_tensor(slack(places, rule.decay))) / FIXED
    leaves = kind.passes(unsure, threshold)
    goes, asked = leaves.tolist(), range(len(hidden)) if judged.asked is None else _places(judged.asked)
    places = [place for place, token in enumerate(asked) if goes[token]]
    named = head.tokens_at(judged.likeliest[places]).tolist() if places else []
    if any(token in never for token in named):
        places = [place for place, token in zip(places, named, strict=True) if token not in never]
        named = [token for token in named if token not in never]
        leaves = torch.zeros_like(leaves)
        leaves[[asked[place] for place in places]] = True
    outcomes = judged.logits if len(places) == len(asked) else judged.logits[places]
    return Decision(leaves, named, unsure, head, outcomes)


@torch.no_grad()
def unsure(
    model: Transformer, layer: int, hidden: Tensor, criteria: Sequence[str], never: Collection[int] = ()
) -> tuple[Tensor, Tensor]:
    """What `decide` would compare with a threshold, and what it would say, of every token.

    Args:
        model: With a language exit there, in evaluation mode.
        layer: Layers run so far (1-based).
        hidden: What the layer put out, `[tokens, hidden]`.
        criteria: Names.
        never: Tokens that are not named early.

    Returns:
        Scores `[criteria, tokens]`, infinite where the token never leaves; and the tokens named, `[tokens]`.
    """
    head = head_after(model, layer)
    for name in criteria:
        language_criterion(name)
    judged = _judged(model, head, hidden, criteria)
    named, scores = head.named(judged.logits), judged.scores
    if judged.asked is not None:
        named = named.new_zeros(len(hidden)).masked_scatter(judged.asked, named)
    if len(never):
        scores = scores.masked_fill(_is_any(named, never), math.inf)
    return scores, named


def states_at_exits(
    model: Transformer, ids: Tensor, rows: Rows, source: Source | None = None
) -> tuple[list[Tensor], Tensor]:
    """What every exit reads, and what the language head reads: all layers run once, for all tokens.

    Args:
        model: With language exits.
        ids: Token ids `[tokens]`; of an encoder-decoder model the decoder's.
        rows: Layout of the batch.
        source: What a decoder reads.

    Returns:
        `[tokens, hidden]` for each exit, shallowest first, and of the last layer, normed.
    """
    found: list[Tensor] = []

    def after_layer(layer: int, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        if layer in model.shape.exit_layers:
            found.append(hidden)
        return hidden, rows

    last, _ = model.write(ids, rows, source=source, after_layer=after_layer)
    return found, last


def tokens_that_count(model: Transformer, rows: Rows) -> Tensor:
    """Index of the tokens whose next one can be foretold: all but the first of each row.

    A decoder goes by what its encoder read, at the first token too.
    """
    if model.decoder is not None:
        return torch.arange(rows.tokens, device=rows.device)
    return after_the_first(rows)


def after_the_first(rows: Rows) -> Tensor:
    """Index of all tokens but the first of each row."""
    first = torch.zeros(rows.tokens, dtype=torch.bool, device=rows.device)
    first[rows.first] = True
    return (~first).nonzero()[:, 0]


class _Judged(NamedTuple):
    """What a head says of tokens.

    Attributes:
        asked: Which it was asked about, `[tokens]` bool; None: all.
        logits: Of its outcomes for them, `[asked, outcomes]`.
        likeliest: Place of the likeliest of these, `[asked]`.
        scores: Of all tokens, `[criteria, tokens]`; infinite where it was not asked, or where the likeliest
            is no token.
    """

    asked: Tensor | None
    logits: Tensor
    likeliest: Tensor
    scores: Tensor


def _judged(model: Transformer, head: LanguageHead, hidden: Tensor, criteria: Sequence[str]) -> _Judged:
    asked = None if head.probe is None else head.asked(hidden)
    logits = head.outcomes(hidden if asked is None else hidden[asked], model.vocabulary)
    ahead = lead(logits)
    found = scores_of(head, ahead, criteria)
    if asked is not None:
        found = found.new_full((len(criteria), len(hidden)), math.inf).masked_scatter(asked, found)
    return _Judged(asked, logits, ahead.place, found)


def scores_of(head: LanguageHead, ahead: Lead, criteria: Sequence[str]) -> Tensor:
    """How unsure a head is of each token, `[criteria, tokens]`; infinitely where it names none."""
    found = torch.stack([OF_LEAD[name](ahead) for name in criteria])
    return found if head.elsewhere is None else found.masked_fill(head.silent(ahead.place), math.inf)


def head_after(model: Transformer, layer: int) -> LanguageHead:
    """The language exit after so many layers (1-based)."""
    head = model.language_exits[str(layer)]
    assert isinstance(head, LanguageHead)
    return head


def _places(chosen: Tensor) -> list[int]:
    return chosen.nonzero()[:, 0].tolist()


def _is_any(tokens: Tensor, of: Collection[int]) -> Tensor:
    return torch.isin(tokens, torch.tensor(sorted(of), device=tokens.device))
