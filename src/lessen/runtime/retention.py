"""A retention profile measured on rows, and offline tuning: from a speed-up to a Point, without training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lessen.errors import PlanError
from lessen.model.macs import row_macs
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point, Promise, RetentionProfile, TokenScore
from lessen.runtime.text import Encoded, batches, collate
from lessen.tokens.elimination import Watching, fewest_left, left_after_layers, protected
from lessen.tokens.profile import Cost, in_reach, most, retention_of, shares_of_scores, solve, speedup_of
from lessen.tokens.score import SCORES

MASS = 0.6
"""Share of the attention whose holders a measured profile is made from; with a high one nearly all stay."""

MOST = 0.98
"""No measured share is above this: a share of 1 stays 1 whatever the scalar, and would cap the speed-up."""

SPEEDUPS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
"""Speed-ups that certificates choose from."""

LENGTHS = 32
"""Typical lengths kept with a profile: evenly spaced quantiles of the rows it was measured on."""


@torch.inference_mode()
def measured_profile(
    model: Transformer,
    encoded: Sequence[Encoded],
    *,
    score: TokenScore = "mean",
    mass: float = MASS,
    envelope: bool = False,
    batch_size: int = 32,
) -> RetentionProfile:
    """How many tokens hold a share of each layer's attention, with no token taken away.

    Args:
        model: In evaluation mode.
        encoded: Rows such as the model will see; some hundreds are enough.
        score: What tokens will be chosen by. Where it does not come from attention, ACC is measured.
        mass: Share of the attention, between 0 and 1.
        envelope: Whether shares are taken as they are, as in `shares_of_scores`.
        batch_size: Rows per batch.

    Raises:
        PlanError: When no row has a token that may leave.
    """
    device = next(model.parameters()).device
    found = []
    for batch in batches(encoded, batch_size):
        ids, rows, segments = collate([encoded[i] for i in batch], device)
        watching = Watching(SCORES.get(score, SCORES["mean"]))
        model(ids, rows, segments, None, watching)
        layers = torch.stack(watching.scores).cpu()
        found += [part.numpy() for part in layers.split(list(rows.lengths), dim=1)]
    stay = protected(model.shape, model.architecture)
    shares = shares_of_scores(found, mass, envelope=envelope, protected=stay).clip(max=MOST)
    return RetentionProfile(
        family="envelope" if envelope else "acc",
        base=tuple(float(share) for share in shares),
        score=score,
        lengths=typical([len(row.ids) for row in encoded]),
    )


def typical(lengths: Sequence[int]) -> tuple[int, ...]:
    """At most `LENGTHS` lengths that stand for all: quantiles in the middle of equal parts."""
    if len(lengths) <= LENGTHS:
        return tuple(sorted(lengths))
    middles = (np.arange(LENGTHS) + 0.5) / LENGTHS
    return tuple(round(float(length)) for length in np.quantile(lengths, middles))


def macs_cost(model: Transformer) -> Cost:
    """MACs of a row from embeddings to the last exit's answer.

    Of a causal model they are those of its layers on a prompt, of an encoder-decoder model the encoder's:
    what naming tokens costs comes on top, and each counts for itself (`model/macs.py`).
    """

    def cost(tokens: int, left: Sequence[int] | None) -> float:
        return row_macs(model.architecture, model.shape, model.outputs, tokens, left=left)

    return cost


def left_at(model: Transformer, point: Point, tokens: int) -> list[int] | None:
    """Tokens that leave each layer of a row of so many, at a Point; None if all stay."""
    return left_after_layers(point.retention, tokens, _fewest(model))


def ratio_at(model: Transformer, point: Point, lengths: Sequence[int]) -> float:
    """MACs of whole rows of these lengths over those spent at a Point, all going through every layer."""
    cost = macs_cost(model)
    spent = sum(cost(tokens, left_at(model, point, tokens)) for tokens in lengths)
    return sum(cost(tokens, None) for tokens in lengths) / spent


def alpha_for(
    model: Transformer, profile: RetentionProfile, speedup: float, cost: Cost | None = None
) -> float:
    """The profile's scalar for a speed-up on its typical rows, in MACs if no other cost is given.

    Raises:
        PlanError: When it cannot be reached; the message names what can.
    """
    lengths = _lengths(model, profile)
    return solve(profile, speedup, lengths, cost or macs_cost(model), _fewest(model))


def most_reached(model: Transformer, profile: RetentionProfile) -> float:
    """The speed-up in MACs, on a profile's typical rows, when every token leaves that may; rounded down."""
    return in_reach(most(profile, _lengths(model, profile), macs_cost(model), _fewest(model)))


def speedup_at(model: Transformer, profile: RetentionProfile, alpha: float) -> float:
    """The speed-up in MACs, on a profile's typical rows, at a scalar."""
    return speedup_of(profile, alpha, _lengths(model, profile), macs_cost(model), _fewest(model))


def _fewest(model: Transformer) -> int:
    return fewest_left(model.shape, model.architecture)


def _lengths(model: Transformer, profile: RetentionProfile) -> list[int]:
    return [min(length, model.architecture.max_tokens) for length in profile.lengths]


def point_for(
    model: Transformer, profile: RetentionProfile, speedup: float, cost: Cost | None = None
) -> Point:
    """The Point at which tokens leave so that a speed-up is reached, all rows going through every layer.

    Of a generator it is that of reading the prompt, as `macs_cost` says.

    Raises:
        PlanError: When it cannot be reached; the message names what can.
    """
    if speedup <= 1:
        return FULL
    return _dialled(f"speedup-{speedup:g}x", profile, alpha_for(model, profile, speedup, cost))


def _dialled(name: str, profile: RetentionProfile, alpha: float) -> Point:
    return Point(
        name=name,
        retention=retention_of(profile, alpha),
        token_score=profile.score,
        promise=Promise(rule="dial"),
    )


def point_within(
    model: Transformer, profile: RetentionProfile, latency_ms: float, tokens: int, cost: Cost
) -> Point:
    """The Point at which a row of so many tokens should take at most so long; "full" if it does anyway.

    Args:
        model: The transformer.
        profile: How tokens leave.
        latency_ms: Allowed.
        tokens: Of the row.
        cost: In milliseconds.

    Raises:
        PlanError: When it cannot be reached; the message names what can.
    """
    tokens = min(tokens, model.architecture.max_tokens)
    whole = cost(tokens, None)
    if whole <= latency_ms:
        return FULL
    try:
        alpha = solve(profile, whole / latency_ms, [tokens], cost, _fewest(model))
    except PlanError as error:
        raise PlanError(
            f"{latency_ms:g} ms cannot be kept: {tokens} tokens take {whole:.2f} ms whole, and {error}"
        ) from None
    return _dialled(f"latency-{latency_ms:g}ms", profile, alpha)


def reachable(model: Transformer, profile: RetentionProfile, speedups: Sequence[float]) -> dict[float, Point]:
    """The Points for those of some speed-ups, ascending, that can be reached in MACs."""
    points = {}
    for speedup in speedups:
        try:
            points[speedup] = point_for(model, profile, speedup)
        except PlanError:
            break
    return points
