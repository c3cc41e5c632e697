"""What a way of decoding gives and takes on prompts, as it runs: agreement, weights read, MACs, depths.

An early token is right if full depth would have named it, given the text so far. In mode `direct` that text
need not be full depth's own any more; figures along full depth's own text are `promise.language.measured`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lessen.measure.generation_speed import modes_of, own_tokens
from lessen.plan import Point
from lessen.runtime.decoding import OFF, Decoding
from lessen.runtime.generation import generate
from lessen.runtime.tally import Tally

AT_ONCE = 8
"""Prompts continued together."""

STRETCHES = 8
"""Of a continuation, in which wrong tokens are counted."""

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Decoded:
    """One way of decoding on some prompts.

    Attributes:
        mode: `off`, `direct exact`, `direct propagate` or `spec`.
        point: At which tokens leave; None for `off`.
        tokens: Given out.
        agreement: Mean over texts of the share of tokens that full depth would have named.
        same_text: Share of the texts that are those of `off`.
        mean_layers: Layers before a token was named, or drafted.
        weight_passes: Readings of all layers' weights for each token.
        macs_per_token: Of layers, exits and language head, prompts not counted.
        acceptance: Share of drafted tokens that were kept; None where none are drafted.
        draft_length: Tokens of a draft, on average; None likewise.
        named_after: Tokens by the number of layers they were named after.
        wrong_after: Of those, tokens full depth would not have named.
        wrong_at: The same by place in the continuation: `first` and `last` token of a stretch (1-based), how
            many `tokens` stood there, and how many were `wrong`.
    """

    mode: str
    point: str | None
    tokens: int
    agreement: float
    same_text: float
    mean_layers: float
    weight_passes: float
    macs_per_token: float
    acceptance: float | None
    draft_length: float | None
    named_after: dict[int, int]
    wrong_after: dict[int, int]
    wrong_at: tuple[dict[str, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {k: round(v, 6) if isinstance(v, float) else v for k, v in vars(self).items()}
        for field in ("named_after", "wrong_after"):
            found[field] = {str(layer): count for layer, count in found[field].items()}
        return found


def decode_all(
    model: Any,
    prompts: Prompts,
    *,
    new_tokens: int,
    points: Sequence[Point],
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Decoded]:
    """Full depth, drafts as the model's tuning prompts chose them, and every mode at each Point.

    Where nothing was chosen to draft by, every Point is drafted by.

    Args:
        model: A `LessenForCausalLM` or `LessenForSeq2SeqLM`.
        prompts: Token ids.
        new_tokens: Of each continuation at most.
        points: At which tokens leave; others are left out.
        watch: Told how many continuations are finished, of how many.
    """
    ways: list[tuple[str, str | None, Decoding]] = [("off", None, OFF)]
    drafts = model.config.drafting() is not None
    known = ("off", "spec") if drafts else ("off",)
    for point in points:
        if point.exits is not None:
            found = modes_of(model, point)
            ways += [(mode, point.name, decoding) for mode, decoding in found.items() if mode not in known]
    if drafts:
        ways.append(("spec", None, model.decoding("spec")))
    own: list[list[int]] = []
    lines = []
    for number, (mode, name, decoding) in enumerate(ways):
        texts: list[list[int]] = []
        tallies = []
        for start in range(0, len(prompts), AT_ONCE):
            watch(number * len(prompts) + start, len(ways) * len(prompts))
            given = prompts[start : start + AT_ONCE]
            some, tally = continued(model, given, decoding, new_tokens)
            texts += some
            tallies.append(tally)
        own = own or texts
        right = rightness(model, prompts, texts, own)
        lines.append(decoded(mode, name, texts, Tally.together(tallies), right, own))
    watch(len(ways) * len(prompts), len(ways) * len(prompts))
    return lines


def continued(
    model: Any, prompts: Prompts, decoding: Decoding, new_tokens: int
) -> tuple[list[list[int]], Tally]:
    """Texts, ended by their stop tokens, in one ragged batch; and what they took."""
    texts: list[list[int]] = [[] for _ in prompts]
    tally = Tally()
    options: dict[str, Any] = {"stop": model.stop_tokens, "decoding": decoding, "tally": tally}
    for step in generate(model.transformer, prompts, max_new_tokens=new_tokens, **options):
        for place, token in step.items():
            texts[place].append(token)
    return texts, tally


def rightness(
    model: Any, prompts: Prompts, texts: Sequence[list[int]], own: Sequence[list[int]]
) -> list[list[bool]]:
    """Of each text, which tokens are what full depth would have named.

    Args:
        model: Whose.
        prompts: Token ids.
        texts: Their continuations.
        own: Those of full depth: as far as a text goes with it, it is right.
    """
    found = []
    for prompt, text, its in zip(prompts, texts, own, strict=True):
        whole = text == its[: len(text)]
        found.append([True] * len(text) if whole else own_tokens(model, prompt, text))
    return found


def decoded(
    mode: str,
    point: str | None,
    texts: Sequence[Sequence[int]],
    tally: Tally,
    right: Sequence[Sequence[bool]],
    own: Sequence[Sequence[int]],
) -> Decoded:
    """Texts and what they took, in one line; arguments as above."""
    named: Counter[int] = Counter()
    wrong: Counter[int] = Counter()
    for text, agrees in zip(tally.texts, right, strict=True):
        named.update(text.layers)
        wrong.update(layer for layer, is_own in zip(text.layers, agrees, strict=True) if not is_own)
    return Decoded(
        mode=mode,
        point=point,
        tokens=tally.tokens,
        agreement=sum(sum(each) / len(each) for each in right) / len(right),
        same_text=sum(list(one) == list(other) for one, other in zip(texts, own, strict=True)) / len(texts),
        mean_layers=tally.mean_layers,
        weight_passes=tally.weight_passes,
        macs_per_token=tally.macs_per_token,
        acceptance=tally.acceptance,
        draft_length=tally.draft_length,
        named_after=dict(sorted(named.items())),
        wrong_after=dict(sorted(wrong.items())),
        wrong_at=tuple(_by_place(right)),
    )


def _by_place(right: Sequence[Sequence[bool]]) -> list[dict[str, int]]:
    """Wrong tokens in equal stretches of a continuation."""
    longest = max(map(len, right))
    width = -(-longest // STRETCHES)
    found = []
    for first in range(0, longest, width):
        there = [flag for text in right for flag in text[first : first + width]]
        last = min(first + width, longest)
        found.append(
            {"first": first + 1, "last": last, "tokens": len(there), "wrong": len(there) - sum(there)}
        )
    return found
