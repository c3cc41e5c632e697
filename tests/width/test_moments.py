"""What enters each matrix is what the layers say, and a product weighed by it is the nearest."""

import pytest
import torch
from conftest import lively, ragged_ids, tiny_hugging_face

from lessen.loading import load
from lessen.model.rows import pack
from lessen.plan import Rank
from lessen.reshaping import with_exits, with_shape
from lessen.width.moments import second_moments
from lessen.width.removal import Units, narrowed, truncated, with_ranks


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_hugging_face("bert").save_pretrained(folder)
    return lively(with_exits(load(folder), exits=None).double())


def batches():
    return [(*pack(ragged_ids(lengths, seed=len(lengths))), None) for lengths in ([3, 5, 9], [4, 4])]


def states(model):
    """The input of the first layer's `qkv`, all tokens of both batches."""
    with torch.no_grad():
        return torch.cat([model.transformer.embeddings(*batch) for batch in batches()])


def test_moments_are_means_over_tokens(model):
    found = second_moments(model.transformer, batches())
    assert len(found) == 12
    values = states(model)
    torch.testing.assert_close(found["layers.0.attention.qkv"], values.T @ values / len(values))
    assert found["layers.2.feed_forward.up"].shape == (32, 32)
    assert found["layers.2.feed_forward.down"].shape == (64, 64)
    with pytest.raises(ValueError, match="no batch"):
        second_moments(model.transformer, [])


def test_a_weighed_product_comes_nearer_in_what_it_puts_out(model):
    state, form = model.transformer.state_dict(), model.config.form()
    moments = second_moments(model.transformer, batches())
    values = states(model)
    exact = values @ state["layers.0.attention.qkv.weight"].T
    errors = []
    for given in (moments, None):
        cut, _ = with_ranks(state, form, [Rank(qkv=8)] * 3, given)
        inner, outer = (cut[f"layers.0.attention.qkv.{part}.weight"] for part in ("inner", "outer"))
        errors.append(float((values @ inner.T @ outer.T - exact).norm()))
    assert errors[0] < 0.9 * errors[1]


def test_input_that_never_varies_does_no_harm(model):
    weight = model.transformer.layers[0].attention.qkv.weight.detach()
    left, right = truncated(weight, 8, torch.ones(32, 32, dtype=torch.float64))
    same = torch.ones(32, dtype=torch.float64)
    torch.testing.assert_close(left @ (right @ same), weight @ same)


def test_products_and_layers_without_heads_are_measured_too(model):
    state, form = model.transformer.state_dict(), model.config.form()
    state, form = with_ranks(state, form, [Rank(up=8, down=8)] * 3)
    kept = [Units((), tuple(range(64))), *[Units((0, 1), tuple(range(64)))] * 2]
    state, form = narrowed(model.config.facts(), state, form, kept)
    found = second_moments(with_shape(model, form, state).transformer, batches())
    assert "layers.0.attention.qkv" not in found
    assert found["layers.0.feed_forward.up"].shape == (32, 32)
    assert found["layers.1.attention.output"].shape == (16, 16)
