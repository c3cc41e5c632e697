"""Attention to an encoder's output and with a causal bias: every body is the definition, fp64 to 1e-12."""

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from lessen.errors import PlanError
from lessen.model.architecture import Architecture
from lessen.model.causal import attend_causal, attend_causal_reference
from lessen.model.cross import attend_across, attend_across_reference
from lessen.model.relative import RelativeBias
from lessen.model.rows import pack
from lessen.model.transformer import Transformer
from lessen.plan import dense_shape

TARGETS = [3, 1, 7, 1, 3]
SOURCES = [5, 40, 1, 6, 5]


def drawn(lengths, seed: int, *shape: int):
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, *shape, generator=generator, dtype=torch.float64) for n in lengths]
    return pack(rows)


@pytest.mark.parametrize("learning", [False, True])
def test_each_row_reads_its_own_source(learning: bool) -> None:
    """Rows are stored in another order on either side; some have ended and ask no more."""
    (query, rows), (made, source) = drawn(TARGETS, 0, 3, 8), drawn(SOURCES, 1, 2, 3, 8)
    key, value = made[:, 0], made[:, 1]
    going = [row != 2 for row in rows.original]
    query, rows = rows.gather(query, going), rows.select(going)
    expected = attend_across_reference(query, key, value, rows, source)
    with torch.set_grad_enabled(learning):
        found = attend_across(query, key, value, rows, source)
    assert (found - expected).abs().max() <= 1e-12


def test_both_bodies_have_the_same_gradients() -> None:
    (query, rows), (made, source) = drawn(TARGETS, 0, 3, 8), drawn(SOURCES, 1, 2, 3, 8)
    weight = torch.randn(len(query), 3, 8, dtype=torch.float64)
    gradients = []
    for body in (attend_across, attend_across_reference):
        parts = [part.clone().requires_grad_() for part in (query, made[:, 0], made[:, 1])]
        (body(*parts, rows, source) * weight).sum().backward()
        gradients.append(torch.cat([part.grad.flatten() for part in parts]))
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-12


@pytest.mark.parametrize("learning", [False, True])
def test_a_causal_bias_is_added_and_forbids_later_tokens(learning: bool) -> None:
    qkv, rows = drawn([9, 1, 30, 9], 2, 3, 4, 8)
    bias = RelativeBias(8, 20, 4, causal=True).double()
    torch.nn.init.normal_(bias.weight)
    query, key, value = qkv.unbind(1)
    with torch.no_grad():
        table = bias(30)
        expected = attend_causal_reference(query, key, value, rows, table)
    with torch.set_grad_enabled(learning):
        found = attend_causal(query, key, value, rows, table)
    assert (found - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20)])
def test_buckets_are_those_of_t5(causal: bool, buckets: int, distance: int) -> None:
    ours = RelativeBias(buckets, distance, 1, causal=causal)
    apart = torch.arange(-600, 601)
    expected = T5Attention._relative_position_bucket(apart, not causal, buckets, distance)
    assert torch.equal(ours.bucket(apart), expected)
    assert torch.equal(ours(50, 47), ours(50)[:, 47:]), "the last rows are the same alone"


FACTS = {
    "family": "t5",
    "vocab_size": 11,
    "hidden_size": 8,
    "embedding_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "intermediate_size": 8,
    "max_position_embeddings": 32,
    "position": "relative",
    "relative_buckets": 8,
    "norm_place": "pre",
    "embedding_norm": False,
    "language_head": "tied",
    "num_decoder_layers": 2,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"language_head": None},
        {"causal": True},
        {"norm_place": "post"},
        {"position": "learned"},
        {"relative_buckets": 2},
        {"embedding_size": 4},
        {"num_decoder_layers": 0},
    ],
)
def test_facts_that_do_not_fit_are_refused(changes: dict) -> None:
    assert Architecture(**FACTS).decoder.causal
    with pytest.raises(ValueError, match=r"language_head|num_decoder|relative_buckets|embedding_size"):
        Architecture(**FACTS | changes)


def test_shapes_that_do_not_fit_are_refused() -> None:
    facts, fitting = Architecture(**FACTS), dense_shape(2, 2, 8, decoder_layers=2)
    assert Transformer(facts, fitting, 1).decoder.depth == 2
    bare = [layer.model_copy(update={"heads": ()}) for layer in fitting.decoder_layers]
    in_signs = [layer.model_copy(update={"bits": 1}) for layer in fitting.decoder_layers]
    for layers, named in (
        ((), "decoder_layers: 0"),
        (dense_shape(2, 2, 8, decoder_layers=3).decoder_layers, "numbered from 0"),
        (dense_shape(2, 3, 8, decoder_layers=2).decoder_layers, "heads: 2"),
        (in_signs, "no weights of 1 bit"),
        (bare, r"decoder_layers\[0\].heads: none, but tokens that were read are counted"),
    ):
        with pytest.raises(PlanError, match=named):
            Transformer(facts, fitting.model_copy(update={"decoder_layers": tuple(layers)}), 1)
