"""Packed signs: a round trip for every width, the same bytes everywhere, and exact sums (T8 and T9)."""

import numpy as np
import pytest
import torch

from lessen.bits.packing import broken, pack, seal, unpack, words_for

SIZES = [1, 31, 63, 64, 65, 127, 128, 200, 768, 3072]


def matrices(rows: int, columns: int, tokens: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(tokens, columns, generator=generator)
    weight = torch.randn(rows, columns, generator=generator)
    return values, weight, torch.rand(rows, generator=generator), torch.randn(rows, generator=generator)


@pytest.mark.parametrize("columns", SIZES)
def test_round_trip(columns):
    """T8."""
    weight = matrices(3, columns, 1)[1]
    weight[0, 0] = 0.0
    words = pack(weight)
    assert words.shape == (3, words_for(columns))
    assert words.numel() * 8 == 3 * -(-columns // 64) * 8
    assert torch.equal(unpack(words, columns), torch.where(weight < 0, -1.0, 1.0))
    surplus = words_for(columns) * 64 - columns
    assert surplus == 0 or not (words[:, -1] >> (64 - surplus) & ((1 << surplus) - 1)).any()


def test_the_bytes_are_the_same_on_every_machine():
    """T8. Written out by hand: a file of another layout must not be read as this one."""
    weight = torch.ones(2, 66)
    weight[0, [0, 3, 8, 63, 64]] = -1
    weight[1, [1, 65]] = -0.5
    golden = bytes.fromhex("0901000000000080010000000000000002000000000000000200000000000000")
    assert pack(weight).numpy().astype("<i8").tobytes() == golden
    words = torch.from_numpy(np.frombuffer(golden, "<i8").reshape(2, 2).copy())
    assert torch.equal(unpack(words, 66), torch.where(weight < 0, -1.0, 1.0))


@pytest.mark.parametrize("columns", SIZES)
def test_counting_bits_is_the_product_of_signs(columns):
    """T9."""
    values, weight, _, _ = matrices(4, columns, 2)
    differ = pack(values)[:, None] ^ pack(weight)[None]
    counts = (unpack(differ.flatten(0, 1), columns) < 0).sum(1).view(2, 4)
    exact = torch.where(values < 0, -1, 1) @ torch.where(weight < 0, -1, 1).T
    assert torch.equal(columns - 2 * counts, exact)


@pytest.mark.parametrize("columns", SIZES)
def test_a_sum_less_twice_the_negated_is_the_product(columns):
    """T9, real values: S - 2 * (sum where the bit is set), in float64 to 1e-12 of the sizes summed."""
    values, weight, _, _ = (part.double() for part in matrices(4, columns, 2))
    negative = unpack(pack(weight), columns) < 0
    found = values.sum(1, keepdim=True) - 2 * (values[:, None] * negative).sum(-1)
    exact = values @ torch.where(weight < 0, -1.0, 1.0).double().T
    assert (found - exact).abs().max() <= 1e-12 * values.abs().sum(1).max()


@pytest.mark.parametrize("columns", [1, 63, 65, 70])
def test_bits_beyond_the_last_column_are_refused(columns):
    words = pack(matrices(4, columns, 1)[1])
    assert broken(words, seal(words), columns) is None
    for place in (columns % 64, 63):
        harmed = words.clone()
        harmed[2, -1] ^= 1 << place if place < 63 else -(1 << 63)
        assert f"bits beyond its {columns} columns" in broken(harmed, seal(harmed), columns)
    full = torch.full((2, 1), -1)
    assert broken(full, seal(full), 64) is None
