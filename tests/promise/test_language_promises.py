"""Promises of generators: traces, nested paths, and what a certificate is worth (page 6; P10, P11, P12)."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import ragged_ids, tiny_generator

import lessen
from lessen.depth.criteria import LANGUAGE
from lessen.depth.language import decide
from lessen.errors import InputError
from lessen.guarantee import certify, plug_in
from lessen.model.architecture import Architecture
from lessen.model.rows import pack
from lessen.plan import ExitRule, LanguageExitShape, Point, dense_shape
from lessen.promise.generators import dearer_than_full
from lessen.promise.language import (
    Decoder,
    freeze_path,
    judge,
    losses_of,
    measured,
    path_of,
    sets_of_exits,
    why_not,
)
from lessen.promise.traces import Traces, trace
from lessen.reshaping import with_language_exits
from lessen.runtime.decoding import Decoding
from lessen.runtime.generation import generate
from lessen.runtime.tally import Tally

LAYERS = (2, 4)
FACTS = Architecture(
    family="llama", vocab_size=200, hidden_size=16, embedding_size=16, num_hidden_layers=6,
    num_attention_heads=2, num_key_value_heads=2, head_dim=8, intermediate_size=32,
    max_position_embeddings=64, norm_place="pre", causal=True, language_head="tied",
)  # fmt: skip
EXITS = tuple(LanguageExitShape(layer=layer, kind="full") for layer in LAYERS)
SHAPE = dense_shape(6, 2, 32).model_copy(update={"language_exits": EXITS})
DECODER = Decoder(FACTS, SHAPE, block=8)


def made_up(prompts: int, seed: int, tokens: int = 16) -> Traces:
    """Two exits, right more often where they are surer; some prompts are harder than others (page, 6.4)."""
    generator = np.random.default_rng(seed)
    hard = generator.normal(0, 0.8, (1, prompts, 1))
    own = hard + generator.normal(0, 1, (1, prompts, tokens))
    doubt = own + generator.normal(0, 0.6, (2, prompts, tokens)) + np.array([0.4, -0.4])[:, None, None]
    right = generator.random(doubt.shape) < 1 / (1 + np.exp(3 * (doubt - 0.7)))
    lengths = generator.integers(tokens // 2, tokens + 1, prompts)
    there = np.arange(tokens) < lengths[:, None]
    scores = np.where(there, np.exp(doubt), np.inf)[None].astype(np.float32)
    keys = tuple(f"{i:016x}" for i in generator.permutation(prompts))
    return Traces(("entropy",), scores, right & there, lengths, keys)


def test_the_tokens_that_leave_at_a_step_leave_at_the_next() -> None:
    """P10, in scores the path was made on and in others; thresholds never fall."""
    path = path_of(made_up(300, 0), "entropy", LAYERS)
    assert len(path) > 20
    for traces in (made_up(300, 0), made_up(200, 1)):
        before = np.zeros(traces.right.shape[1:], dtype=bool)
        for step in path:
            leaves = traces.left_at(step.exits, LAYERS) < 2
            assert (leaves >= before).all()
            before = leaves
        assert before.any()
    for layer in LAYERS:
        thresholds = [step.exits.thresholds[layer] for step in path if layer in step.exits.thresholds]
        assert thresholds == sorted(thresholds)


def test_tokens_that_cannot_leave_never_do() -> None:
    traces = made_up(100, 0)
    scores = traces.scores.copy()
    scores[0, :, :, 3] = np.inf
    barred = replace(traces, scores=scores)
    for step in path_of(barred, "entropy", LAYERS):
        assert (barred.left_at(step.exits, LAYERS)[:, 3] == 2).all()
        assert all(np.isfinite(value) for value in step.exits.thresholds.values())


def test_losses_are_what_the_page_says_token_by_token() -> None:
    traces, epsilon = made_up(40, 2), 0.1
    path = path_of(made_up(200, 1), "entropy", LAYERS)[::15]
    found = {kind: losses_of(kind, traces, path, DECODER, epsilon).values for kind in
             ("disagreement", "selective", "block")}  # fmt: skip
    for row in range(len(traces)):
        for column, step in enumerate(path):
            wrong = early = failed = 0
            for token in range(traces.lengths[row]):
                for exit, layer in enumerate(LAYERS):
                    threshold = step.exits.thresholds.get(layer)
                    if threshold is not None and traces.scores[0, exit, row, token] < threshold:
                        early += 1
                        wrong += not traces.right[exit, row, token]
                        failed |= token < 8 and not traces.right[exit, row, token]
                        break
            assert found["disagreement"][row, column] == pytest.approx(wrong / traces.lengths[row])
            selective = epsilon + (wrong - epsilon * early) / 16
            assert found["selective"][row, column] == pytest.approx(selective)
            assert found["block"][row, column] == failed


@pytest.mark.parametrize("loss", ["disagreement", "selective", "block"])
def test_certificates_hold_over_draws(loss: str) -> None:
    """P12: of 500 draws from a pool at most delta + 2 standard errors break the bound; plug-in far more."""
    epsilon, delta, draws = {"block": 0.3}.get(loss, 0.05), 0.1, 500
    pool = made_up(2000, 3)
    tune = made_up(300, 4)
    path = path_of(tune, "entropy", LAYERS)  # of both exits: a cascade is where plug-in errs most
    path = freeze_path(tune, DECODER, epsilon, loss) if loss == "selective" else path
    crossing = int((losses_of(loss, pool, path, DECODER, epsilon).risks > epsilon).argmax())
    assert crossing >= 6
    path = (*path[: crossing - 6 : 8], *path[crossing - 6 : crossing + 6])
    losses = losses_of(loss, pool, path, DECODER, epsilon)
    over = losses.risks > epsilon
    assert over.any()
    assert not over.all()
    generator = np.random.default_rng(5)
    violations = plugged = used = 0
    for _ in range(draws):
        drawn = losses.take(generator.integers(len(pool), size=400))
        step, bold = certify(drawn, epsilon, delta).step, plug_in(drawn, epsilon).step
        violations += step is not None and bool(over[step])
        plugged += bold is not None and bool(over[bold])
        used += step is not None
    assert violations / draws <= delta + 2 * (delta * (1 - delta) / draws) ** 0.5
    assert plugged / draws > (0.05 if loss == "selective" else 0.2) > violations / draws
    assert used > draws / 2, "a certificate that is never given keeps its word for free"


def test_judging_takes_the_boldest_step_that_passes() -> None:
    tune, traces = made_up(300, 6), made_up(600, 7)
    path = freeze_path(tune, DECODER, 0.05, "disagreement")
    loose, tight = judge(traces, path, DECODER, (0.08, 0.02), 0.1)
    assert loose.chosen.step > tight.chosen.step
    assert loose.delta == tight.delta == 0.05
    assert 2 < loose.mean_layers < tight.mean_layers < 6
    assert loose.early > tight.early > 0
    for verdict in (loose, tight):
        assert verdict.chosen.test == "betting"
        assert all(p <= 0.05 for p in verdict.chosen.pvalues[:-1])
        assert len(verdict.chosen.pvalues) == verdict.chosen.step + 2
        did = measured(traces, path[verdict.chosen.step].exits, DECODER)
        assert 1 - did["agreement"] == pytest.approx(verdict.chosen.risks[verdict.chosen.step])


def test_why_a_bound_could_not_be_kept() -> None:
    few = made_up(25, 8)
    path = freeze_path(made_up(300, 6), DECODER, 0.01, "disagreement")
    verdict = judge(few, path, DECODER, (0.01,), 0.1)[0]
    assert verdict.chosen.step is None
    assert verdict.mean_layers == 6
    assert "25 prompts are too few to certify 1%" in why_not(few, path, DECODER, verdict, "disagreement")
    assert "no exit" in why_not(few, (), DECODER, verdict, "disagreement")


def test_the_cost_is_the_closed_form_at_the_shares_seen() -> None:
    traces = made_up(50, 9)
    rule = ExitRule(criterion="entropy", thresholds={2: 0.8, 4: 1.5})
    left = traces.left_at(rule, LAYERS)[traces.there]
    shares = [(left == place).mean() for place in range(3)]
    layer = 4 * 16 * 16 + 2 * 16 + 2 * 16 * 32  # projections, attention to itself, feed-forward
    head = 200 * 16 / layer
    assert DECODER.whole_cost == pytest.approx(6 + head)
    expected = shares[0] * (2 + head) + shares[1] * (4 + 2 * head) + shares[2] * (6 + 3 * head)
    assert measured(traces, rule, DECODER)["block_equivalents"] == pytest.approx(expected)
    one = ExitRule(criterion="entropy", thresholds={4: 1.5})
    share = (traces.left_at(one, LAYERS)[traces.there] == 1).mean()
    expected = share * (4 + head) + (1 - share) * (6 + 2 * head)
    assert measured(traces, one, DECODER)["block_equivalents"] == pytest.approx(expected), "one exit is asked"


def hardly_leaving(prompts: int, seed: int) -> Traces:
    """Like `made_up`, but the first exit is right about the surest 2 % of the tokens, and no others."""
    traces = made_up(prompts, seed)
    right, scores = traces.right.copy(), traces.scores[0, 0]
    right[0] = traces.there & (scores <= np.quantile(scores[traces.there], 0.02))
    return replace(traces, right=right)


def test_an_exit_that_does_not_pay_is_not_asked() -> None:
    tune = hardly_leaving(300, 6)
    path = freeze_path(tune, DECODER, 0.05, "disagreement")
    assert {layer for step in path for layer in step.exits.thresholds} == {4}

    def cost_of(path) -> float:
        """At the boldest step within the bound."""
        risks = losses_of("disagreement", tune, path, DECODER, 0.05).risks
        return DECODER.cost(tune, path[int((risks <= 0.05).sum()) - 1].exits)

    assert cost_of(path) < cost_of(path_of(tune, "entropy", LAYERS))
    cheap = replace(DECODER, facts=FACTS.model_copy(update={"vocab_size": 4}))
    both = freeze_path(made_up(300, 6), cheap, 0.05, "disagreement")
    assert {layer for step in both for layer in step.exits.thresholds} == {2, 4}
    assert sets_of_exits(2) == [(0, 1), (0,), (1,)]
    assert len(sets_of_exits(4)) == 15
    assert len(sets_of_exits(9)) == 10


def test_a_point_that_costs_more_than_full_depth_says_so() -> None:
    tune, rule = made_up(50, 9), ExitRule(criterion="entropy", thresholds={2: 1e-6})
    said = dearer_than_full(tune, Point(name="p", exits=rule), DECODER)
    assert said.startswith("its exits cost more than they save: 9.1 layers a token"), said
    assert dearer_than_full(tune, Point(name="p", exits=ExitRule(criterion="entropy", threshold=9e9)),
                            DECODER) is None  # fmt: skip


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory):
    """A tiny model in float64 whose exits agree with it often, but not always."""
    folder = tmp_path_factory.mktemp("noisy")
    theirs = tiny_generator("llama-grouped")
    for layer in theirs.model.layers:  # the layers change little, so that early states say much
        layer.mlp.down_proj.weight.data.mul_(0.15)
        layer.self_attn.o_proj.weight.data.mul_(0.15)
    theirs.save_pretrained(folder)
    exits = [LanguageExitShape(layer=1, kind="tied", rank=4), LanguageExitShape(layer=2, kind="shortlist",
             rank=4, words=90)]  # fmt: skip
    return with_language_exits(lessen.load(folder), exits, words=range(101)).double().transformer


def directly(model, prompt: list[int], rule: ExitRule, count: int, stop: set[int]) -> list[int]:
    """Decoding with early exits and an exact context, one whole pass for each token: the slow definition."""
    text = list(prompt)
    for _ in range(count):
        said: list[int] = []

        def after(layer, hidden, rows, said=said):
            decision = decide(model, layer, hidden[-1:], rule, stop)
            if decision is not None and decision.leaves[0] and not said:
                said.append(int(decision.logits.argmax()))
            return hidden, rows

        hidden, _ = model(*pack([torch.tensor(text)]), after_layer=after)
        text.append(said[0] if said else int(model.next_token(hidden[-1:]).argmax()))
        if text[-1] in stop:
            break
    return text[len(prompt) :]


@torch.no_grad()
@pytest.mark.parametrize("criterion", LANGUAGE)
def test_direct_decoding_differs_exactly_where_a_trace_says_so(noisy, criterion: str) -> None:
    """P11: the output is the model's own if and only if no token that leaves along it is wrong."""
    prompts, stop = [ids.tolist() for ids in ragged_ids([3, 9, 5, 14, 7, 4], seed=8)], {2, 50}
    keys = [f"{i:016x}" for i in range(len(prompts))]
    traces = trace(noisy, prompts, keys, criteria=LANGUAGE, new_tokens=12, stop=stop)
    own = [
        directly(noisy, prompt, ExitRule(criterion="entropy", thresholds={}), 12, stop) for prompt in prompts
    ]
    assert traces.lengths.tolist() == [len(text) for text in own]
    scores = traces.scores[LANGUAGE.index(criterion)]
    seen = []
    for share in (0.05, 0.3, 0.8):
        thresholds = {
            layer: float(np.quantile(scores[exit][np.isfinite(scores[exit])], share))
            for exit, layer in enumerate((1, 2))
        }
        rule = ExitRule(criterion=criterion, thresholds=thresholds)
        wrong = traces.wrong_at(traces.left_at(rule, (1, 2)))
        for row, prompt in enumerate(prompts):
            early = directly(noisy, prompt, rule, 12, stop)
            options = {"stop": stop, "decoding": Decoding("direct", rule, most=100)}
            decoded = [step[0] for step in generate(noisy, [prompt], max_new_tokens=12, **options)]
            assert decoded == early, "the loop with its cache says what the definition says"
            first = int(wrong[row].argmax()) if wrong[row].any() else len(own[row])
            assert early[:first] == own[row][:first]
            assert (early == own[row]) == (not wrong[row].any())
            seen.append(bool(wrong[row].any()))
    assert any(seen)
    assert not all(seen)


@torch.no_grad()
def test_tokens_in_a_row_are_counted_as_decoding_counts_them(noisy) -> None:
    """At most so many early tokens in a row, in traces as in the loop: else shares of early ones are others.

    All tokens would leave, and many of them are wrong: each is compared as long as the texts are the same.
    """
    prompts = [ids.tolist() for ids in ragged_ids([3, 9, 5, 14], seed=8)]
    traces = trace(noisy, prompts, "abcd", criteria=["entropy"], new_tokens=12)
    rule = ExitRule(criterion="entropy", threshold=1e9)
    for most in (1, 2, 3, 12):
        left = traces.left_at(rule, (1, 2), most)
        wrong = traces.wrong_at(left)
        for row, prompt in enumerate(prompts):
            tally = Tally()
            decoding = Decoding("direct", rule, most=most)
            list(generate(noisy, [prompt], max_new_tokens=12, decoding=decoding, tally=tally))
            same = int(wrong[row].argmax()) + 1 if wrong[row].any() else 12
            depths = np.array([1, 2, 3])[left[row, :same]].tolist()
            assert tally.of(0).layers[:same] == depths
        assert ((left == 2).sum(1) == 12 // (most + 1)).all()


def test_a_higher_target_lets_no_more_tokens_leave() -> None:
    """P16: bounds from loose to tight along one path, on the calibration prompts and on others."""
    tune, traces, others = made_up(300, 6), made_up(600, 7), made_up(300, 10)
    path = freeze_path(tune, DECODER, 0.08, "disagreement")
    verdicts = judge(traces, path, DECODER, (0.08, 0.06, 0.04, 0.02), 0.1)
    rules = [path[verdict.chosen.step].exits for verdict in verdicts]
    for pool in (traces, others):
        shares = [measured(pool, rule, DECODER)["early"] for rule in rules]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] > shares[-1] > 0
        for loose, tight in pairwise(pool.left_at(rule, LAYERS) < 2 for rule in rules):
            assert (loose >= tight).all(), "token by token"


def test_rules_of_criteria_that_were_not_asked_are_refused() -> None:
    with pytest.raises(InputError, match="'margin' is none of those kept: entropy"):
        made_up(5, 0).left_at(ExitRule(criterion="margin", threshold=1.0), LAYERS)


def test_parts_of_traces() -> None:
    traces = made_up(10, 0)
    part = traces.take([7, 2])
    assert part.keys == (traces.keys[7], traces.keys[2])
    assert np.array_equal(part.right, traces.right[:, [7, 2]])
    assert traces.digest == made_up(10, 0).digest != made_up(10, 1).digest
    point = Point(name="p", exits=ExitRule(criterion="entropy", threshold=1.0))
    assert losses_of("block", part, [point], DECODER, 0.1).values.shape == (2, 1)
