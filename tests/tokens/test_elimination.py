"""Elimination: removed equals masked out, rows do not depend on each other, and counts are exact.

Property tests of the latency-adjustable page, 1.12, by their numbers there.
"""

import math
from functools import partial

import pytest
import torch
from conftest import TINY, lively, ragged_ids, tiny_hugging_face
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import lessen
from lessen.depth.exits import every_exit
from lessen.model import attention
from lessen.model.attention import attend_reference
from lessen.model.macs import row_macs
from lessen.model.rows import pack
from lessen.plan import FULL, ExitRule, Point
from lessen.runtime.engine import run
from lessen.tokens.elimination import (
    Elimination,
    Watching,
    count_left,
    layers_passed,
    left_after_layers,
    of_spans,
    seeds_of,
    survivors,
)
from lessen.tokens.score import NAMES, SCORES

LENGTHS = [9, 1, 30, 2, 17, 9, 64, 3]
SHARES = (0.7, 0.5, 0.2)


@pytest.fixture
def model(tiny_classifier: object) -> torch.nn.Module:
    return lively(tiny_classifier).transformer


def of_family(family: str, folder: object) -> torch.nn.Module:
    tiny_hugging_face(family).save_pretrained(folder)
    return lively(lessen.with_exits(lessen.load(folder), exits=None)).transformer


def at(model: torch.nn.Module, texts: list[torch.Tensor], shares: tuple[float, ...], score: str = "mean"):
    """Logits of the last exit, and who survived where."""
    ids, rows = pack(texts)
    elimination = Elimination(shares, score, row_seeds=seeds_of(ids, rows))
    with torch.no_grad():
        answers = every_exit(model, ids, rows, in_layer=elimination)
    return answers, elimination


@torch.no_grad()
def by_masking(model: torch.nn.Module, text: torch.Tensor, kept: dict[int, set[int]]) -> torch.Tensor:
    """Last states of the survivors. Full shapes throughout: who has left is only hidden from the others."""
    ids, rows = pack([text])
    hidden = model.embeddings(ids, rows)
    bias = None if model.relative_bias is None else model.relative_bias(len(text))
    alive = set(range(len(text)))
    for number, block in enumerate(model.layers, start=1):
        hide = hidden.new_zeros(len(text), len(text))
        hide[:, sorted(set(range(len(text))) - alive)] = -math.inf
        qkv = block.attention.qkv(hidden).unflatten(-1, (3, block.attention.heads, block.attention.head_dim))
        mask = hide.expand(block.attention.heads, -1, -1) if bias is None else bias + hide
        context = attend_reference(qkv, rows, mask).flatten(1)
        hidden = block.attention_norm(hidden + block.attention.output(context))
        hidden = block.feed_forward_norm(hidden + block.feed_forward(hidden))
        alive = kept.get(number, alive)
    return hidden[sorted(alive)]


def survivors_of(elimination: Elimination, row: int) -> dict[int, set[int]]:
    """For each layer in which tokens left: the original positions of the row's survivors."""
    found = {}
    for layer, rows in elimination.kept:
        place = rows.original.index(row)
        start = sum(rows.lengths[:place])
        found[layer] = set(rows.kept[start : start + rows.lengths[place]].tolist())
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=str)
@pytest.mark.parametrize("family", sorted(TINY))
def test_8_removed_equals_masked_out(family: str, dtype, tolerance: float, tmp_path: object) -> None:
    """The strongest test: every family, every row of a mixed batch, every survivor's last state.

    Float32, by our kernels, to 1e-5 of the largest value, float64 to 1e-9.
    """
    model = of_family(family, tmp_path).to(dtype)
    texts = ragged_ids(LENGTHS)
    ids, packed = pack(texts)
    elimination = Elimination(SHARES)
    with torch.no_grad():
        hidden, rows = model(ids, packed, None, None, elimination)
    assert rows.tokens < packed.tokens / 4
    assert hidden.std(0).min() > 0.1, "tokens differ, so agreement means something"
    for row, states in zip(rows.original, hidden.split(rows.lengths), strict=True):
        expected = by_masking(model, texts[row], survivors_of(elimination, row))
        assert states.shape == expected.shape
        assert (states - expected).abs().max() <= tolerance * expected.abs().max()


def test_1_keeping_all_is_the_plain_model_to_the_bit(model: torch.nn.Module) -> None:
    ids, rows = pack(ragged_ids(LENGTHS))
    plain = run(model, ids, rows).logits
    kept = run(model, ids, rows, None, Point(name="x", retention=(1.0, 1.0, 1.0))).logits
    assert torch.equal(plain, kept)


@pytest.mark.parametrize("score", NAMES)
def test_5_rows_do_not_depend_on_each_other(model: torch.nn.Module, score: str) -> None:
    texts = ragged_ids(LENGTHS)
    answers, elimination = at(model, texts, SHARES, score)
    for row, text in enumerate(texts):
        alone, apart = at(model, [text], SHARES, score)
        whole, own = survivors_of(elimination, row), survivors_of(apart, 0)
        assert own == {layer: kept for layer, kept in whole.items() if layer in own}
        assert torch.allclose(alone[-1][0], answers[-1][row], atol=1e-5)


def test_random_takes_other_places_in_each_row_of_one_length(model: torch.nn.Module) -> None:
    """Drawn by a row's own tokens, in each layer anew: the same for the same text, another for another."""
    first, second = ragged_ids([40, 40])
    _, elimination = at(model, [first, second, first], SHARES, "random")
    found = [survivors_of(elimination, row) for row in range(3)]
    assert found[0] == found[2] != found[1]
    judged = [elimination.judge(None, layer, pack([first])[1]).tolist() for layer in (1, 2)]
    assert judged[0] != judged[1]
    assert judged[0] != Elimination(SHARES, "random").judge(None, 1, pack([first])[1]).tolist()


def test_random_has_as_many_draws_as_seeds() -> None:
    """Training seeds each step anew; seeds a power of two apart must not fall together."""
    _, rows = pack(ragged_ids([12]))
    draws = {
        tuple(Elimination(SHARES, "random", seed=16 * i).judge(None, 1, rows).tolist()) for i in range(9)
    }
    assert len(draws) == 9


def test_cumulative_sums_the_scores_of_layers_in_which_none_left(model: torch.nn.Module) -> None:
    """It listens until no token will leave any more; `kept` names the layers in which some did."""
    ids, rows = pack(ragged_ids([20]))
    watching, elimination = Watching(), Elimination((1.0, 0.5, 0.5), "cumulative")
    with torch.no_grad():
        model(ids, rows, None, None, watching)
        model(ids, rows, None, None, elimination)
    ((layer, left),) = elimination.kept
    assert layer == 2
    expected = survivors(watching.scores[0] + watching.scores[1], rows, (10,))
    assert left.kept.tolist() == expected.tolist()
    assert left.kept.tolist() != survivors(watching.scores[1], rows, (10,)).tolist()
    assert elimination(3, left) is None, "nothing leaves after layer 2, so layer 3 stays fused"
    assert elimination(1, rows).score is not None


def test_layers_passed_of_rows_that_leave_by_an_exit() -> None:
    """Row 0 leaves with 2 of 4 tokens after layer 1; row 1 loses a token in layers 1 and 3 each."""
    _, rows = pack(ragged_ids([4, 3]))
    first = rows.keep(torch.tensor([0, 2, 3, 5]), (2, 2))
    later = first.select([row == 1 for row in first.original])
    second = later.keep(torch.tensor([0]), (1,))
    kept = [(1, first), (3, second)]
    by_row = {0: [0, 2], 1: [0, 2]}
    assert {row: first.kept.tolist()[2 * i : 2 * i + 2] for i, row in enumerate(first.original)} == by_row
    assert layers_passed(kept, [4, 3], [1, 3]) == [[1, 0, 1, 0], [3, 0, 2]]
    assert layers_passed(kept, [4, 3], [2, 4]) == [[2, 0, 2, 0], [4, 0, 2]]


def test_4_survivors_are_nested_ascending_and_as_many_as_the_formula_says(model: torch.nn.Module) -> None:
    _, elimination = at(model, ragged_ids(LENGTHS), SHARES)
    for row, length in enumerate(LENGTHS):
        before = set(range(length))
        for layer, kept in sorted(survivors_of(elimination, row).items()):
            assert kept <= before
            assert 0 in kept, "[CLS]"
            assert len(kept) == max(1, math.ceil(SHARES[layer - 1] * length - 1e-9))
            before = kept
    for _, rows in elimination.kept:
        start = 0
        for length in rows.lengths:
            positions = rows.kept[start : start + length]
            assert (positions[1:] > positions[:-1]).all()
            start += length


@given(st.integers(1, 600), st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_counts(full: int, one: float, other: float) -> None:
    less, more = sorted((one, other))
    first = count_left(more, full, full)
    second = count_left(less, full, first)
    assert 1 <= second <= first <= full
    assert count_left(1.0, full, full) == full
    assert first >= more * full - 1e-6


def test_the_shell_takes_tokens_away_with_and_without_gradients(tiny_classifier: object) -> None:
    model = lively(tiny_classifier)
    ids = torch.stack(ragged_ids([12, 12]))
    plain = model(input_ids=ids).logits
    model.use(Point(name="x", retention=SHARES))
    with torch.no_grad():
        quick = model(input_ids=ids).logits
    slow = model(input_ids=ids).logits
    assert slow.requires_grad
    assert torch.allclose(slow, quick, atol=1e-5)
    assert (slow - plain).abs().max() > 1e-2


@pytest.mark.parametrize("side", ["left", "right"])
def test_3_padding_is_never_kept_in_place_of_a_token(tiny_classifier: object, side: str) -> None:
    """However much padding stands on whichever side, a row keeps what it keeps alone."""
    model = lively(tiny_classifier).use(Point(name="x", retention=SHARES))
    texts = ragged_ids([12, 5, 9])
    ids = torch.zeros(3, 20, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        place = slice(20 - len(text), 20) if side == "left" else slice(len(text))
        ids[row, place], mask[row, place] = text, 1
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            padded = model(input_ids=ids, attention_mask=mask).logits
            alone = torch.cat([model(input_ids=text[None]).logits for text in texts])
        assert torch.allclose(padded, alone, atol=1e-5)


def test_15_ties_keep_the_earliest(model: torch.nn.Module) -> None:
    _, rows = pack(ragged_ids([4, 6, 6]))
    index = survivors(torch.zeros(16), rows, (2, 3, 3))
    assert index.tolist() == [0, 1, 4, 5, 6, 10, 11, 12]
    index = survivors(torch.zeros(16), rows, (2, 3, 3), protect_last=1)
    assert index.tolist() == [0, 3, 4, 5, 9, 10, 11, 15]


def test_so_great_a_share_of_those_that_stay_are_the_last() -> None:
    """Half of what stays besides the first ones, rounded down, and no fewer than are protected."""
    _, rows = pack(ragged_ids([12]))
    scores = torch.arange(12.0, 0.0, -1.0)  # the earlier the better
    choose = partial(survivors, scores, rows, protect_first=2, recent=0.5)
    assert choose((7,)).tolist() == [0, 1, 2, 3, 4, 10, 11]
    assert choose((3,)).tolist() == [0, 1, 2]
    assert choose((7,), protect_last=4).tolist() == [0, 1, 2, 8, 9, 10, 11]
    assert choose((12,)).tolist() == [*range(12)]


def test_a_span_has_the_mean_of_those_of_it_that_are_left() -> None:
    """Spans are of places in the text, and of fewer tokens in short texts, whatever shares the batch."""
    _, rows = pack(ragged_ids([12, 64]))
    rows = rows.keep(torch.tensor([*range(12), *range(12, 24), 30, 31, 75]), (12, 15))
    scores = torch.arange(27.0)
    found = of_spans(scores, rows, 32)
    assert found[:12].tolist() == scores[:12].tolist()  # one token a span
    assert found[12:].tolist() == [13.5] * 4 + [17.5] * 4 + [21.5] * 4 + [24.5] * 2 + [26.0]
    assert of_spans(scores, rows, 3)[12:15].tolist() == [13.0] * 3
    _, alone = pack(ragged_ids([64]))
    alone = alone.keep(rows.positions[12:], (15,))
    assert of_spans(scores[12:], alone, 32).tolist() == found[12:].tolist()


def test_sharp_scores_are_told_apart_however_small() -> None:
    """One token gets almost all; the others differ by far more than float32 rounds, which alone is a tie."""
    _, rows = pack(ragged_ids([6]))
    scores = torch.tensor([1.0, 1e-8, 4e-8, 2e-8, 3e-8, 0.0])
    assert survivors(scores, rows, (3,)).tolist() == [0, 2, 4]
    for size in (1.0, 1e-8, 1e8):
        close = size * torch.tensor([1.0, 1.0, 1 + 1e-7, 1 - 1e-7, 1 + 1e-4, 0.5])
        assert survivors(close, rows, (3,)).tolist() == [0, 1, 4]


def test_rows_of_one_length_may_keep_different_numbers() -> None:
    """Rows of 10 and 11 tokens both had 5 left; 0.31 of their own lengths is 4 of each, 0.37 is 4 and 5."""
    _, rows = pack(ragged_ids([10, 11]))
    rows = rows.keep(torch.tensor([0, 1, 2, 3, 4, 10, 11, 12, 13, 14]), (5, 5))
    index = survivors(torch.arange(10.0), rows, (4, 5))
    assert index.tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert rows.keep(index, (4, 5)).kept.tolist() == [0, 2, 3, 4, 0, 1, 2, 3, 4]


def test_with_exits_in_mixed_batches(model: torch.nn.Module) -> None:
    """A row may lose tokens and leave early: the batch answers as each row alone."""
    texts = ragged_ids(LENGTHS)
    rule = ExitRule(criterion="max_probability", threshold=0.6)
    point = Point(name="x", exits=rule, retention=SHARES)
    together = run(model, *pack(texts), None, point)
    assert len(set(together.layers.tolist())) > 1
    for row, text in enumerate(texts):
        alone = run(model, *pack([text]), None, point)
        assert alone.layers[0] == together.layers[row]
        assert torch.allclose(alone.logits[0], together.logits[row], atol=1e-5)


def test_13_gradients_reach_tokens_that_left(model: torch.nn.Module) -> None:
    ids, rows = pack([torch.arange(3, 23)])
    elimination = Elimination((0.2, 0.2, 0.2))
    every_exit(model, ids, rows, in_layer=elimination)[-1].sum().backward()
    gone = set(range(20)) - survivors_of(elimination, 0)[1]
    gradient = model.embeddings.token.weight.grad
    assert torch.isfinite(gradient).all()
    assert all(gradient[3 + position].abs().sum() > 0 for position in gone)


def test_the_training_form_keeps_what_the_running_form_keeps(model: torch.nn.Module) -> None:
    texts = ragged_ids(LENGTHS)
    answers, quick = at(model, texts, SHARES)
    slow = Elimination(SHARES)
    with torch.enable_grad():
        again = every_exit(model, *pack(texts), in_layer=slow)
    assert [(layer, rows.kept.tolist()) for layer, rows in slow.kept] == [
        (layer, rows.kept.tolist()) for layer, rows in quick.kept
    ]
    assert torch.allclose(again[-1], answers[-1], atol=1e-5)


@pytest.mark.parametrize("score", sorted(SCORES))
def test_9_dropout_does_not_touch_the_scores(model: torch.nn.Module, score: str) -> None:
    """Attention dropout alone, on the same input: contexts differ, scores are those of the running form.

    Probabilities are at most 1, so that scores agree to 1e-6 by whichever kernel they are made.
    """
    _, rows = pack(ragged_ids(LENGTHS))
    hidden = torch.randn(rows.tokens, 32, generator=torch.Generator().manual_seed(1))
    for block in model.layers:
        layer = block.attention.eval()
        with torch.no_grad():
            still, expected = layer.context(hidden, rows, score=SCORES[score])
        layer.train().dropout = 0.5
        shaken, found = layer.context(hidden, rows, score=SCORES[score])
        assert (shaken - still).abs().max() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        assert expected.std() > 1e-3


def test_scores_are_float32_in_mixed_precision(model: torch.nn.Module) -> None:
    """Training under autocast chooses tokens as exactly as inference does."""
    ids, rows = pack(ragged_ids(LENGTHS))
    watching = Watching()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(ids, rows, None, None, watching)
    assert all(scores.dtype == torch.float32 for scores in watching.scores)
    for scores in watching.scores:
        sums = torch.stack([part.sum() for part in scores.split(list(rows.lengths))])
        assert torch.allclose(sums, torch.ones(len(rows)), atol=1e-5)
    plain = Watching()
    with torch.no_grad():
        model(ids, rows, None, None, plain)
    assert all(torch.allclose(a, b, atol=0.02) for a, b in zip(watching.scores, plain.scores, strict=True))


def written_out(query, key, value, attn_mask=None):
    """`scaled_dot_product_attention` as two products, which a counter of products sees."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ value


@pytest.mark.parametrize("family", ["bert", "electra", "mpnet"])
@pytest.mark.parametrize("shares", [None, SHARES, (1.0, 0.4, 0.4)], ids=str)
def test_7_macs_are_those_of_the_products_that_run(family: str, shares, tmp_path, monkeypatch) -> None:
    """Counted by torch as it runs, whatever they are for, in a mixed batch of which tokens leave; exactly.

    In float64 neither our kernels nor laid-out matrices, of which torch would not know, stand in for it.
    """
    model = of_family(family, tmp_path).double()
    monkeypatch.setattr(attention, "scaled_dot_product_attention", written_out)
    lefts = [left_after_layers(shares, length) for length in LENGTHS]
    expected = sum(
        row_macs(model.architecture, model.shape, model.outputs, length, left=left)
        for length, left in zip(LENGTHS, lefts, strict=True)
    )
    point = FULL if shares is None else Point(name="x", retention=shares)
    counter = FlopCounterMode(display=False)
    with counter:
        run(model, *pack(ragged_ids(LENGTHS)), None, point)
    assert counter.get_total_flops() == 2 * expected
