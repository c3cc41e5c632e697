"""Tokens that leave in T5's encoder: what is left, and nothing else, is what an untouched decoder reads.

Property tests of the latency-adjustable page, 1.12, by their numbers. fp64 to 1e-9 of the largest logit.
"""

import math
import random
from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, tiny_seq2seq

import lessen
from lessen.errors import InputError, PlanError
from lessen.model.cross import Source
from lessen.model.linear import Linear
from lessen.model.macs import decoder_token_macs, row_macs, source_macs
from lessen.model.rows import following, pack
from lessen.plan import FULL, Point
from lessen.runtime.cache import KeyValueCache
from lessen.runtime.decoding import Decoding
from lessen.runtime.engine import elimination_of
from lessen.runtime.generation import generate
from lessen.runtime.source import encoded
from lessen.runtime.tally import Tally
from lessen.tokens.elimination import left_after_layers
from lessen.tokens.score import NAMES

LENGTHS = [1, 2, 30, 9, 17, 9]
SHARES = (0.6, 0.3)


def both(folder: Path, family: str = "t5-v1.1"):
    theirs = tiny_seq2seq(family)
    theirs.save_pretrained(folder)
    return theirs.double(), lessen.load(folder).double()


def at(shares, score: str = "mean") -> Point:
    return Point(name="some", retention=shares, token_score=score)


@torch.no_grad()
def slowly(model, text: torch.Tensor, choose) -> torch.Tensor:
    """The encoder in full shapes, `[tokens, hidden]`: tokens that have left are only hidden from others.

    `choose(layer, probabilities [heads, queries, keys], alive)` says who is there after a layer.
    """
    ids, rows = pack([text])
    hidden, bias = model.embeddings(ids, rows), model.relative_bias(len(text))
    alive = set(range(len(text)))
    for number, block in enumerate(model.layers, start=1):
        hide = torch.zeros(len(text), len(text), dtype=torch.float64)
        hide[:, sorted(set(range(len(text))) - alive)] = -math.inf
        heads, dim = block.attention.heads, block.attention.head_dim
        qkv = block.attention.qkv(block.attention_norm(hidden)).unflatten(-1, (3, heads, dim))
        query, key, value = qkv.unbind(1)
        weights = (torch.einsum("qhd,khd->hqk", query, key) + bias + hide).softmax(-1)
        context = torch.einsum("hqk,khd->qhd", weights, value).flatten(1)
        hidden = hidden + block.attention.output(context)
        hidden = hidden + block.feed_forward(block.feed_forward_norm(hidden))
        alive = choose(number, weights, alive)
    return model.final_norm(hidden)


def by_masking(model, text: torch.Tensor, kept: dict[int, set[int]]) -> torch.Tensor:
    """With survivors that are known."""
    return slowly(model, text, lambda layer, weights, alive: kept.get(layer, alive))


def by_attention(model, text: torch.Tensor, shares) -> tuple[torch.Tensor, dict[int, set[int]]]:
    """With survivors that the probabilities say, bias included, and both ends: ACC, by its page."""
    found, last = {}, len(text) - 1

    def choose(layer: int, weights: torch.Tensor, alive: set[int]) -> set[int]:
        gets = weights[:, sorted(alive)].mean((0, 1)).tolist()
        count = max(min(2, len(text)), math.ceil(shares[layer - 1] * len(text) - 1e-9))
        inner = sorted(alive - {0, last}, key=lambda place: -gets[place])
        found[layer] = {0, last, *inner[: count - len({0, last})]} if count < len(alive) else alive
        return found[layer]

    return slowly(model, text, choose), found


def survivors_of(kept, row: int) -> dict[int, set[int]]:
    found = {}
    for layer, rows in kept:
        place = rows.original.index(row)
        start = sum(rows.lengths[:place])
        found[layer] = set(rows.kept[start : start + rows.lengths[place]].tolist())
    return found


@torch.no_grad()
def test_8_and_10_removed_equals_masked_out_up_to_their_decoder(tmp_path: Path) -> None:
    """The bias goes by original positions: full shapes have no others. Decoded by transformers."""
    theirs, ours = both(tmp_path)
    model, texts, targets = ours.transformer, ragged_ids(LENGTHS), ragged_ids([4] * len(LENGTHS), 1)
    ids, rows = pack(texts)
    eliminate = elimination_of(at(SHARES), model, ids, rows)
    source = Source(*model(ids, rows, None, None, eliminate))
    hidden, rows = model.write(*pack(targets), source=source)
    logits = model.next_token(hidden).split(rows.lengths)
    for place, row in enumerate(rows.original):
        kept = survivors_of(eliminate.kept, row)
        states = by_masking(model, texts[row], kept)
        mask = torch.zeros(1, len(texts[row]), dtype=torch.long)
        mask[0, sorted(kept[2] if kept else range(len(texts[row])))] = 1
        expected = in_full(theirs)(
            encoder_outputs=(states[None],), attention_mask=mask, decoder_input_ids=targets[row][None]
        ).logits[0]
        assert (logits[place] - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.parametrize("gradients", [False, True])
def test_survivors_are_those_that_get_most_with_the_bias(gradients: bool, tmp_path: Path) -> None:
    """A bias that says a lot: without it others would stay (page, 1.10)."""
    model, texts = both(tmp_path)[1].transformer, ragged_ids(LENGTHS)
    model.relative_bias.weight.data *= 10
    ids, rows = pack(texts)
    eliminate = elimination_of(at(SHARES), model, ids, rows)
    with torch.set_grad_enabled(gradients):
        states, left = model(ids, rows, None, None, eliminate)
    for part, row in zip(states.detach().split(left.lengths), left.original, strict=True):
        expected, kept = by_attention(model, texts[row], SHARES)
        for layer, places in survivors_of(eliminate.kept, row).items():
            assert places == kept[layer]
        assert (part - expected[sorted(kept[2])]).abs().max() <= 1e-9 * expected.abs().max()


def in_full(model):
    for part in model.modules():
        if type(part).__name__ == "T5LayerNorm":
            plain = torch.nn.RMSNorm(part.weight.shape, eps=part.variance_epsilon, dtype=part.weight.dtype)
            plain.weight = part.weight
            part.forward = plain.forward
    return model


@torch.no_grad()
@pytest.mark.parametrize("score", NAMES)
def test_counts_are_exact_and_both_ends_stay(score: str, tmp_path: Path) -> None:
    model = both(tmp_path)[1].transformer
    ids, rows = pack(ragged_ids(LENGTHS))
    eliminate = elimination_of(at(SHARES, score), model, ids, rows)
    model(ids, rows, None, None, eliminate)
    for row, length in enumerate(LENGTHS):
        for layer, kept in survivors_of(eliminate.kept, row).items():
            assert len(kept) == min(length, max(2, math.ceil(SHARES[layer - 1] * length - 1e-9)))
            assert {0, length - 1} <= kept


def texts_of(model, prompts, point, **options):
    found = [[] for _ in prompts]
    options |= {"stop": {1}, "decoding": Decoding(prompts=point)}
    for step in generate(model, prompts, max_new_tokens=10, **options):
        for row, token in step.items():
            found[row].append(token)
    return found


def test_11_keeping_all_is_the_plain_model(tmp_path: Path) -> None:
    model = both(tmp_path)[1].transformer
    prompts = [text.tolist() for text in ragged_ids(LENGTHS)]
    assert texts_of(model, prompts, at((1.0, 1.0))) == texts_of(model, prompts, Point(name="full"))


def test_rows_do_not_depend_on_each_other(tmp_path: Path) -> None:
    """Their sources have 1 to 9 tokens left; each is answered as it is alone."""
    model = both(tmp_path)[1].transformer
    prompts = [text.tolist() for text in ragged_ids(LENGTHS)]
    together = texts_of(model, prompts, at(SHARES))
    assert together != texts_of(model, prompts, Point(name="full")), "tokens that leave are missed"
    for prompt, tokens in zip(prompts, together, strict=True):
        assert texts_of(model, [prompt], at(SHARES)) == [tokens]


@torch.no_grad()
def test_a_step_with_a_cache_is_the_whole_pass(tmp_path: Path) -> None:
    """Any way of cutting the decoder's tokens gives the logits of one pass, from few tokens of the source."""
    model = both(tmp_path)[1].transformer
    lengths = [5, 12, 1, 12, 30, 8]
    targets, draw, point = ragged_ids(lengths, 3), random.Random(0), at(SHARES)
    source = encoded(model, *pack(ragged_ids(LENGTHS)), point)
    hidden, rows = model.write(*pack(targets), source=source)
    whole = dict(zip(rows.original, model.next_token(hidden).split(rows.lengths), strict=True))
    cache, done = KeyValueCache(model, len(targets), max(lengths), source), [0] * len(lengths)
    while done != lengths:
        takes = [min(draw.choice([0, 1, 1, 2, 9]), n - d) for n, d in zip(lengths, done, strict=True)]
        going = [row for row, count in enumerate(takes) if count]
        if not going:
            continue
        ids, rows = pack([targets[row][done[row] : done[row] + takes[row]] for row in going])
        named = type(rows)(rows.lengths, tuple(going[place] for place in rows.original), rows.device)
        hidden, rows = model.write(ids, following(named, done), memory=cache.memory)
        for row, logits in zip(rows.original, model.next_token(hidden).split(rows.lengths), strict=True):
            known = whole[row][done[row] : done[row] + takes[row]]
            assert (logits - known).abs().max() <= 1e-9 * whole[row].abs().max()
            done[row] += takes[row]


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}, {"use_cache": False}], ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
def test_transformers_generates_from_what_is_left(mode: dict, side: str, tmp_path: Path) -> None:
    """The mask of the survivors goes along with their states, in any batch, on either side of padding."""
    ours = both(tmp_path)[1].use(at(SHARES))
    texts = ragged_ids(LENGTHS)
    ids, mask = padded(texts, 0, side)
    found = ours.generate(ids, attention_mask=mask, max_new_tokens=10, do_sample=False, **mode)
    for row, text in enumerate(texts):
        if mode.get("num_beams"):
            alone = ours.generate(text[None], max_new_tokens=10, do_sample=False, **mode)[0, 1:].tolist()
        else:
            (alone,) = texts_of(ours.transformer, [text.tolist()], at(SHARES))
        assert found[row, 1 : 1 + len(alone)].tolist() == alone


def test_gradients_reach_tokens_that_left(tmp_path: Path) -> None:
    """13: through the keys and values they gave in the layer they left in."""
    ours = both(tmp_path)[1].use(at((0.1, 0.1)))
    ids = torch.arange(10, 40)[None]
    packed, rows = pack([ids[0]])
    eliminate = elimination_of(ours.point, ours.transformer, packed, rows)
    with torch.no_grad():
        ours.transformer(packed, rows, None, None, eliminate)
    gone = set(range(30)) - survivors_of(eliminate.kept, 0)[1]
    loss = ours(ids, labels=torch.tensor([[50, 51]])).loss
    loss.backward()
    gradient = ours.get_input_embeddings().weight.grad
    assert torch.isfinite(gradient).all()
    assert gone
    assert all(gradient[10 + place].abs().max() > 0 for place in gone)


class Words:
    """A word a token: the word's length."""

    def num_special_tokens_to_add(self, *, pair=False) -> int:
        return 0

    def __call__(self, first, second=None, *, max_length=64, **_):
        texts = [first] if isinstance(first, str) else first
        ids = [[3 + len(word) for word in text.split()][:max_length] for text in texts]
        return {"input_ids": ids[0] if isinstance(first, str) else ids}


def test_the_dial_counts_the_encoder(tmp_path: Path) -> None:
    _, ours = both(tmp_path)
    ours.tokenizer = Words()
    with pytest.raises(PlanError, match="measure_profile"):
        ours.dial(speedup=2)
    texts = [" ".join(["word" * (1 + i % 3) for i in range(n)]) for n in range(20, 60)]
    ours.measure_profile(texts).dial(speedup=1.7)
    facts, shape = ours.config.facts(), ours.config.form()
    whole = reached = 0
    for length in ours.config.retention_profile().lengths:
        left = left_after_layers(ours.point.retention, length, 2)
        whole += row_macs(facts, shape, 0, length)
        reached += row_macs(facts, shape, 0, length, left=left)
    assert 1.7 <= whole / reached <= 1.8
    with pytest.raises(PlanError, match="at most"):
        ours.dial(speedup=1000)


def test_golden_macs_of_the_page() -> None:
    """1.7: Flan-T5-base's and Flan-T5-small's encoders on 512 tokens."""
    from transformers import T5Config

    from lessen.families import family_of
    from lessen.plan import dense_shape

    for sizes, macs in (
        ({"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}, 48_318_382_080),
        ({"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6}, 11_274_289_152),
    ):
        facts = family_of("t5").architecture(T5Config(**sizes, feed_forward_proj="gated-gelu"))
        shape = dense_shape(sizes["num_layers"], sizes["num_heads"], sizes["d_ff"])
        assert row_macs(facts, shape, 0, 512) == macs


@torch.no_grad()
def test_macs_of_the_decoder_are_those_that_run(tmp_path: Path) -> None:
    """Matrices as they are called, attention as long as what is held; fewer tokens to read are cheaper."""
    _, ours = both(tmp_path)
    model, facts, shape = ours.transformer, ours.config.facts(), ours.config.form()
    counted = 0

    def count(module, inputs, output) -> None:
        nonlocal counted
        counted += len(inputs[0]) * module.in_features * module.out_features

    source = encoded(model, *pack(ragged_ids([20])), at(SHARES))
    hooks = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, Linear)]
    cache = KeyValueCache(model, 1, 5, source)
    assert source.rows.tokens == 6
    assert counted == 6 * source_macs(facts, shape)
    for before in range(5):
        counted = 0
        hidden, _ = model.write(torch.tensor([7]), cache.layout({0: 1}), memory=cache.memory)
        model.next_token(hidden)
        inner = facts.num_attention_heads * facts.head_dim
        counted += len(shape.decoder_layers) * 2 * inner * (before + 1 + source.rows.tokens)
        assert counted == decoder_token_macs(facts, shape, before, source.rows.tokens)
    for hook in hooks:
        hook.remove()


def test_a_cache_without_a_source_is_refused(tmp_path: Path) -> None:
    model = both(tmp_path)[1].transformer
    cache = KeyValueCache(model, 1, 3)
    with pytest.raises(PlanError, match="no encoder's output"), torch.no_grad():
        model.write(torch.tensor([0]), cache.layout({0: 1}), memory=cache.memory)


@torch.no_grad()
def test_12_what_is_left_stands_side_by_side(tmp_path: Path) -> None:
    """The padded batch is as long as the row with most survivors, and the mask says which places hold one."""
    ours = both(tmp_path)[1].use(at(SHARES))
    texts = ragged_ids(LENGTHS)
    for side in ("left", "right"):
        ids, mask = padded(texts, 0, side)
        states = ours.get_encoder()(input_ids=ids, attention_mask=mask)
        model, stays = ours.transformer, states.attention_mask.bool()
        assert (states.last_hidden_state[~stays] == 0).all()
        most = int(stays.sum(1).max())
        assert most < mask.shape[1]
        assert states.last_hidden_state.shape[:2] == stays.shape == (len(texts), most)
        for row, text in enumerate(texts):
            alone, rows = pack([text])
            eliminate = elimination_of(at(SHARES), model, alone, rows)
            expected, left = model(alone, rows, None, None, eliminate)
            assert int(stays[row].sum()) == left.tokens
            found = states.last_hidden_state[row][stays[row]]
            assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()


@torch.no_grad()
def test_transformers_reads_what_is_left_and_no_more(tmp_path: Path) -> None:
    """Its own loop writes what ours does, and keeps keys and values of survivors alone."""
    ours = both(tmp_path)[1].use(at(SHARES))
    texts = ragged_ids(LENGTHS)
    ids, mask = padded(texts, 0, "left")
    options = {"max_new_tokens": 10, "eos_token_id": 1, "return_dict_in_generate": True}
    told = ours.generate(ids, attention_mask=mask, **options)
    held = told.past_key_values.cross_attention_cache.layers
    most = int(ours.get_encoder()(input_ids=ids, attention_mask=mask).attention_mask.sum(1).max())
    assert {layer.keys.shape[2] for layer in held} == {most}
    mine = texts_of(ours.transformer, [text.tolist() for text in texts], at(SHARES))
    begins = [row[: row.index(1) + 1] if 1 in row else row for row in told.sequences[:, 1:].tolist()]
    assert begins == mine


@torch.no_grad()
def test_a_step_is_counted_with_what_it_reads(tmp_path: Path) -> None:
    model, text = both(tmp_path)[1].transformer, ragged_ids([30])[0]
    facts, shape = model.architecture, model.shape
    macs, expected = [], []
    for point in (FULL, at(SHARES)):
        tally, (ids, rows) = Tally(), pack([text])
        decoding = Decoding(prompts=point)
        steps = len(list(generate(model, [text.tolist()], max_new_tokens=4, decoding=decoding, tally=tally)))
        macs.append(tally.of(0).macs)
        read = encoded(model, ids, rows, point).rows.tokens
        expected.append(sum(decoder_token_macs(facts, shape, before, read) for before in range(steps)))
    assert macs[0] - macs[1] == expected[0] - expected[1] > 0


def test_prompts_at_the_limit(tmp_path: Path) -> None:
    """Both sides have all positions, however many tokens left: T5's usual 512, and it writes no more."""
    model = both(tmp_path)[1].transformer
    full = ragged_ids([512])[0].tolist()
    for point in (FULL, at(SHARES)):
        found = list(generate(model, [full], max_new_tokens=600, decoding=Decoding(prompts=point)))
        assert len(found) == 512
    with pytest.raises(InputError, match="the prompt has 513 tokens, the model takes 512"):
        texts_of(model, [[*full, 1]], at(SHARES))
