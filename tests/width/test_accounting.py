"""The table of slender BERTs (COST-EFF page, 1.11): parameters and MACs, counted and computed.

Numbers are those of the property tests of the page, 1.12.
"""

import itertools

import pytest
import torch

from lessen.measure.evaluation import macs_ratio
from lessen.model.architecture import Architecture
from lessen.model.macs import row_macs
from lessen.model.transformer import Transformer, parameter_counts
from lessen.plan import ExitRule, ExitShape, LayerShape, Point, Shape
from lessen.runtime.text import Encoded
from lessen.width.budget import rank_saves

BERT = Architecture(
    family="bert",
    vocab_size=30522,
    hidden_size=768,
    embedding_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    num_key_value_heads=12,
    head_dim=64,
    intermediate_size=3072,
    max_position_embeddings=512,
    type_vocab_size=2,
)

TABLE = [
    (12, 3072, None, 108.91, 1.00),
    (8, 2048, 512, 73.16, 1.49),
    (6, 1536, 384, 54.98, 1.99),
    (6, 768, 384, 40.82, 2.93),
    (4, 1024, 256, 36.81, 2.98),
    (4, 512, 256, 27.37, 4.40),
    (3, 768, 192, 27.73, 3.97),
    (3, 384, 192, 20.65, 5.86),
    (2, 512, 128, 18.64, 5.96),
    (2, 256, 128, 13.92, 8.79),
]
"""Heads, neurons, embedding rank; parameters in millions, MACs of BERT-base over ours at 128 tokens."""


def slender(heads: int, neurons: int, rank: int | None) -> Shape:
    layers = [LayerShape(layer=i, heads=tuple(range(heads)), intermediate_size=neurons) for i in range(12)]
    exits = tuple(ExitShape(layer=i) for i in range(1, 13))
    return Shape(layers=tuple(layers), exits=exits, embedding_rank=rank)


@pytest.mark.parametrize(("heads", "neurons", "rank", "millions", "ratio"), TABLE)
def test_15_the_table_of_shapes(heads, neurons, rank, millions, ratio):
    shape = slender(heads, neurons, rank)
    with torch.device("meta"):
        counts = parameter_counts(Transformer(BERT, shape, 2))
    assert round(counts["total"] / 1e6, 2) == millions
    assert counts["total"] == counts["encoder"] + counts["embeddings"] + counts["exits"]
    dense = row_macs(BERT, slender(12, 3072, None), 2, 128)
    assert round(dense / row_macs(BERT, shape, 2, 128), 2) == ratio


def test_3_a_token_table_as_a_product_has_fewer_weights_below_rank_749():
    assert rank_saves(BERT, 749)
    assert not rank_saves(BERT, 750)


@pytest.mark.parametrize(("heads", "neurons", "rank"), [row[:3] for row in TABLE])
def test_15_macs_of_rows_that_leave_are_the_pages_formula(heads, neurons, rank):
    """Rows of three lengths that leave at three depths, each exit on the way asked; half of FLOPs."""
    with torch.device("meta"):
        model = Transformer(BERT, slender(heads, neurons, rank), 2)
    lengths, depths, width = [17, 128, 64], [1, 5, 12], 768

    def of(tokens, depth, asked):
        layer = 256 * width * heads + 2 * width * neurons
        return (
            tokens * (rank or 0) * width
            + depth * (tokens * layer + 128 * heads * tokens**2)
            + asked * width * 2
        )

    encoded = [Encoded(list(range(tokens)), None, False) for tokens in lengths]
    point = Point(name="p", exits=ExitRule(criterion="entropy", threshold=0.3))
    dense = sum(of(tokens, 12, 1) for tokens in lengths)
    spent = sum(of(tokens, depth, depth) for tokens, depth in zip(lengths, depths, strict=True))
    assert macs_ratio(model, encoded, depths, point) == pytest.approx(dense / spent, rel=1e-12)


def test_15_macs_are_affine_in_depth():
    shape = slender(4, 512, 256)
    macs = [row_macs(BERT, shape, 2, 128, layers=depth, heads=[]) for depth in range(1, 13)]
    steps = {b - a for a, b in itertools.pairwise(macs)}
    assert len(steps) == 1
