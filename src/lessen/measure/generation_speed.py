"""How fast tokens come: our loop and transformers' on the same weights and prompts, in turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, sleep
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.generation.streamers import BaseStreamer

from lessen.errors import InputError
from lessen.hf import LessenGenerator
from lessen.measure.latency import REST_SECONDS
from lessen.model.macs import decoder_token_macs, token_macs
from lessen.plan import Point
from lessen.runtime.decoding import OFF, Decoding
from lessen.runtime.generation import generate
from lessen.runtime.source import Written, batch_of, reply
from lessen.runtime.tally import Tally

WARM_TOKENS = 2
"""Generated untimed before each timed run."""


@dataclass(frozen=True)
class Run:
    """One prompt continued.

    Attributes:
        tokens: Ids.
        seconds: When each came, since the prompt was handed over.
        tally: What our loop counted; None of others.
        at_once: Tokens that came with the first: drafts that were verified together with it.
    """

    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    tally: Tally | None = None
    at_once: int = 1

    @property
    def rate(self) -> float:
        """Tokens per second after those that came first; of all, prompt included, if all came at once."""
        later = len(self.tokens) - self.at_once
        if later < 1:
            return len(self.tokens) / self.seconds[-1]
        return later / max(self.seconds[-1] - self.seconds[self.at_once - 1], 1e-9)


Candidate = Callable[[Sequence[int], int], Run]
"""`candidate(prompt, new_tokens)`: exactly so many tokens, the likeliest each."""


@dataclass(frozen=True)
class SpeedRow:
    """What `lessen bench` says of one way to generate.

    Attributes:
        mode: Of our loop `off`, `direct exact`, `direct propagate` or `spec`; else the rival's name.
        dtype: Of the weights.
        kind: What the model is called in tables.
        first_token_ms: Median time to the first token.
        tokens_per_s: Median over runs, of the tokens after the first.
        weight_passes: Readings of all layers' weights for each token.
        macs_per_token: Of a token on average: where our loop ran as counted, of others at full depth.
        acceptance: Share of drafted tokens that were kept; None where none are drafted.
        identical: Whether all runs gave the tokens of one whole pass without a cache (`off`), or those of
            `off` (others).
        runs: Timed runs.
    """

    mode: str
    dtype: str
    kind: str
    first_token_ms: float
    tokens_per_s: float
    weight_passes: float
    macs_per_token: int
    acceptance: float | None
    identical: bool
    runs: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in vars(self).items()}


def ours(model: LessenGenerator, decoding: Decoding = OFF) -> Candidate:
    """Our loop."""

    def candidate(prompt: Sequence[int], new_tokens: int) -> Run:
        tokens, seconds, tally, began = [], [], Tally(), perf_counter()
        options: dict[str, Any] = {"max_new_tokens": new_tokens, "decoding": decoding, "tally": tally}
        for step in generate(model.transformer, [prompt], **options):
            seconds.append(perf_counter() - began)
            tokens.append(step[0])
        return Run(tuple(tokens), tuple(seconds), tally, came_first(tally, model.transformer.writer.depth))

    return candidate


def came_first(tally: Tally, depth: int) -> int:
    """How many tokens of a text were given out together with the first, by a model of so many layers."""
    text = tally.of(0)
    drafted = bool(text.drafts) and text.layers[0] < depth
    return min(text.drafts[0][1] + 1, len(text.layers)) if drafted else 1


def theirs(twin: Any) -> Candidate:
    """transformers' `generate`, with its cache and its own choice of attention."""

    def candidate(prompt: Sequence[int], new_tokens: int) -> Run:
        watch = _Watch()
        ids = torch.tensor([prompt])
        cache = {}
        if twin.config.is_encoder_decoder:  # its own has as many layers as the encoder, which may be too few
            cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}
        twin.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            streamer=watch,
            **cache,
        )
        return Run(tuple(watch.tokens), tuple(second - watch.began for second in watch.seconds))

    return candidate


class _Watch(BaseStreamer):
    """Notes when tokens come; the first call brings the prompt."""

    def __init__(self) -> None:
        self.began = perf_counter()
        self.tokens: list[int] = []
        self.seconds: list[float] = []
        self.prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self.prompt_seen:
            self.seconds.append(perf_counter())
            self.tokens.append(int(value))
        self.prompt_seen = True

    def end(self) -> None:
        pass


def compare(
    candidates: Mapping[str, Candidate],
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    seconds: float,
    seed: int = 0,
) -> dict[str, list[Run]]:
    """Let every candidate continue the same prompts, in shuffled order for each.

    Args:
        candidates: By name.
        prompts: Token ids.
        new_tokens: For each, at least 2.
        seconds: After so many no further prompt is begun.
        seed: Of the order.

    Returns:
        Runs of each candidate, in the order of the prompts.

    Raises:
        InputError: When there is nothing to time.
    """
    if new_tokens < 2 or not prompts:
        raise InputError("at least one prompt and 2 new tokens are needed to time generation")
    runs: dict[str, list[Run]] = {name: [] for name in candidates}
    shuffled, draw, began = list(candidates), random.Random(seed), perf_counter()
    for prompt in prompts:
        draw.shuffle(shuffled)
        for name in shuffled:
            sleep(REST_SECONDS)
            candidates[name](prompt, WARM_TOKENS)
            runs[name].append(candidates[name](prompt, new_tokens))
        if perf_counter() - began > seconds:
            break
    return runs


@torch.no_grad()
def is_greedy(model: LessenGenerator, prompt: Sequence[int], tokens: Sequence[int]) -> bool:
    """Whether tokens are the likeliest each, by one whole pass without a cache."""
    return all(own_tokens(model, prompt, tokens))


@torch.no_grad()
def own_tokens(model: LessenGenerator, prompt: Sequence[int], tokens: Sequence[int]) -> list[bool]:
    """Of each token, whether full depth names it, given what stands before it: by one whole pass."""
    named = model.transformer.next_token(_whole_pass(model, prompt, tokens)).argmax(-1).tolist()
    return [one == other for one, other in zip(named, tokens, strict=True)]


def _whole_pass(model: LessenGenerator, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    """Last states, without a cache, after which each of these tokens is named, `[tokens, hidden]`."""
    inner = model.transformer
    text: Written = torch.tensor([*prompt, *tokens[:-1]])
    if inner.decoder is not None:
        text = reply(inner, prompt, tokens)
    ids, rows, source = batch_of(inner, [text])
    hidden, _ = inner.write(ids, rows, source=source)
    return hidden[len(hidden) - len(tokens) :]


def modes_of(model: LessenGenerator, point: Point | None = None) -> dict[str, Decoding]:
    """The ways our loop can decode, by name; the kinds of keys and values of `direct` are two.

    Args:
        model: With or without exits.
        point: When tokens leave, and drafts are made; the model's own if None, and its own way to draft.
            Where no token leaves, there is no `direct`, and where none is drafted no `spec`.
    """
    chosen, modes = point or model.point, {"off": OFF}
    if chosen.exits is not None:
        modes["direct exact"] = model.decoding("direct", chosen)
        modes["direct propagate"] = model.decoding("direct", chosen, "propagate")
    if chosen.exits is not None or (point is None and model.config.drafting() is not None):
        modes["spec"] = model.decoding("spec", point)
    return modes


LOSSY = ("direct exact", "direct propagate")
"""Modes whose tokens need not be those of full depth."""


@torch.no_grad()
def tie_at(
    model: LessenGenerator, prompt: Sequence[int], tokens: Sequence[int], other: Sequence[int]
) -> float:
    """How far apart the logits of two texts' first different tokens are, as a share of the largest logit.

    Args:
        model: Whose logits, by one whole pass without a cache.
        prompt: Of both.
        tokens: Of one.
        other: Of the other; 0 if they are equal as far as both go.
    """
    differs = [place for place, (a, b) in enumerate(zip(tokens, other, strict=False)) if a != b]
    if not differs:
        return 0.0
    place = differs[0]
    hidden = _whole_pass(model, prompt, tokens[: place + 1])
    logits = model.transformer.next_token(hidden[-1:])[0]
    return float((logits[tokens[place]] - logits[other[place]]).abs() / logits.abs().max())


def row(
    model: LessenGenerator,
    mode: str,
    kind: str,
    runs: Sequence[Run],
    prompts: Sequence[Sequence[int]],
    *,
    identical: bool,
    dtype: str | None = None,
) -> SpeedRow:
    """Runs of one candidate in one line.

    Args:
        model: Whose weights.
        mode: Of the candidate.
        kind: What to call it.
        runs: Of it.
        prompts: They continued.
        identical: As in `SpeedRow`.
        dtype: Of the weights, where they are not the model's.
    """
    tally = Tally.together([run.tally for run in runs if run.tally is not None])
    macs = tally.macs_per_token if tally.texts else _whole_macs(model, runs, prompts)
    return SpeedRow(
        mode=mode,
        dtype=dtype or model.precision,
        kind=kind,
        first_token_ms=1e3 * median(run.seconds[0] for run in runs),
        tokens_per_s=median(run.rate for run in runs),
        weight_passes=tally.weight_passes if tally.texts else 1.0,
        macs_per_token=round(macs),
        acceptance=tally.acceptance,
        identical=identical,
        runs=len(runs),
    )


def _whole_macs(model: LessenGenerator, runs: Sequence[Run], prompts: Sequence[Sequence[int]]) -> float:
    """MACs of a token at full depth, on average: they grow evenly from the first to the last."""
    facts, shape = model.config.facts(), model.config.form()

    def one(prompt: Sequence[int], place: int) -> int:
        if facts.decoder is not None:
            return decoder_token_macs(facts, shape, place, len(prompt))
        return token_macs(facts, shape, len(prompt) - 1 + place)

    ends = [
        one(prompt, place)
        for prompt, run in zip(prompts, runs, strict=False)
        for place in (0, len(run.tokens) - 1)
    ]
    return sum(ends) / len(ends)
