"""The table of slender BERTs (COST-EFF page, 1.11): parameters and MACs, counted and computed."""

import itertools

import pytest
import torch

from lessen.model.architecture import Architecture
from lessen.model.macs import row_macs
from lessen.model.transformer import Transformer, parameter_counts
from lessen.plan import ExitShape, LayerShape, Shape

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
def test_the_table_of_shapes(heads, neurons, rank, millions, ratio):
    shape = slender(heads, neurons, rank)
    with torch.device("meta"):
        counts = parameter_counts(Transformer(BERT, shape, 2))
    assert round(counts["total"] / 1e6, 2) == millions
    assert counts["total"] == counts["encoder"] + counts["embeddings"] + counts["exits"]
    dense = row_macs(BERT, slender(12, 3072, None), 2, 128)
    assert round(dense / row_macs(BERT, shape, 2, 128), 2) == ratio


def test_macs_are_affine_in_depth():
    shape = slender(4, 512, 256)
    macs = [row_macs(BERT, shape, 2, 128, layers=depth, heads=[]) for depth in range(1, 13)]
    steps = {b - a for a, b in itertools.pairwise(macs)}
    assert len(steps) == 1
