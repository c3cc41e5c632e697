"""How good the exits of a generator are on text: agreement with the whole model, and how well they know it.

Source: self-supervised exits page, 1.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from lessen.depth.language import head_after, scores_of, states_at_exits, tokens_that_count
from lessen.depth.language_losses import imitation, positions_at_once
from lessen.model.lead import lead
from lessen.model.transformer import Transformer
from lessen.runtime.source import Written, batch_of

AT_ONCE = 4
"""Stretches of text in a pass."""

PASSED = 0.95
"""Share of the tokens an exit is right about that its probe is to let pass."""

TOP = 5


@dataclass(frozen=True)
class ExitQuality:
    """One exit, on the tokens of some text.

    Attributes:
        layer: Its depth (1-based).
        tokens: How many were asked about.
        agreement: Share of them on which it names the whole model's likeliest token.
        top5_agreement: Share on which that token is among its five likeliest, or all it can name if fewer.
        kl: KL(whole model || exit), nats per token, over what the exit chooses from.
        auroc: By criterion: how often a token it is right about scores as surer than one it is wrong about;
            None where it is always right or always wrong. Tokens that cannot leave count as least sure.
        asked: Share of the tokens that can leave: that its probe lets pass, or that are likeliest on its
            short list; 1 without either.
    """

    layer: int
    tokens: int
    agreement: float
    top5_agreement: float
    kl: float
    auroc: dict[str, float | None]
    asked: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


@torch.no_grad()
def exit_quality(
    model: Transformer,
    texts: Sequence[Written],
    criteria: Sequence[str],
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[ExitQuality]:
    """Each exit of `model` on stretches of text it did not learn from; their first tokens do not count.

    Args:
        model: With language exits, in evaluation mode.
        texts: Token ids of each stretch.
        criteria: Names.
        watch: Told how many stretches are done, of how many.
    """
    layers = model.shape.exit_layers
    right: list[list[Tensor]] = [[] for _ in layers]
    scores: list[list[Tensor]] = [[] for _ in layers]
    near, far = np.zeros((2, len(layers)))
    for start in range(0, len(texts), AT_ONCE):
        for last, states in _parts(model, texts[start : start + AT_ONCE]):
            teacher = model.next_token(last)
            best = teacher.argmax(-1)
            for exit, (layer, state) in enumerate(zip(layers, states, strict=True)):
                head = head_after(model, layer)
                judged = head.outcomes(state, model.vocabulary)
                known = head.of_tokens(judged)
                likeliest = head.tokens_at(known.topk(min(TOP, known.shape[-1]), -1).indices)
                agrees = likeliest == best[:, None]
                right[exit].append(agrees[:, 0])
                near[exit] += float(agrees.any(1).sum())
                far[exit] += float(imitation(judged, head.outcomes_of(teacher)))
                score = scores_of(head, lead(judged), criteria)
                scores[exit].append(score.masked_fill(~head.asked(state), math.inf))
        watch(min(start + AT_ONCE, len(texts)), len(texts))
    found = []
    for exit, layer in enumerate(layers):
        agreed, unsure = torch.cat(right[exit]).cpu().numpy(), torch.cat(scores[exit], 1).cpu().numpy()
        count = len(agreed)
        found.append(
            ExitQuality(
                layer=layer,
                tokens=count,
                agreement=float(agreed.mean()),
                top5_agreement=near[exit] / count,
                kl=far[exit] / count,
                auroc={name: auroc(row, agreed) for name, row in zip(criteria, unsure, strict=True)},
                asked=float(np.isfinite(unsure[0]).mean()),
            )
        )
    return found


@torch.no_grad()
def set_cuts(model: Transformer, texts: Sequence[Written]) -> None:
    """Let each probe pass as many tokens as it takes for `PASSED` of those its exit is right about.

    Args:
        model: Whose exits are trained; those without a probe stay as they are.
        texts: Stretches of tuning text.
    """
    gates = {layer: head_after(model, layer) for layer in model.shape.exit_layers}
    gates = {layer: head for layer, head in gates.items() if head.probe is not None}
    foreseen: dict[int, list[Tensor]] = {layer: [] for layer in gates}
    for start in range(0, len(texts) if gates else 0, AT_ONCE):
        for last, states in _parts(model, texts[start : start + AT_ONCE]):
            best = model.next_token(last).argmax(-1)
            for layer, state in zip(model.shape.exit_layers, states, strict=True):
                if (head := gates.get(layer)) is not None:
                    agrees = head(state, model.vocabulary).argmax(-1) == best
                    foreseen[layer].append(head.probed(state)[agrees])
    for layer, head in gates.items():
        right = torch.cat(foreseen[layer]) if foreseen[layer] else torch.empty(0)
        if len(right):
            head.cut.fill_(float(right.double().quantile(1 - PASSED)))


def auroc(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> float | None:
    """How often a right one scores lower than a wrong one, ties counting half; None if there is no pair."""
    good = int(right.sum())
    if good in (0, len(right)):
        return None
    ranks = rankdata(-np.nan_to_num(scores.astype(float), posinf=np.finfo(float).max))
    return float((ranks[right].sum() - good * (good + 1) / 2) / (good * (len(right) - good)))


def _parts(model: Transformer, texts: Sequence[Written]) -> list[tuple[Tensor, list[Tensor]]]:
    """Last states and those at every exit, for as many tokens at a time as logits may be made for."""
    ids, rows, source = batch_of(model, texts)
    states, last = states_at_exits(model, ids, rows, source)
    counted = tokens_that_count(model, rows)
    parts = counted.split(positions_at_once(model.architecture.vocab_size))
    return [(last[part], [state[part] for state in states]) for part in parts]
