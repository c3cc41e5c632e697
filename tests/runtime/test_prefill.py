"""Prompt tokens that leave: what is cached is what an uncached pass with the same survivors computes.

Property tests of the latency-adjustable page, 1.12, by their numbers. fp64 to 1e-9 of the largest logit.
"""

import math
from pathlib import Path

import pytest
import torch
from conftest import early_generator, ragged_ids, tiny_generator

import lessen
from lessen.errors import InputError, PlanError
from lessen.model.attention import attend_reference
from lessen.model.causal import spread
from lessen.model.macs import layer_macs
from lessen.model.rotary import rotation
from lessen.model.rows import Rows, pack
from lessen.plan import FULL, ExitRule, Point
from lessen.runtime.decoding import Decoding
from lessen.runtime.engine import elimination_of
from lessen.runtime.generation import generate
from lessen.runtime.prefill import begin
from lessen.tokens.elimination import RECENT, RECENT_SHARE, SINKS, fewest_left, left_after_layers
from lessen.tokens.score import NAMES

LENGTHS = [1, 40, 8, 9, 23, 40, 3]
SHARES = (0.7, 0.4, 0.3)
FAMILIES = ["gpt2", "gpt_neox", "llama-grouped", "qwen3"]


def loaded(family: str, folder: Path, dtype: torch.dtype = torch.float64):
    tiny_generator(family).save_pretrained(folder)
    return lessen.load(folder).to(dtype)


def at(shares, score: str = "mean") -> Point:
    return Point(name="some", retention=shares, token_score=score)


def survivors_of(kept, row: int) -> dict[int, list[int]]:
    """For each layer in which tokens left: the original positions of the row's survivors."""
    found = {}
    for layer, rows in kept:
        place = rows.original.index(row)
        start = sum(rows.lengths[:place])
        found[layer] = rows.kept[start : start + rows.lengths[place]].tolist()
    return found


def recomputed(model, tokens: list[int], prompt: int, kept: dict[int, list[int]]) -> torch.Tensor:
    """Logits after the last token, without a cache: prompt tokens are taken out after they left."""
    ids, rows = pack([torch.tensor(tokens)])
    hidden, places = model.embeddings(ids, rows), list(range(len(tokens)))
    for layer in range(1, model.depth + 1):
        hidden, _ = model.stack(hidden, rows, layers=range(layer - 1, layer))
        if layer in kept:
            stay = [*kept[layer], *range(prompt, len(tokens))]
            hidden, places = hidden[[places.index(place) for place in stay]], stay
            rows = Rows((len(stay),), (0,), ids.device, (len(tokens),), torch.tensor(stay))
    return model.next_token(hidden[-1:])[0]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_11_cached_decoding_equals_an_uncached_pass(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Five tokens of each row of a mixed batch; float32, where kernels run whole layers, to 1e-4."""
    model, prompts = loaded(family, tmp_path, dtype).transformer, [t.tolist() for t in ragged_ids(LENGTHS)]
    start = begin(model, prompts, 5, at(SHARES))
    (ids, rows), in_layer = start.first_pass(), start.in_layer
    tokens = [list(prompt) for prompt in prompts]
    for _ in range(5):
        hidden, rows = model.write(ids, rows, in_layer, start.cache.memory)
        logits = model.next_token(hidden[rows.last])
        for place, row in enumerate(rows.original):
            kept = survivors_of(start.in_layer.kept, row)
            expected = recomputed(model, tokens[row], LENGTHS[row], kept)
            tolerance = 1e-9 if dtype == torch.float64 else 1e-4
            assert (logits[place] - expected).abs().max() <= tolerance * expected.abs().max()
        found = dict(zip(rows.original, logits.argmax(-1).tolist(), strict=True))
        for row, token in found.items():
            tokens[row].append(token)
        ids, rows, in_layer = (
            torch.tensor([*found.values()]),
            start.cache.layout(dict.fromkeys(found, 1)),
            None,
        )
    layers = start.cache.layers
    assert [layer.seen(1) for layer in layers] == [44] * len(layers), "positions are those of the whole row"
    fewest = SINKS + RECENT
    held = [40, *(max(fewest, math.ceil(share * 40 - 1e-9)) for share in SHARES[: len(layers) - 1])]
    assert [layer.lengths[1] for layer in layers] == [count + 4 for count in held]


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama-grouped", "qwen3"])
def test_8_removed_equals_masked_out(family: str, tmp_path: Path) -> None:
    """Full shapes throughout, one row at a time: tokens that have left are only hidden from the others."""
    model, texts = loaded(family, tmp_path).transformer, ragged_ids(LENGTHS)
    ids, rows = pack(texts)
    eliminate = elimination_of(at(SHARES), model, ids, rows)
    hidden, rows = model(ids, rows, None, None, eliminate)
    found = dict(zip(rows.original, hidden.split(rows.lengths), strict=True))
    for row, text in enumerate(texts):
        kept = survivors_of(eliminate.kept, row)
        expected = by_masking(model, text, kept)
        last = kept[max(kept)] if kept else range(len(text))
        assert (found[row] - expected[list(last)]).abs().max() <= 1e-9 * expected.abs().max()


def by_masking(model, text: torch.Tensor, kept: dict[int, list[int]]) -> torch.Tensor:
    ids, rows = pack([text])
    hidden, alive, count = model.embeddings(ids, rows), list(range(len(text))), len(text)
    turns = model.architecture.rotary
    for number, block in enumerate(model.layers, start=1):
        hide = torch.full((count, count), -math.inf, dtype=torch.float64).triu(1)
        hide[:, sorted(set(range(count)) - set(alive))] = -math.inf
        hide.fill_diagonal_(0)  # one that has left still needs something to read
        attention = block.attention
        turning = None if turns is None else rotation(turns, rows.positions, hidden.dtype)
        query, key, value = attention._projected(block.attention_norm(hidden), turning)
        qkv = torch.stack([query, *(spread(part, attention.heads) for part in (key, value))], 1)
        context = attend_reference(qkv, rows, hide.expand(attention.heads, -1, -1)).flatten(1)
        hidden = hidden + attention.output(context)
        hidden = hidden + block.feed_forward(block.feed_forward_norm(hidden))
        alive = kept.get(number, alive)
    return model.final_norm(hidden)


@torch.no_grad()
@pytest.mark.parametrize("score", NAMES)
def test_counts_are_exact_and_both_ends_stay(score: str, tmp_path: Path) -> None:
    model = loaded("llama-grouped", tmp_path).transformer
    ids, rows = pack(ragged_ids(LENGTHS))
    eliminate = elimination_of(at(SHARES, score), model, ids, rows)
    model(ids, rows, None, None, eliminate)
    for row, length in enumerate(LENGTHS):
        before = list(range(length))
        for layer, kept in sorted(survivors_of(eliminate.kept, row).items()):
            assert len(kept) == min(length, max(SINKS + RECENT, math.ceil(SHARES[layer - 1] * length - 1e-9)))
            assert kept == sorted(kept)
            assert set(kept) <= set(before)
            assert kept[:SINKS] == list(range(length))[:SINKS]
            last = max(RECENT, int(RECENT_SHARE * (len(kept) - SINKS)))
            assert kept[-last:] == list(range(length))[-last:]
            before = kept


@torch.no_grad()
def test_scores_choose_and_controls_do_not_read_attention(tmp_path: Path) -> None:
    """Each score keeps its own tokens; half of those that stay are the last, whatever the score.

    Under `mean` earlier tokens get more of even attention (page, 1.2): it may keep the same as `first_k`.
    """
    model, found = loaded("llama-grouped", tmp_path).transformer, {}
    ids, rows = pack(ragged_ids([40]))
    for score in ("mean", "causal_norm", "last_query", "window", "random", "first_k", "last_k"):
        eliminate = elimination_of(at(SHARES, score), model, ids, rows)
        eliminate.span = 1
        model(ids, rows, None, None, eliminate)
        found[score] = [survivors_of(eliminate.kept, 0)[layer] for layer in (1, 2, 3)]
    assert found["first_k"][0] == [*range(16), *range(28, 40)]
    assert found["last_k"][0] == [*range(SINKS), *range(16, 40)]
    del found["mean"]
    assert len({str(kept) for kept in found.values()}) == len(found)


@torch.no_grad()
def first_logits(model, prompts, point) -> torch.Tensor:
    """Of the first token of each row, `[rows, vocabulary]`."""
    start = begin(model, prompts, 1, point)
    hidden, rows = model.write(*start.first_pass(), start.in_layer, start.cache.memory)
    return rows.restore(model.next_token(hidden[rows.last]))


def texts_of(model, prompts, point, count: int = 8):
    found = [[] for _ in prompts]
    for step in generate(model, prompts, max_new_tokens=count, stop={2, 7}, decoding=Decoding(prompts=point)):
        for row, token in step.items():
            found[row].append(token)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_depend_on_each_other(family: str, tmp_path: Path) -> None:
    """Of 1 to 40 tokens, with as many survivors each as it has alone."""
    model, prompts = loaded(family, tmp_path).transformer, [t.tolist() for t in ragged_ids(LENGTHS)]
    few, whole = (first_logits(model, prompts, point) for point in (at(SHARES), FULL))
    scale = whole.abs().max()
    for row, length in enumerate(LENGTHS):
        gap = (few[row] - whole[row]).abs().max() / scale
        assert gap <= 1e-9 if length <= SINKS + RECENT else gap > 1e-4, "nothing leaves a short prompt"
        alone = first_logits(model, [prompts[row]], at(SHARES))[0]
        assert (few[row] - alone).abs().max() <= 1e-9 * scale
    together = texts_of(model, prompts, at(SHARES))
    for prompt, tokens in zip(prompts, together, strict=True):
        assert texts_of(model, [prompt], at(SHARES)) == [tokens]


def test_11_keeping_all_is_the_plain_model(tmp_path: Path) -> None:
    model, prompts = loaded("gpt2", tmp_path).transformer, [t.tolist() for t in ragged_ids(LENGTHS)]
    assert texts_of(model, prompts, at((1.0, 1.0, 1.0))) == texts_of(model, prompts, FULL)


@torch.no_grad()
def test_random_draws_by_a_prompts_own_tokens(tmp_path: Path) -> None:
    """A prompt keeps the same places in a batch as alone; another of its length keeps others."""
    model, prompts = loaded("gpt2", tmp_path).transformer, [t.tolist() for t in ragged_ids([30, 40, 40])]

    def kept(prompts: list[list[int]]) -> list[dict[int, list[int]]]:
        start = begin(model, prompts, 1, at(SHARES, "random"))
        model.write(*start.first_pass(), start.in_layer, start.cache.memory)
        return [survivors_of(start.in_layer.kept, row) for row in range(len(prompts))]

    together = kept(prompts)
    assert together == [kept([prompt])[0] for prompt in prompts]
    assert together[1] != together[2]


def test_prompts_at_the_limit(tmp_path: Path) -> None:
    """66 positions are those of the whole prompt: however many tokens left, one more fits and no other."""
    model = loaded("llama-grouped", tmp_path).transformer
    full, nearly = (ids.tolist() for ids in ragged_ids([66, 64]))
    assert [len(tokens) for tokens in texts_of(model, [full, nearly], at(SHARES), 50)] == [1, 3]
    with pytest.raises(InputError, match="the prompt has 67 tokens, the model takes 66"):
        texts_of(model, [[*full, 1]], at(SHARES))


class Words:
    """A word a token: the word's length."""

    eos_token_id = 2

    def num_special_tokens_to_add(self, *, pair=False) -> int:
        return 0

    def __call__(self, first, second=None, *, max_length=64, **_):
        texts = [first] if isinstance(first, str) else first
        ids = [[3 + len(word) for word in text.split()][:max_length] for text in texts]
        return {"input_ids": ids[0] if isinstance(first, str) else ids}

    def decode(self, tokens, skip_special_tokens):
        return "".join(f" {token}" for token in tokens)

    def save_pretrained(self, folder) -> None:
        pass


def test_the_dial_counts_what_reading_a_prompt_costs(tmp_path: Path) -> None:
    model = loaded("llama-grouped", tmp_path / "theirs", torch.float32)
    model.tokenizer = Words()
    with pytest.raises(PlanError, match="measure_profile"):
        model.dial(speedup=2)
    texts = [" ".join("word" * (1 + i % 3) for i in range(n)) for n in range(30, 61)]
    ids = [model.tokenizer(texts[-1])["input_ids"]]
    plain = first_logits(model.transformer, ids, model.point)
    model.measure_profile(texts).dial(speedup=1.5)
    profile = model.config.retention_profile()
    assert (profile.score, profile.family) == ("window", "envelope")
    assert model.measure_profile(texts, family="acc").config.retention_profile().base != profile.base
    with pytest.raises(InputError, match="family 'tilt': choose acc or envelope"):
        model.measure_profile(texts, family="tilt")
    model.measure_profile(texts).dial(speedup=1.5)
    facts, shape = model.config.facts(), model.config.form()
    fewest = fewest_left(shape, facts)
    assert fewest == SINKS + RECENT
    whole = reached = 0
    for length in model.config.retention_profile().lengths:
        left = left_after_layers(model.point.retention, length, fewest)
        for layer, before, after in zip(shape.layers, [length, *left], left, strict=False):
            whole += layer_macs(facts, layer, length)
            reached += layer_macs(facts, layer, before, after)
    assert 1.5 <= whole / reached <= 1.6
    assert model.generate_text(texts[-1:], max_new_tokens=2)[0].prompt_tokens == 60
    few = first_logits(model.transformer, ids, model.point)
    assert (few - plain).abs().max() > 1e-4 * plain.abs().max()
    with pytest.raises(PlanError, match="at most"):
        model.dial(speedup=100)
    model.save_pretrained(tmp_path / "ours")
    again = lessen.load(tmp_path / "ours")
    again.tokenizer = Words()
    again.dial(speedup=1.5)
    same = first_logits(again.transformer, ids, again.point)
    assert (same - few).abs().max() <= 1e-5 * few.abs().max()
    assert again.dial(speedup=1).point == FULL


def test_a_dialled_prompt_stays_so_at_a_named_point(tmp_path: Path) -> None:
    """And transformers' own loop, which cannot, says so."""
    model = early_generator(tmp_path)
    less = at((0.7, 0.6, 0.5, 0.4, 0.3)[: model.transformer.depth])
    model.use(less)
    assert model.decoding().prompts == less
    early = Point(name="early", exits=ExitRule(criterion="entropy", threshold=0.5))
    assert model.decoding("direct", early).prompts == less
    both = early.model_copy(update={"retention": less.retention[:1] * len(less.retention)})
    assert model.decoding("direct", both).prompts == both
    with pytest.warns(UserWarning, match="reads prompts whole"):
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=1)


def test_what_a_profile_is_measured_by_is_checked(tmp_path: Path) -> None:
    model = loaded("gpt2", tmp_path)
    model.tokenizer = Words()
    with pytest.raises(InputError, match="not one text"):
        model.measure_profile("a b c d e f g h i j")
    for wrong in ({"score": "zzz"}, {"mass": 2.0}, {"max_tokens": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            model.measure_profile(["a b c d e f g h i j"], **wrong)


def test_short_texts_make_no_profile(tmp_path: Path) -> None:
    model = loaded("gpt2", tmp_path)
    model.tokenizer = Words()
    with pytest.raises(PlanError, match="rows of more than 8 tokens"):
        model.measure_profile(["a b c d e f g h", "a b"])
