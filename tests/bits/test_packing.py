"""Packed signs: a round trip for every width, the same bytes everywhere, and exact products (T8 to T10)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessen.bits.packing import pack, unpack, words_for
from lessen.bits.products import arranged, product, quantized, reference
from lessen.native import native
from lessen.native.matrix import LOW_BITS

SIZES = [1, 31, 63, 64, 65, 127, 128, 200, 768, 3072]
KERNELS = [None] if native() is None else [None, native()]


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


@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.skipif(native() is None, reason="without kernels torch computes both")
def test_tiles_and_counted_bits_agree_to_the_last_bit(columns):
    """From 24 rows on signs may be multiplied as whole numbers: a row's answer is the same."""
    values, weight, scales, bias = matrices(75, columns, 83)
    ready = arranged("w1a1", pack(weight), columns, native())
    together = product("w1a1", values, ready, scales, bias, native())
    few = torch.cat([product("w1a1", part, ready, scales, bias, native()) for part in values.split(9)])
    assert torch.equal(together, few)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", LOW_BITS)
@settings(max_examples=25)
@given(
    rows=st.sampled_from(SIZES[:8]) | st.integers(1, 100),
    columns=st.sampled_from(SIZES) | st.integers(1, 300),
    tokens=st.integers(1, 100),
    with_bias=st.booleans(),
)
def test_products_are_what_they_say(kernels, kind, rows, columns, tokens, with_bias):
    values, weight, scales, bias = matrices(rows, columns, tokens)
    given_bias = bias if with_bias else None
    stored = quantized(weight)[0] if kind.startswith("w8") else pack(weight)
    ready = arranged(kind, stored, columns, kernels)
    found = product(kind, values, ready, scales, given_bias, kernels)
    exact = reference(kind, values, stored, scales, given_bias)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5 * columns)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", LOW_BITS)
def test_a_row_is_the_same_alone(kernels, kind):
    values, weight, scales, bias = matrices(70, 130, 37)
    values[5] = 0
    stored = quantized(weight)[0] if kind.startswith("w8") else pack(weight)
    ready = arranged(kind, stored, 130, kernels)
    together = product(kind, values, ready, scales, bias, kernels)
    for row in (0, 5, 36):
        alone = product(kind, values[row : row + 1], ready, scales, bias, kernels)
        if kernels is None:  # torch adds up in another order for other numbers of rows
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(together[row : row + 1], alone)
    assert product(kind, values[:0], ready, scales, bias, kernels).shape == (0, 70)
    gaps = torch.randn(6, 260)[:, ::2]
    expected = reference(kind, gaps, stored, scales, bias)
    torch.testing.assert_close(
        product(kind, gaps, ready, scales, bias, kernels), expected, rtol=1e-4, atol=1e-3
    )


def test_whole_numbers_keep_the_largest():
    values = torch.tensor([[1.0, -2.0, 0.5], [0, 0, 0]])
    whole, steps = quantized(values)
    assert whole.tolist() == [[64, -127, 32], [0, 0, 0]]
    torch.testing.assert_close(steps, torch.tensor([[2 / 127], [0.0]]))
