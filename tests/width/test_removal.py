"""Removal is exact: what is taken out is what a mask would silence, and the rest does not move.

Numbers are those of the property tests of the COST-EFF page, 1.12.
"""

import pytest
import torch
from conftest import TINY, lively, ragged_ids, tiny_generator, tiny_hugging_face
from hypothesis import given, settings
from hypothesis import strategies as st

from lessen.depth.exits import every_exit
from lessen.errors import PlanError
from lessen.loading import load
from lessen.model.architecture import Architecture
from lessen.model.rows import pack
from lessen.model.transformer import Transformer
from lessen.plan import ExitShape, Point, Rank, dense_shape
from lessen.reshaping import with_exits, with_shape
from lessen.runtime.engine import elimination_of, run
from lessen.width.removal import (
    Units,
    narrowed,
    truncated,
    with_embedding_rank,
    with_ranks,
    without_layers,
)

LENGTHS = [1, 5, 5, 17]
HEADS, NEURONS = 4, 64


def everything(layer):
    return Units(tuple(range(len(layer.heads))), tuple(range(layer.intermediate_size)))


@pytest.fixture(scope="module", params=["bert", "mpnet", "electra"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    assert request.param in TINY
    tiny_hugging_face(request.param).save_pretrained(folder)
    return lively(with_exits(load(folder), exits=None).double())


def answers(model):
    ids, rows = pack(ragged_ids(LENGTHS))
    with torch.no_grad():
        return torch.stack(every_exit(model.transformer, ids, rows))


def silenced(model, kept, answers=answers):
    """What a model answers with the others multiplied by zero where they would be read."""
    hooks = []
    layers = zip(model.transformer.layers, model.config.form().layers, kept, strict=True)
    for block, shape, stay in layers:
        heads = torch.zeros(block.attention.heads, dtype=torch.float64)
        heads[list(stay.heads)] = 1
        columns = heads.repeat_interleave(block.attention.head_dim)
        neurons = torch.zeros(shape.intermediate_size, dtype=torch.float64)
        neurons[list(stay.neurons)] = 1
        for module, mask in ((block.attention.output, columns), (block.feed_forward.down, neurons)):
            hooks.append(module.register_forward_pre_hook(lambda _, given, mask=mask: (given[0] * mask,)))
    try:
        return answers(model)
    finally:
        for hook in hooks:
            hook.remove()


def slim(model, kept):
    state, shape = narrowed(model.config.facts(), model.transformer.state_dict(), model.config.form(), kept)
    return with_shape(model, shape, state)


places = st.tuples(
    st.sets(st.integers(0, HEADS - 1)).map(sorted).map(tuple),
    st.sets(st.integers(0, NEURONS - 1)).map(sorted).map(tuple),
).map(lambda pair: Units(*pair))


@settings(max_examples=25)
@given(kept=st.lists(places, min_size=3, max_size=3))
def test_1_removed_equals_silenced_at_every_exit(model, kept):
    torch.testing.assert_close(answers(slim(model, kept)), silenced(model, kept), rtol=1e-10, atol=1e-10)


def test_1_in_float32_and_in_the_running_form(model):
    """To 1e-5 of the largest logit: the narrow model computes with other products, in another order."""
    kept = [Units((0, 2), tuple(range(1, 64, 3))), Units((3,), tuple(range(40))), Units((), (5,))]
    small, wanted = slim(model, kept), silenced(model, kept)
    small = with_shape(small, small.config.form(), small.transformer.state_dict()).float()
    limit = 1e-5 * float(wanted.abs().max())
    assert (answers(small) - wanted).abs().max() <= limit
    ran = run(small.transformer, *pack(ragged_ids(LENGTHS))).logits
    assert (ran - wanted[-1]).abs().max() <= limit


@pytest.mark.parametrize("score", ["first_k", "random"])
def test_1_with_tokens_leaving_too(model, score):
    """By scores that listen to no head, as what is silenced still attends."""
    kept = [
        Units((0, 2), tuple(range(1, 64, 3))),
        Units((3,), tuple(range(40))),
        Units((0, 1), (5,)),
    ]
    point = Point(name="fewer", retention=(0.7, 0.5, 0.5), token_score=score)

    def leaving(of):
        ids, rows = pack(ragged_ids(LENGTHS))
        with torch.no_grad():
            leave = elimination_of(point, of.transformer, ids, rows)
            return torch.stack(every_exit(of.transformer, ids, rows, in_layer=leave))

    small = slim(model, kept)
    wanted = silenced(model, kept, leaving)
    torch.testing.assert_close(leaving(small), wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        run(small.transformer, *pack(ragged_ids(LENGTHS)), point=point).logits, wanted[-1]
    )
    assert not torch.allclose(answers(small)[-1], wanted[-1])


def test_1_two_rounds_are_one_with_composed_ids(model):
    kept = [Units((0, 1, 3), tuple(range(1, 64, 2))) for _ in range(3)]
    again = [Units((0, 2), tuple(range(0, 32, 2))) for _ in range(3)]
    both = [Units((0, 3), tuple(range(1, 64, 4))) for _ in range(3)]
    twice, once = slim(slim(model, kept), again), slim(model, both)
    assert twice.config.form() == once.config.form()
    assert twice.config.form().layers[0].heads == (0, 3)
    torch.testing.assert_close(answers(twice), answers(once), rtol=0, atol=0)


def test_10_ids_of_the_page():
    """Heads 0, 1, 2, 3, 5, and of these places 0, 2, 3, 4: heads 0, 2, 3, 5."""
    facts = Architecture(
        family="bert", vocab_size=7, hidden_size=6, embedding_size=6, num_hidden_layers=1,
        num_attention_heads=6, num_key_value_heads=6, head_dim=1, intermediate_size=4,
        max_position_embeddings=8,
    )  # fmt: skip
    shape = dense_shape(1, 6, 4, (ExitShape(layer=1),))
    state = Transformer(facts, shape, 2).state_dict()
    for heads in ((0, 1, 2, 3, 5), (0, 2, 3, 4)):
        state, shape = narrowed(facts, state, shape, [Units(heads, (0, 1, 2, 3))])
    assert shape.layers[0].heads == (0, 2, 3, 5)


def test_2_heads_then_neurons_is_neurons_then_heads_is_both_at_once(model):
    whole = [everything(layer) for layer in model.config.form().layers]
    heads = [Units((1, 2), layer.neurons) for layer in whole]
    neurons = [Units(layer.heads, tuple(range(10))) for layer in whole]
    one = slim(slim(model, heads), [Units((0, 1), tuple(range(10)))] * 3)
    other = slim(slim(model, neurons), [Units((1, 2), tuple(range(10)))] * 3)
    both = slim(model, [Units((1, 2), tuple(range(10)))] * 3)
    torch.testing.assert_close(answers(one), answers(other), rtol=0, atol=0)
    torch.testing.assert_close(answers(one), answers(both), rtol=0, atol=0)


def test_17_without_heads_and_neurons_a_branch_is_its_bias(model):
    empty = slim(model, [Units((), ())] * 3)
    assert empty.transformer.layers[0].attention.qkv.weight.numel() == 0
    values = torch.randn(7, 32, dtype=torch.float64)
    block = empty.transformer.layers[0]
    _, rows = pack([torch.zeros(7, dtype=torch.long)])
    torch.testing.assert_close(block.attention(values, rows), block.attention.output.bias.expand(7, -1))
    torch.testing.assert_close(block.feed_forward(values), block.feed_forward.down.bias.expand(7, -1))


def test_places_that_are_not_there_are_refused(model):
    whole = [everything(layer) for layer in model.config.form().layers]
    for wrong in (
        Units((0, 4), (0,)),
        Units((1, 0), (0,)),
        Units((0,), (1, 1)),
        Units((0,), (-1, 2)),
    ):
        with pytest.raises(PlanError, match="ascending places"):
            slim(model, [wrong, *whole[1:]])
    with pytest.raises(PlanError, match="2 layers, the model has 3"):
        slim(model, whole[:2])


def test_3_embedding_of_full_rank_changes_nothing(model):
    state, shape = with_embedding_rank(
        model.transformer.state_dict(), model.config.form(), model.config.facts().embedding_size
    )
    torch.testing.assert_close(answers(with_shape(model, shape, state)), answers(model), rtol=1e-9, atol=1e-9)


def test_3_embedding_error_is_what_the_cut_singular_values_say(model):
    state, form = model.transformer.state_dict(), model.config.form()
    table = state["embeddings.token.weight"]
    sizes = torch.linalg.svdvals(table)
    before = float("inf")
    for rank in (1, 3, 8, 15):
        cut, shape = with_embedding_rank(state, form, rank)
        error = (table - cut["embeddings.token.weight"] @ cut["embeddings.widen.weight"].T).norm()
        torch.testing.assert_close(error, sizes[rank:].square().sum().sqrt())
        assert error < before
        assert shape.embedding_rank == rank
        before = error


def test_3_a_row_of_zeros_stays_nearly_zero(model):
    state, form = dict(model.transformer.state_dict()), model.config.form()
    state["embeddings.token.weight"] = state["embeddings.token.weight"].clone()
    state["embeddings.token.weight"][0] = 0
    cut, _ = with_embedding_rank(state, form, 8)
    assert (cut["embeddings.token.weight"][0] @ cut["embeddings.widen.weight"].T).abs().max() < 1e-12


def test_3_embedding_cut_twice_is_cut_once(model):
    state, form = model.transformer.state_dict(), model.config.form()
    twice, shape = with_embedding_rank(*with_embedding_rank(state, form, 10), 4)
    once, _ = with_embedding_rank(state, form, 4)
    tables = [s["embeddings.token.weight"] @ s["embeddings.widen.weight"].T for s in (twice, once)]
    torch.testing.assert_close(*tables)
    with pytest.raises(PlanError, match="between 1 and 4"):
        with_embedding_rank(twice, shape, 5)


def test_3_a_product_that_has_learned_is_multiplied_out_and_cut(model):
    """Its columns are in no order any more, so the nearest of a lower rank is not the first of them."""
    state, shape = with_embedding_rank(model.transformer.state_dict(), model.config.form(), 10)
    draw = torch.Generator().manual_seed(0)
    for name in ("embeddings.token.weight", "embeddings.widen.weight"):
        state[name] = state[name] + 0.3 * torch.randn(state[name].shape, generator=draw, dtype=torch.float64)
    whole = state["embeddings.token.weight"] @ state["embeddings.widen.weight"].T
    cut, _ = with_embedding_rank(state, shape, 4)
    error = (whole - cut["embeddings.token.weight"] @ cut["embeddings.widen.weight"].T).norm()
    torch.testing.assert_close(error, torch.linalg.svdvals(whole)[4:].square().sum().sqrt())


@torch.no_grad()
def test_ranks_of_matrices_without_biases(tmp_path):
    tiny_generator("llama").save_pretrained(tmp_path)
    inner = load(tmp_path).double().transformer
    ids, rows = pack(ragged_ids(LENGTHS))
    expected, _ = inner(ids, rows)
    width = inner.architecture.hidden_size
    state, shape = with_ranks(inner.state_dict(), inner.shape, [Rank(attention_output=width)] * inner.depth)
    cut = Transformer(inner.architecture, shape, 1).double()
    cut.load_state_dict(state)
    torch.testing.assert_close(cut(ids, rows)[0], expected, rtol=1e-9, atol=1e-9)


def test_matrices_of_full_rank_change_nothing_and_can_be_cut_again(model):
    state, form = model.transformer.state_dict(), model.config.form()
    full = Rank(qkv=32, attention_output=32, up=32, down=32)
    wide, shape = with_ranks(state, form, [full] * 3)
    torch.testing.assert_close(answers(with_shape(model, shape, wide)), answers(model), rtol=1e-9, atol=1e-9)
    low, low_shape = with_ranks(wide, shape, [full.model_copy(update={"up": 5})] * 3)
    assert low_shape.layers[1].rank == full.model_copy(update={"up": 5})
    direct, _ = with_ranks(state, form, [Rank(up=5)] * 3)
    name = "layers.1.feed_forward.up"
    torch.testing.assert_close(
        low[f"{name}.outer.weight"] @ low[f"{name}.inner.weight"],
        direct[f"{name}.outer.weight"] @ direct[f"{name}.inner.weight"],
    )
    with pytest.raises(PlanError, match="above"):
        with_ranks(low, low_shape, [Rank(up=6)] * 3)
    again, whole = with_ranks(wide, shape, [Rank()] * 3)
    assert whole == form
    torch.testing.assert_close(answers(with_shape(model, whole, again)), answers(model), rtol=1e-9, atol=1e-9)


def test_heads_leave_matrices_stored_as_products(model):
    ranks = [Rank(qkv=20, attention_output=9, up=11, down=12)] * 3
    state, shape = with_ranks(model.transformer.state_dict(), model.config.form(), ranks)
    low = with_shape(model, shape, state)
    kept = [Units((1, 3), tuple(range(0, 64, 3)))] * 3
    torch.testing.assert_close(answers(slim(low, kept)), silenced(low, kept), rtol=1e-10, atol=1e-10)


def test_with_moments_the_output_error_is_least():
    torch.manual_seed(0)
    inputs = torch.randn(500, 12, dtype=torch.float64) * torch.logspace(0, -3, 12, dtype=torch.float64)
    matrix = torch.randn(20, 12, dtype=torch.float64)
    exact = inputs @ matrix.T
    errors = {}
    for name, moment in (("plain", None), ("aware", inputs.T @ inputs / 500)):
        left, right = truncated(matrix, 4, moment)
        errors[name] = float((inputs @ (left @ right).T - exact).norm())
    best = torch.linalg.svdvals(exact)[4:].square().sum().sqrt()
    assert errors["aware"] < errors["plain"] / 3
    assert errors["aware"] == pytest.approx(float(best), rel=1e-2)


def test_a_dropped_layer_takes_its_exit_along(model):
    state, shape = without_layers(model.transformer.state_dict(), model.config.form(), {1})
    chopped = with_shape(model, shape, state)
    assert [layer.layer for layer in shape.layers] == [0, 2]
    assert shape.exit_layers == (1, 2)
    torch.testing.assert_close(answers(chopped)[0], answers(model)[0], rtol=0, atol=0)
    last = model.transformer.exits["3"].state_dict()
    for name, value in chopped.transformer.exits["2"].state_dict().items():
        assert torch.equal(value, last[name])


def test_without_the_last_layer_the_last_exit_moves_down(model):
    state, shape = without_layers(model.transformer.state_dict(), model.config.form(), {2})
    assert shape.exit_layers == (1, 2)
    answer = answers(with_shape(model, shape, state))
    assert torch.equal(answer[0], answers(model)[0])
    with pytest.raises(PlanError, match="at least one layer"):
        without_layers(model.transformer.state_dict(), model.config.form(), {0, 1, 2})


def test_odd_shapes_survive_saving_through_the_auto_classes(model, tmp_path):
    from transformers import AutoModelForSequenceClassification

    kept = [Units((0, 2), (1, 5, 9)), Units((), tuple(range(7))), Units((3,), ())]
    odd = slim(model, kept)
    state, shape = with_embedding_rank(odd.transformer.state_dict(), odd.config.form(), 6)
    state, shape = with_ranks(state, shape, [Rank(qkv=4, down=2), Rank(up=3), Rank()])
    odd = with_shape(odd, shape, state)
    odd.save_pretrained(tmp_path / "odd")
    for loaded in (
        load(tmp_path / "odd", precision="float64"),
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "odd"),
    ):
        assert loaded.config.form() == shape
        torch.testing.assert_close(answers(loaded.double()), answers(odd), rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module", params=["gpt2", "gpt_neox", "llama-grouped", "llama-biases", "qwen3"])
def decoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    tiny_generator(request.param).save_pretrained(folder)
    return load(folder).double()


def next_tokens(model):
    ids, rows = pack(ragged_ids(LENGTHS))
    with torch.no_grad():
        return model.transformer.next_token(model.transformer(ids, rows)[0])


def test_1_decoders_lose_whole_groups_of_heads_and_neurons_with_their_gates(decoder):
    facts, form = decoder.config.facts(), decoder.config.form()
    shared = facts.shared_heads
    groups = range(0, len(form.layers[0].heads) // shared, 2)
    heads = tuple(group * shared + member for group in groups for member in range(shared))
    kept = [Units(heads, tuple(range(0, layer.intermediate_size, 3))) for layer in form.layers]
    state, shape = narrowed(facts, decoder.transformer.state_dict(), form, kept)
    small = with_shape(decoder, shape, state)
    assert small.num_parameters() < decoder.num_parameters()
    wanted = silenced(decoder, kept, next_tokens)
    torch.testing.assert_close(next_tokens(small), wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))


def test_heads_that_share_keys_do_not_part(tmp_path):
    tiny_generator("llama-grouped").save_pretrained(tmp_path)
    decoder = load(tmp_path)
    facts, form = decoder.config.facts(), decoder.config.form()
    kept = [Units((0,), (0, 1)) for _ in form.layers]
    with pytest.raises(PlanError, match="layer 0: heads: 3 each share their keys"):
        narrowed(facts, decoder.transformer.state_dict(), form, kept)
