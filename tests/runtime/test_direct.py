"""Mode `direct`: tokens leave at exits; what skipped layers remember is full depth's own, or named as not.

Everything is float64: keys and values that come late are those of a whole pass to 1e-9 of the largest logit.
"""

from pathlib import Path

import pytest
import torch
from conftest import early_generator, median_rule, prompts_of, ragged_ids, rows_of, tiny_generator

import lessen
from lessen.depth.language import decide, states_at_exits
from lessen.errors import InputError, PlanError
from lessen.model.rows import pack
from lessen.plan import ExitRule
from lessen.runtime.cache import KeyValueCache
from lessen.runtime.decoding import Decoding
from lessen.runtime.sampling import Sampling
from lessen.runtime.tally import Tally
from lessen.runtime.waterfall import Waterfall

LENGTHS = [1, 9, 4, 4]
STOP = frozenset(range(90, 101))


def exact_reference(model, prompt, rule, new_tokens, stop=(), most=16):
    """All anew for every token, without a cache: which exit is the first that is sure, and its answer."""
    tokens, layers, early = [], [], 0
    for _ in range(new_tokens):
        states, last = states_at_exits(model, *pack([torch.tensor([*prompt, *tokens])]))
        layer, logits = model.depth, model.next_token(last[-1:])
        for exit, hidden in zip(model.shape.exit_layers, states, strict=True):
            found = decide(model, exit, hidden[-1:], rule, stop)
            if early < most and found is not None and found.leaves.item():
                layer, logits = exit, found.logits
                break
        early = early + 1 if layer < model.depth else 0
        tokens.append(int(logits.argmax()))
        layers.append(layer)
        if tokens[-1] in stop:
            break
    return tokens, layers


def propagate_reference(model, text, rule, read):
    """Logits after each token of a text from `read` on, and where they are named: all anew for each.

    A token that left keeps the states it left with in all later layers.
    """
    answers: list = []
    left = [model.depth] * read
    for end in range(read + 1, len(text) + 1):
        named: list = []
        frozen = torch.zeros(end, model.architecture.hidden_size).double()

        def after(layer, hidden, rows, named=named, frozen=frozen):
            for place, its in enumerate(left):
                if its == layer:
                    frozen[place] = hidden[place]
                elif its < layer < model.depth:
                    hidden[place] = frozen[place]
            if not named:
                found = decide(model, layer, hidden[-1:], rule)
                if found is not None and found.leaves.item():
                    named[:] = layer, found.logits
                elif layer == model.depth:
                    named[:] = layer, model.next_token(hidden[-1:])
            return hidden, rows

        model(*pack([text[:end]]), after_layer=after)
        answers.append(named)
        left.append(named[0])
    return answers


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama-grouped", "tied"), ("gpt2", "full"), ("gpt_neox", "gate"), ("qwen3", "shortlist")],
)
def test_exact_is_the_reference_that_computes_all_anew(family: str, kind: str, tmp_path: Path) -> None:
    """P4, P13: tokens and the layers they leave at, row by row, of a batch whose rows leave at will."""
    model = early_generator(tmp_path, family, kind).transformer
    rule, prompts = median_rule(model), prompts_of(LENGTHS)
    options = {"max_new_tokens": 14, "stop": STOP, "decoding": Decoding("direct", rule, most=4)}
    found, tally = rows_of(model, prompts, **options)
    for row, prompt in enumerate(prompts):
        tokens, layers = exact_reference(model, prompt, rule, 14, STOP, most=4)
        assert found[row] == tokens
        assert tally.of(row).layers == layers
    left = [layer for text in tally.texts for layer in text.layers]
    assert {3, 5} <= set(left)
    if family == "llama-grouped":
        assert len({len(tokens) for tokens in found}) > 1, "rows should end at different steps"


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama-grouped", "gpt2", "gpt_neox", "qwen3", "llama-biases"])
def test_propagate_is_the_reference_that_keeps_early_states(family: str, tmp_path: Path) -> None:
    """For texts given in advance; and it is not `exact`, or the two could be confused unnoticed."""
    model = early_generator(tmp_path, family).transformer
    rule, texts = median_rule(model, 0.6), ragged_ids([30, 21])
    cache = KeyValueCache(model, 2, 30)
    layers = Waterfall(model, cache, Decoding("direct", rule, kv="propagate"), (), tally := Tally())
    tally.begin(model, [1, 1])
    layers.read({row: text[:4].tolist() for row, text in enumerate(texts)})
    expected = [propagate_reference(model, text, rule, 4) for text in texts]
    whole = [model.next_token(model(*pack([text]))[0]) for text in texts]
    differ, seen = 0.0, set()
    for place in range(4, 30):
        feed = {row: text[place : place + 1].tolist() for row, text in enumerate(texts) if place < len(text)}
        for answer in layers.step(feed, (), {}):
            for row, logits in answer.by_row():
                layer, known = expected[row][place - 4]
                assert answer.layer == layer
                assert (logits - known).abs().max() <= 1e-9 * known.abs().max()
                seen.add(layer)
                if layer == model.depth:
                    full = whole[row][place]
                    differ = max(differ, float((logits[0] - full).abs().max() / full.abs().max()))
        assert all(layer.lengths[0] == place + 1 for layer in cache.layers)
    assert {3, 5} <= seen
    assert differ > 1e-3


def test_propagated_text_is_not_exact_text(tmp_path: Path) -> None:
    model = early_generator(tmp_path).transformer
    prompts, rule = prompts_of([1, 6]), median_rule(model)
    exact, propagated = (
        rows_of(model, prompts, max_new_tokens=12, decoding=Decoding("direct", rule, kv=kv))
        for kv in ("exact", "propagate")
    )
    assert exact[0] != propagated[0]
    assert propagated[1].of(1).macs < exact[1].of(1).macs
    alone, _ = rows_of(
        model, prompts[:1], max_new_tokens=12, decoding=Decoding("direct", rule, kv="propagate")
    )
    assert alone == propagated[0][:1], "a prompt of one token has nothing to be read first"


def check_queues(layers: Waterfall, cache: KeyValueCache, rows: int) -> None:
    """Of two stretches that follow one another, the first is ahead by what waits between them."""
    for before, after, queues in zip(
        layers.stretches, layers.stretches[1:], layers.waiting[1:], strict=False
    ):
        for row in range(rows):
            waiting = sum(map(len, queues.get(row, ())))
            assert cache.layers[after.start].seen(row) + waiting == cache.layers[before.start].seen(row)
    for stretch in layers.stretches:
        assert len({tuple(cache.layers[layer].lengths) for layer in stretch}) == 1


@torch.no_grad()
def test_full_depth_never_notices_who_left(tmp_path: Path) -> None:
    """P4: logits at full depth, of texts given in advance, after any pattern of exits; and invariants."""
    model = early_generator(tmp_path).transformer
    texts = ragged_ids([40, 31])
    cache = KeyValueCache(model, 2, 40)
    layers = Waterfall(model, cache, Decoding("direct", median_rule(model, 0.7)), (), tally := Tally())
    tally.begin(model, [1, 1])
    expected = [model.next_token(model(*pack([text]))[0]) for text in texts]
    deep = 0
    for place in range(40):
        feed = {row: text[place : place + 1].tolist() for row, text in enumerate(texts) if place < len(text)}
        for answer in layers.step(feed, (), {}):
            for row, logits in answer.by_row():
                if answer.layer == model.depth:
                    deep += 1
                    known = expected[row][place]
                    assert (logits[0] - known).abs().max() <= 1e-9 * known.abs().max()
        check_queues(layers, cache, 2)
    assert 5 < deep < 60


@torch.no_grad()
def test_what_waits_is_bounded(tmp_path: Path) -> None:
    """With every token sure at the first exit, each `most` of them are followed by one at full depth."""
    model = early_generator(tmp_path).transformer
    rule = ExitRule(criterion="entropy", threshold=99.0)
    _, tally = rows_of(model, [[5, 6, 7]], max_new_tokens=9, decoding=Decoding("direct", rule, most=3))
    assert tally.of(0).layers == [1, 1, 1, 5, 1, 1, 1, 5, 1]


@torch.no_grad()
def test_without_a_sure_exit_it_is_off(tmp_path: Path) -> None:
    """P2: thresholds nothing is below; logits go through the same products, so tokens are the same."""
    model = early_generator(tmp_path).float().transformer
    prompts = prompts_of(LENGTHS)
    never = ExitRule(criterion="entropy", threshold=-1.0)
    off, _ = rows_of(model, prompts, max_new_tokens=12)
    modes = Decoding("direct", never), Decoding("direct", never, kv="propagate"), Decoding("spec", never)
    for decoding in modes:
        found, tally = rows_of(model, prompts, max_new_tokens=12, decoding=decoding)
        assert found == off
        assert all(set(text.layers) == {5} for text in tally.texts)
        assert tally.acceptance is None


@torch.no_grad()
def test_with_one_exit_always_sure_it_is_the_shorter_model(tmp_path: Path) -> None:
    """P3: layers after the exit matter as little as if they were not there."""
    model = early_generator(tmp_path).transformer
    rule = ExitRule(criterion="entropy", thresholds={3: 99.0})
    (found,), tally = rows_of(
        model, [[7, 8, 9]], max_new_tokens=10, decoding=Decoding("direct", rule, most=100)
    )
    tokens: list[int] = []
    for _ in range(10):
        ids, rows = pack([torch.tensor([7, 8, 9, *tokens])])
        hidden, _ = model.stack(model.embeddings(ids, rows), rows, layers=range(3))
        tokens.append(int(model.language_exits["3"](hidden[-1:], model.vocabulary).argmax()))
    assert found == tokens
    assert tally.of(0).layer_weights * 5 == tally.costs.all_layers * 3 * 10


@torch.no_grad()
def test_off_asks_no_exit(tmp_path: Path, monkeypatch) -> None:
    """P1: tokens and, bit for bit, logits of the model without exits; no head is ever called."""
    model = early_generator(tmp_path).float()
    tiny_generator("llama-grouped", num_hidden_layers=5).save_pretrained(tmp_path / "base")
    base = lessen.load(tmp_path / "base").transformer
    for head in model.transformer.language_exits.values():
        head.corrected = head.asked = None  # calling either is an error
    prompts, logits = prompts_of(LENGTHS), []
    plain = type(base).next_token

    def watched(self, hidden):
        logits.append(plain(self, hidden))
        return logits[-1]

    monkeypatch.setattr(type(base), "next_token", watched)
    found, tally = rows_of(model.transformer, prompts, max_new_tokens=10)
    of_ours, logits = logits, []
    assert found == rows_of(base, prompts, max_new_tokens=10)[0]
    assert tally.weight_passes == 1.0
    assert len(logits) == len(of_ours) == 10
    assert all(torch.equal(one, other) for one, other in zip(of_ours, logits, strict=True))


@torch.no_grad()
def test_costs_are_those_of_what_ran(tmp_path: Path) -> None:
    """P15: closed forms of each kind, from where each token left; layers as often as they were called."""
    from lessen.model.macs import language_head_macs, layer_macs, skipped_layer_macs, token_macs

    model = early_generator(tmp_path).transformer
    facts, shape, rule, prompt = model.architecture, model.shape, median_rule(model), [4, 5, 6]
    calls = [0] * model.depth
    for place, block in enumerate(model.layers):
        block.register_forward_hook(lambda *_, place=place: calls.__setitem__(place, calls[place] + 1))
    _, off = rows_of(model, [prompt], max_new_tokens=11)
    bare = shape.model_copy(update={"language_exits": ()})
    assert off.of(0).macs == sum(token_macs(facts, bare, 2 + place) for place in range(11))
    assert off.layer_reads == sum(calls) == 55

    heads = [language_head_macs(facts, exit).always for exit in shape.language_exits]
    for kv in ("propagate", "exact"):
        calls[:] = [0] * model.depth
        _, tally = rows_of(model, [prompt], max_new_tokens=11, decoding=Decoding("direct", rule, kv=kv))
        left = tally.of(0).layers
        whole = 1 if kv == "propagate" else 0  # the prompt's other tokens have a pass of their own
        assert tally.layer_reads == sum(calls) == sum(left) + 5 * whole
        deepest = [max(left[place:]) if kv == "exact" else its for place, its in enumerate(left)]
        expected = 0
        for place, (its, run) in enumerate(zip(left, deepest, strict=True)):
            expected += sum(layer_macs(facts, layer, 1, before=2 + place) for layer in shape.layers[:run])
            expected += heads[0] + (heads[1] if its > 1 else 0) if its < 5 else sum(heads)
            expected += facts.hidden_size * facts.vocab_size if its == 5 else 0
            if kv == "propagate":
                expected += sum(skipped_layer_macs(facts, layer) for layer in shape.layers[its:])
        assert tally.of(0).macs == expected
    assert 1 < tally.mean_layers < 5


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    model = early_generator(tmp_path)
    rule = ExitRule(criterion="entropy", threshold=1.0)
    with pytest.raises(InputError, match="mode 'fast': choose off, direct, spec"):
        Decoding("fast", rule)
    with pytest.raises(InputError, match="kv 'copy': choose exact, propagate"):
        Decoding("direct", rule, "copy")
    with pytest.raises(InputError, match="needs a Point at which tokens leave"):
        Decoding("direct")
    with pytest.raises(InputError, match="'propagate' is for mode direct"):
        Decoding("spec", rule, "propagate")
    with pytest.raises(InputError, match="must be 1 or more"):
        Decoding("spec", rule, most=0)
    options = {"max_new_tokens": 1, "decoding": Decoding("direct", rule)}
    with pytest.raises(InputError, match="use mode spec to draw"):
        rows_of(model.transformer, [[1]], sampling=Sampling(1.0), **options)
    tiny_generator("gpt2").save_pretrained(tmp_path / "bare")
    with pytest.raises(PlanError, match="no exits that name tokens"):
        rows_of(lessen.load(tmp_path / "bare").transformer, [[1]], **options)
