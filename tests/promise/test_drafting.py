"""Drafts chosen on traces: what these say is read is what decoding reads, and the choice pays or is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ragged_ids, tiny_generator

import lessen
from lessen.plan import ExitRule, LanguageExitShape
from lessen.promise.drafting import LENGTHS, choose_drafts, read_per_token
from lessen.promise.language import Decoder
from lessen.promise.traces import Traces, trace
from lessen.reshaping import with_language_exits
from lessen.runtime.decoding import Decoding
from lessen.runtime.generation import generate
from lessen.runtime.tally import Tally

NEW_TOKENS = 24
PROMPTS = [ids.tolist() for ids in ragged_ids([5, 9, 3, 12, 7, 4, 6, 8] * 4, seed=8)]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Traces, Decoder]:
    """A tiny model in float64 whose exits agree with it often, but not always; and its traces."""
    folder: Path = tmp_path_factory.mktemp("drafting")
    theirs = tiny_generator("llama-grouped")
    for layer in theirs.model.layers:  # the layers change little, so that early states say much
        layer.mlp.down_proj.weight.data.mul_(0.15)
        layer.self_attn.o_proj.weight.data.mul_(0.15)
    theirs.save_pretrained(folder)
    exits = (
        LanguageExitShape(layer=1, kind="tied", rank=4),
        LanguageExitShape(layer=2, kind="shortlist", rank=4, words=90),
    )
    model = with_language_exits(lessen.load(folder), exits, words=range(101)).double()
    inner = model.eval().transformer
    keys = [f"{number:016x}" for number in range(len(PROMPTS))]
    traces = trace(inner, PROMPTS, keys, criteria=("entropy",), new_tokens=NEW_TOKENS)
    return inner, traces, Decoder(model.config.facts(), model.config.form())


def read(model, rule: ExitRule, most: int) -> tuple[float, float]:
    """Weights read for a token, as a share of those at full depth; and the share of drafts kept."""
    tally = Tally()
    decoding = Decoding("spec", rule, most=most)
    for _ in generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, decoding=decoding, tally=tally):
        pass
    whole = tally.costs.all_layers + tally.costs.vocabulary
    return tally.weights_per_token / whole, tally.acceptance or 0.0


def quantiles(traces: Traces, shares: tuple[float, float]) -> dict[int, float]:
    scores = [traces.scores[0, exit][traces.there] for exit in (0, 1)]
    return {
        layer: float(np.quantile(scores[layer - 1], share))
        for layer, share in zip((1, 2), shares, strict=True)
    }


@pytest.mark.parametrize("most", [1, 2, 5, 16])
@pytest.mark.parametrize("shares", [(0.02, 0.05), (0.2, 0.5), (0.6, 0.9)])
def test_traces_say_what_drafts_read(traced, shares: tuple[float, float], most: int) -> None:
    """Within 8 %, long drafts 15 %: after a wrong one decoding goes on along a text that is not in traces."""
    model, traces, decoder = traced
    rule = ExitRule(criterion="entropy", thresholds=quantiles(traces, shares))
    found, kept = read(model, rule, most)
    said = read_per_token(traces, rule, most, decoder) / decoder.whole_cost
    assert said == pytest.approx(found, rel=0.15 if most > 5 else 0.08)
    assert 0 < kept <= 1


def test_without_a_wrong_draft_they_say_it_exactly(traced) -> None:
    """Within 2 %: a token's attention to itself counts here and is no weight."""
    model, traces, decoder = traced
    sure = np.where(traces.right, traces.scores, np.float32(np.inf)).astype(np.float32)
    scores = [sure[0, exit][traces.there & ~traces.right[exit]] for exit in (0, 1)]
    assert all(np.isinf(score).all() for score in scores)
    wrong = [traces.scores[0, exit][traces.there & ~traces.right[exit]].min() for exit in (0, 1)]
    # Traces are in float32: just below, or a wrong token's own score in float64 may pass.
    below = {layer: (1 - 1e-6) * float(score) for layer, score in zip((1, 2), wrong, strict=True)}
    rule = ExitRule(criterion="entropy", thresholds=below)
    for most in (1, 4):
        found, kept = read(model, rule, most)
        assert kept == 1
        assert read_per_token(traces, rule, most, decoder) / decoder.whole_cost == pytest.approx(
            found, rel=0.02
        )


def test_what_is_chosen_reads_less_than_anything_near_it(traced) -> None:
    model, traces, decoder = traced
    drafts = choose_drafts(traces, decoder)
    assert drafts is not None
    assert drafts.most in LENGTHS
    chosen = read_per_token(traces, drafts.rule, drafts.most, decoder)
    assert chosen == pytest.approx((1 - drafts.weights_saved) * decoder.whole_cost)
    for most in LENGTHS:
        assert chosen <= read_per_token(traces, drafts.rule, most, decoder)
    found, _ = read(model, drafts.rule, drafts.most)
    assert 1 - found == pytest.approx(drafts.weights_saved, abs=0.05)


def test_where_no_draft_pays_there_is_none(traced) -> None:
    _, traces, decoder = traced
    assert choose_drafts(replace(traces, right=np.zeros_like(traces.right)), decoder) is None
    tied = decoder.shape.language_exits[0]
    exits = {"language_exits": (tied, tied.model_copy(update={"layer": 2}))}
    facts = decoder.facts.model_copy(update={"vocab_size": 10**7})
    dear = replace(decoder, facts=facts, shape=decoder.shape.model_copy(update=exits))
    assert choose_drafts(traces, dear) is None
    never = replace(traces, scores=np.full_like(traces.scores, np.inf))
    assert choose_drafts(never, decoder) is None


def test_a_token_costs_the_layers_and_the_exits_on_its_way(traced) -> None:
    _, traces, decoder = traced
    rule = ExitRule(criterion="entropy", thresholds={2: 0.5})
    left = traces.left_at(rule, (1, 2))
    costs = decoder.costs(traces, rule, left)
    assert np.isinf(costs[0]), "no token leaves at an exit without a threshold"
    share = float((left == 1)[traces.there].mean())
    assert share * costs[1] + (1 - share) * costs[2] == pytest.approx(decoder.cost(traces, rule))
