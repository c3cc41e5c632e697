"""Budgets: the best stay, sizes are exact, and what cannot be reached is refused with what can."""

import re

import pytest
import torch

from lessen.errors import PlanError
from lessen.plan import Rank, Shape
from lessen.reshaping import with_shape
from lessen.width.budget import (
    bytes_of,
    encoder_of,
    even,
    in_products,
    largest_within,
    parameters_of,
    products_within,
    scaled,
    uneven,
)
from lessen.width.importance import Worth
from lessen.width.removal import narrowed, with_embedding_rank


def worth(*layers):
    return [Worth(torch.tensor(h, dtype=torch.float), torch.tensor(n, dtype=torch.float)) for h, n in layers]


@pytest.fixture
def model(tiny_classifier):
    return tiny_classifier


def test_each_layer_keeps_its_best_and_ties_go_to_the_lower_place():
    kept = even(worth(([1, 5, 2, 5], [3, 3, 3]), ([0, 0, 0, 0], [1, 2, 3])), 2, 2)
    assert [k.heads for k in kept] == [(1, 3), (0, 1)]
    assert [k.neurons for k in kept] == [(0, 1), (1, 2)]


def test_uneven_layers_in_products_have_no_more_weights_than_even_ones(model):
    """The same parts in all, unevenly, would: ranks of a narrow layer grow with its width."""
    facts, form = model.config.facts(), model.config.form()

    def of(*sizes: tuple[int, int]) -> Shape:
        parts = [{"heads": tuple(range(heads)), "intermediate_size": neurons} for heads, neurons in sizes]
        layers = zip(form.layers, parts, strict=True)
        return form.model_copy(
            update={"layers": tuple(layer.model_copy(update=part) for layer, part in layers)}
        )

    def in_ranks(shape: Shape, ranks: list[Rank]) -> int:
        layers = zip(shape.layers, ranks, strict=True)
        ranked = tuple(layer.model_copy(update={"rank": rank}) for layer, rank in layers)
        return encoder_of(facts, shape.model_copy(update={"layers": ranked}), 2)

    regular, odd, share = of((2, 16), (2, 16), (2, 16)), of((4, 32), (1, 15), (1, 1)), 0.4
    limit = in_ranks(regular, [in_products(facts, layer, share).rank for layer in regular.layers])
    asked = [in_products(facts, layer, share).rank for layer in odd.layers]
    found = products_within(facts, odd, 2, share, limit)
    assert in_ranks(odd, asked) > limit, "or nothing is shown"
    assert 0.9 * limit < in_ranks(odd, found) <= limit
    assert products_within(facts, regular, 2, share, limit) == [
        in_products(facts, layer, share).rank for layer in regular.layers
    ]


def test_layers_compete_and_each_keeps_one():
    found = uneven(worth(([9, 8, 7], [1, 1]), ([1, 2, 3], [5, 5])), 4, 3)
    assert [k.heads for k in found] == [(0, 1, 2), (2,)]
    assert [k.neurons for k in found] == [(0,), (0, 1)]
    with pytest.raises(PlanError, match="1 parts cannot be shared among 2 layers"):
        uneven(worth(([1], [1]), ([1], [1])), 1, 2)


def test_heads_that_share_keys_stay_in_groups_that_are_worth_most_together():
    there = worth(([9, 0, 0, 5, 5, 0], [1]), ([1, 1, 1, 0, 0, 0], [1]))
    assert [k.heads for k in even(there, 4, 1, shared=3)] == [(3, 4, 5), (0, 1, 2)]
    assert [k.heads for k in uneven(there, 9, 2, shared=3)] == [(0, 1, 2, 3, 4, 5), (0, 1, 2)]


def test_equilibrium_is_undone_before_layers_are_compared():
    plain = worth(([4, 6], [4, 6]), ([5, 3], [5, 3]))
    divided = worth(([2, 3], [2, 3]), ([5, 3], [5, 3]))
    assert uneven(divided, 3, 3, exits_above=[2, 1]) == uneven(plain, 3, 3)
    assert uneven(divided, 3, 3) != uneven(plain, 3, 3)


def test_sizes_are_those_of_the_model_that_is_made(model, tmp_path):
    facts, shape = model.config.facts(), scaled(model.config.facts(), model.config.form(), 0.5)
    assert shape.layers[0].heads == (0, 1)
    assert shape.layers[0].intermediate_size == 32
    kept = even([Worth(torch.rand(4), torch.rand(64)) for _ in range(3)], 2, 32)
    state, form = narrowed(facts, model.transformer.state_dict(), model.config.form(), kept)
    slim = with_shape(model, *reversed(with_embedding_rank(state, form, shape.embedding_rank)))
    assert sum(p.numel() for p in slim.parameters()) == parameters_of(facts, shape, 3)
    slim.save_pretrained(tmp_path / "slim")
    size = (tmp_path / "slim" / "model.safetensors").stat().st_size
    assert bytes_of(facts, shape, 3) == size


def test_a_product_that_would_be_larger_is_not_made(model):
    facts = model.config.facts()
    assert scaled(facts, model.config.form(), 0.95).embedding_rank is None
    assert scaled(facts, model.config.form(), 0.5).embedding_rank == 16


def test_many_neurons_come_in_whole_vectors(model):
    facts, form = model.config.facts(), model.config.form()
    wide = form.model_copy(
        update={
            "layers": tuple(layer.model_copy(update={"intermediate_size": 1000}) for layer in form.layers)
        }
    )
    found = [scaled(facts, wide, share).layers[0].intermediate_size for share in (1.0, 0.5, 0.25, 0.06)]
    assert found == [1000, 496, 240, 60]


@pytest.mark.parametrize("measure", [parameters_of, encoder_of, bytes_of])
def test_the_largest_within_a_limit(model, measure):
    facts, form = model.config.facts(), model.config.form()
    whole = measure(facts, form, 3)
    for part in (0.9, 0.6, 0.5):
        limit = int(part * whole)
        found = measure(facts, largest_within(facts, form, 3, limit, measure), 3)
        assert 0.8 * limit < found <= limit
    assert largest_within(facts, form, 3, whole, measure) == form


@pytest.mark.parametrize("measure", [parameters_of, encoder_of, bytes_of])
def test_the_smallest_that_is_named_can_be_reached_and_no_smaller_one(model, measure):
    facts, form = model.config.facts(), model.config.form()
    with pytest.raises(
        PlanError, match=r"cannot be reached: with one head and one neuron a layer there are [\d,]+ left"
    ) as no:
        largest_within(facts, form, 3, 1000, measure)
    named = int(re.search(r"there are ([\d,]+) left", str(no.value)).group(1).replace(",", ""))
    smallest = largest_within(facts, form, 3, named, measure)
    assert [(len(layer.heads), layer.intermediate_size) for layer in smallest.layers] == [(1, 1)] * 3
    assert measure(facts, smallest, 3) == named
    with pytest.raises(PlanError):
        largest_within(facts, form, 3, named - 1, measure)
