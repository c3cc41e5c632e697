"""Exits in a decoder that reads an encoder (CALM): tokens of a reply leave early, with exact keys and values.

Everything is float64; one tolerance for all: 1e-9 of the largest logit.
"""

import math
from pathlib import Path

import pytest
import torch
from conftest import early_seq2seq, median_rule, prompts_of, ragged_ids, rows_of

from lessen.depth.decay import slack
from lessen.depth.language import decide, states_at_exits
from lessen.errors import PlanError
from lessen.plan import Decay, ExitRule, Point
from lessen.runtime.cache import KeyValueCache
from lessen.runtime.decoding import Decoding
from lessen.runtime.source import Reply, batch_of, encoded
from lessen.runtime.tally import Tally
from lessen.runtime.waterfall import Waterfall

LENGTHS = [1, 9, 4, 4]
STOP = frozenset(range(90, 101))


def states_after(model, prompt, tokens):
    """All layers anew: states at exits and the last, of a reply so far."""
    begins = [model.architecture.decoder_start_token_id]
    text = torch.tensor([*begins, *tokens])
    return states_at_exits(model, *batch_of(model, [Reply(text, torch.tensor(prompt))]))


def exact_reference(model, prompt, rule, new_tokens, stop=(), most=16):
    tokens, layers, early = [], [], 0
    for place in range(new_tokens):
        states, last = states_after(model, prompt, tokens)
        layer, logits = model.writer.depth, model.next_token(last[-1:])
        for exit, hidden in zip(model.shape.exit_layers, states, strict=True):
            found = decide(model, exit, hidden[-1:], rule, stop, [place])
            if early < most and found is not None and found.leaves.item():
                layer, logits = exit, found.logits
                break
        early = early + 1 if layer < model.writer.depth else 0
        tokens.append(int(logits.argmax()))
        layers.append(layer)
        if tokens[-1] in stop:
            break
    return tokens, layers


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "kind"),
    [("t5", "tied"), ("t5", "shortlist"), ("t5-v1.1", "gate"), ("t5", "shared"), ("t5-v1.1", "full")],
)
def test_exact_is_the_reference_that_computes_all_anew(family: str, kind: str, tmp_path: Path) -> None:
    """Tokens and the layers they leave at, row by row; the encoder is deeper than none of it knows."""
    model = early_seq2seq(tmp_path, family, kind).transformer
    rule, prompts = median_rule(model), prompts_of(LENGTHS)
    options = {"max_new_tokens": 14, "stop": STOP, "decoding": Decoding("direct", rule, most=4)}
    found, tally = rows_of(model, prompts, **options)
    for row, prompt in enumerate(prompts):
        tokens, layers = exact_reference(model, prompt, rule, 14, STOP, most=4)
        assert found[row] == tokens
        assert tally.of(row).layers == layers
    left = {layer for text in tally.texts for layer in text.layers}
    assert {1, 5} <= left
    alone, _ = rows_of(model, prompts[1:2], **options)
    assert alone == found[1:2], "a row does not feel its neighbours"


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tied", "full", "shortlist"])
def test_a_new_head_after_the_last_layer_would_say_what_the_model_does(kind: str, tmp_path: Path) -> None:
    """Where T5 scales last states, heads of all kinds scale them too."""
    model = early_seq2seq(tmp_path, "t5", kind).transformer
    from lessen.model.language_heads import start

    head = model.language_exits["3"]
    start(head, model.writer.final_norm, model.vocabulary_matrix)
    raw = []

    def watch(layer, hidden, rows):
        return hidden, rows

    ids, rows, source = batch_of(model, [Reply(torch.arange(3, 12), torch.arange(5, 9))])
    norm = model.decoder.final_norm
    hook = norm.register_forward_pre_hook(lambda _, given: raw.append(given[0]))
    last, _ = model.write(ids, rows, source=source, after_layer=watch)
    hook.remove()
    assert model.architecture.language_head_scale != 1
    known = model.next_token(last)
    corrected = head.corrected(raw[0])
    judged, expected = head.judged(corrected, model.vocabulary), known
    if kind == "shortlist":
        judged, expected = judged[:, :-1], known[:, head.words]
    assert (judged - expected).abs().max() <= 1e-9 * known.abs().max()


@torch.no_grad()
def test_full_depth_never_notices_who_left_and_queues_keep_their_count(tmp_path: Path) -> None:
    model = early_seq2seq(tmp_path).transformer
    prompts, texts = ragged_ids([7, 3], 1), ragged_ids([30, 21])
    with torch.no_grad():
        ids, rows, _ = batch_of(model, prompts)
        cache = KeyValueCache(model, 2, 30, encoded(model, ids, rows))
    layers = Waterfall(model, cache, Decoding("direct", median_rule(model, 0.7)), (), tally := Tally())
    tally.begin(model, [1, 1], [7, 3])
    expected = [
        model.next_token(states_at_exits(model, *batch_of(model, [Reply(text, prompt)]))[1])
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    deep = 0
    for place in range(30):
        feed = {row: text[place : place + 1].tolist() for row, text in enumerate(texts) if place < len(text)}
        for answer in layers.step(feed, (), {}):
            for row, logits in answer.by_row():
                if answer.layer == 5:
                    deep += 1
                    known = expected[row][place]
                    assert (logits[0] - known).abs().max() <= 1e-9 * known.abs().max()
        for before, after, queues in zip(
            layers.stretches, layers.stretches[1:], layers.waiting[1:], strict=False
        ):
            for row in range(2):
                waiting = sum(map(len, queues.get(row, ())))
                assert cache.layers[after.start].seen(row) + waiting == cache.layers[before.start].seen(row)
    assert 5 < deep < 45


def propagate_reference(model, prompt, text, rule):
    """Logits after each token of a reply: all anew, tokens that left keep their states in later layers."""
    answers: list = []
    left: list = []
    depth = model.writer.depth
    for end in range(1, len(text) + 1):
        named: list = []
        frozen = torch.zeros(end, model.architecture.hidden_size).double()

        def after(layer, hidden, rows, named=named, frozen=frozen):
            for place, its in enumerate(left):
                if its == layer:
                    frozen[place] = hidden[place]
                elif its < layer < depth:
                    hidden[place] = frozen[place]
            if not named:
                found = decide(model, layer, hidden[-1:], rule)
                if found is not None and found.leaves.item():
                    named[:] = layer, found.logits
                elif layer == depth:
                    named[:] = layer, model.next_token(hidden[-1:])
            return hidden, rows

        ids, rows, source = batch_of(model, [Reply(text[:end], prompt)])
        model.write(ids, rows, source=source, after_layer=after)
        answers.append(named)
        left.append(named[0])
    return answers


@torch.no_grad()
def test_propagate_is_the_reference_that_keeps_early_states(tmp_path: Path) -> None:
    """CALM's own way; and it is not `exact`, or the two could be confused unnoticed."""
    model = early_seq2seq(tmp_path).transformer
    rule = median_rule(model, 0.6)
    prompts, texts = ragged_ids([7, 3], 1), ragged_ids([24, 15])
    ids, rows, _ = batch_of(model, prompts)
    cache = KeyValueCache(model, 2, 24, encoded(model, ids, rows))
    layers = Waterfall(model, cache, Decoding("direct", rule, kv="propagate"), (), tally := Tally())
    tally.begin(model, [1, 1], [7, 3])
    expected = [propagate_reference(model, *pair, rule) for pair in zip(prompts, texts, strict=True)]
    whole = [
        model.next_token(states_at_exits(model, *batch_of(model, [Reply(text, prompt)]))[1])
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    differ, seen = 0.0, set()
    for place in range(24):
        feed = {row: text[place : place + 1].tolist() for row, text in enumerate(texts) if place < len(text)}
        for answer in layers.step(feed, (), {}):
            for row, logits in answer.by_row():
                layer, known = expected[row][place]
                assert answer.layer == layer
                assert (logits - known).abs().max() <= 1e-9 * known.abs().max()
                seen.add(layer)
                if layer == 5:
                    full = whole[row][place]
                    differ = max(differ, float((logits[0] - full).abs().max() / full.abs().max()))
        assert all(layer.lengths[0] == place + 1 for layer in cache.layers)
    assert {1, 5} <= seen
    assert differ > 1e-3


@torch.no_grad()
def test_drafts_of_a_decoder_are_verified(tmp_path: Path) -> None:
    model = early_seq2seq(tmp_path).transformer
    prompts, rule = prompts_of(LENGTHS), median_rule(model)
    plain, _ = rows_of(model, prompts, max_new_tokens=12, stop=STOP)
    drafted, tally = rows_of(
        model, prompts, max_new_tokens=12, stop=STOP, decoding=Decoding("spec", rule, most=3)
    )
    assert drafted == plain
    assert tally.acceptance is not None


@torch.no_grad()
def test_exits_go_with_tokens_that_leave_in_the_encoder(tmp_path: Path) -> None:
    """At a Point with both, replies are written of what is left, early or not."""
    model = early_seq2seq(tmp_path).transformer
    rule, point = median_rule(model), Point(name="half", retention=(0.6, 0.4))
    prompts = prompts_of([9, 14])
    both, tally = rows_of(model, prompts, max_new_tokens=8, decoding=Decoding("direct", rule, prompts=point))
    exits_only, _ = rows_of(model, prompts, max_new_tokens=8, decoding=Decoding("direct", rule))
    assert both != exits_only
    assert tally.mean_layers < 5


def test_slack_is_the_paper_s_threshold_the_other_way_round() -> None:
    """score < theta on what is compared, where 1 - score >= clip(0.9 lambda + 0.1 exp(-tau t / N))."""
    decay = Decay(rate=4.0, tokens=50)
    scores = torch.linspace(0, 1, 300).double() + 1e-7
    for place, allowed in zip((0, 3, 49), slack((0, 3, 49), decay), strict=True):
        for strictness in (0.0, 0.3, 0.7, 0.95, 1.0):
            paper = min(1.0, max(0.0, 0.9 * strictness + 0.1 * math.exp(-4.0 * place / 50)))
            leaves = 1 - scores > paper
            compared = (scores - allowed) / 0.9 < 1 - strictness
            assert (leaves == compared).all()


@torch.no_grad()
def test_a_decaying_threshold_goes_by_the_place_in_the_text(tmp_path: Path) -> None:
    model = early_seq2seq(tmp_path, kind="shared").transformer
    fixed = median_rule(model, criterion="closeness")
    decaying = fixed.model_copy(update={"decay": Decay(rate=6.0, tokens=14)})
    prompts = prompts_of(LENGTHS)
    found = {}
    for name, rule in (("fixed", fixed), ("decaying", decaying)):
        decoding = Decoding("direct", rule, most=99)
        found[name], tally = rows_of(model, prompts, max_new_tokens=14, decoding=decoding)
        for row, prompt in enumerate(prompts):
            tokens, layers = exact_reference(model, prompt, rule, 14, most=99)
            assert (found[name][row], tally.of(row).layers) == (tokens, layers)
    assert found["fixed"] != found["decaying"]
    with pytest.raises(PlanError, match="cannot decay; use improbability or closeness"):
        rows_of(
            model,
            prompts,
            max_new_tokens=2,
            decoding=Decoding("direct", ExitRule(criterion="entropy", threshold=1.0, decay=decaying.decay)),
        )
