"""Products with few bits: kernels and reference agree at any size, in any memory, on any threads (T10)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lessen.bits.ops import OPERATORS
from lessen.bits.packing import pack
from lessen.bits.products import arranged, product, quantized, reference
from lessen.model.few_bits import Int8Linear
from lessen.native import native
from lessen.native.matrix import LOW_BITS, MOST_COLUMNS

SIZES = [1, 31, 63, 64, 65, 127, 128, 200, 768, 3072]
KERNELS = [None] if native() is None else [None, native()]
compiled = pytest.mark.skipif(native() is None, reason="the kernels are not built")


def matrices(rows: int, columns: int, tokens: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(tokens, columns, generator=generator)
    weight = torch.randn(rows, columns, generator=generator)
    return values, weight, torch.rand(rows, generator=generator), torch.randn(rows, generator=generator)


def stored_as(kind: str, weight: torch.Tensor) -> torch.Tensor:
    return quantized(weight)[0].to(torch.int8) if kind.startswith("w8") else pack(weight)


def written_out(kind, values, weight, scales, bias):
    """What a product is by its definition, in float64, from weights before they are stored."""
    if kind.startswith("w8"):
        largest = weight.abs().amax(1, keepdim=True)
        factors = (weight * (127 / largest)).round() if weight.numel() else weight
    else:
        factors = torch.where(weight < 0, -1.0, 1.0)
    steps = torch.ones(len(values), 1)
    if kind.endswith("a8"):
        largest = values.abs().amax(1, keepdim=True)
        values, steps = (values * (127 / largest)).round(), largest / 127
    elif kind.endswith("a1"):
        values, steps = torch.where(values < 0, -1.0, 1.0), values.abs().mean(1, keepdim=True)
    result = (values.double() @ factors.double().T) * steps * scales
    return (result if bias is None else result + bias).float()


def moved(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, beginning one element after where memory was given: aligned to nothing more."""
    place = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)
    place.copy_(tensor)
    return place


@compiled
@pytest.mark.parametrize("kind", LOW_BITS)
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("rows", SIZES)
def test_every_size_of_a_matrix(kind, columns, rows):
    for tokens in (1, 5, 33):
        values, weight, scales, bias = matrices(rows, columns, tokens)
        stored = stored_as(kind, weight)
        found = product(kind, values, arranged(kind, stored, columns, native()), scales, bias, native())
        exact = reference(kind, values, stored, scales, bias)
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5 * columns)


@compiled
@pytest.mark.parametrize("kind", LOW_BITS)
def test_memory_may_begin_anywhere(kind):
    values, weight, scales, bias = matrices(70, 200, 37)
    stored = stored_as(kind, weight)
    ready = arranged(kind, stored, 200, native())
    expected = product(kind, values, ready, scales, bias, native())
    again = arranged(kind, moved(stored), 200, native())
    assert torch.equal(product(kind, moved(values), again, moved(scales), moved(bias), native()), expected)


@compiled
@pytest.mark.parametrize("kind", LOW_BITS)
@pytest.mark.parametrize("tokens", [1, 3, 24, 130])
def test_any_number_of_threads_gives_the_same(kind, tokens):
    values, weight, scales, bias = matrices(1153, 384, tokens)
    ready = arranged(kind, stored_as(kind, weight), 384, native())
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(product(kind, values, ready, scales, bias, native()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)


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
    stored = stored_as(kind, weight)
    ready = arranged(kind, stored, columns, kernels)
    found = product(kind, values, ready, scales, given_bias, kernels)
    exact = written_out(kind, values, weight, scales, given_bias)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5 * columns)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", LOW_BITS)
def test_a_row_is_the_same_alone(kernels, kind):
    values, weight, scales, bias = matrices(70, 130, 37)
    values[5] = 0
    stored = stored_as(kind, weight)
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


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", LOW_BITS)
@pytest.mark.parametrize(("rows", "columns"), [(0, 70), (5, 0), (0, 0)])
def test_matrices_of_nothing(kernels, kind, rows, columns):
    """Layers without heads or neurons: without columns a product is its bias."""
    values, weight, scales, bias = matrices(rows, columns, 30)
    ready = arranged(kind, stored_as(kind, weight), columns, kernels)
    for given_bias, expected in ((bias, bias), (None, torch.zeros(rows))):
        found = product(kind, values, ready, scales, given_bias, kernels)
        assert torch.equal(found, expected.expand(30, rows))


@pytest.mark.parametrize("kind", LOW_BITS)
def test_results_are_of_the_type_of_the_values(kind):
    values, weight, scales, bias = matrices(9, 70, 4)
    for dtype in (torch.bfloat16, torch.float64):
        found = reference(kind, values.to(dtype), stored_as(kind, weight), scales, bias)
        assert found.dtype == OPERATORS[kind](values.to(dtype), stored_as(kind, weight), scales, bias).dtype
        assert found.dtype == dtype


def test_whole_numbers_keep_the_largest():
    values = torch.tensor([[1.0, -2.0, 0.5], [0, 0, 0]])
    whole, steps = quantized(values)
    assert whole.tolist() == [[64, -127, 32], [0, 0, 0]]
    torch.testing.assert_close(steps, torch.tensor([[2 / 127], [0.0]]))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", LOW_BITS)
def test_tiny_numbers_count_as_nothing_and_not_as_infinite(kernels, kind):
    values, weight, scales, bias = matrices(9, 70, 4)
    values[1] = 1e-38 * values[1]
    stored = stored_as(kind, weight)
    found = product(kind, values, arranged(kind, stored, 70, kernels), scales, bias, kernels)
    torch.testing.assert_close(found[1], bias)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("kind", ["w8a8", "w1a8"])
@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_row_with_no_finite_numbers_says_so_and_leaves_the_others_alone(kernels, kind, number):
    """Nothing can be a whole number of infinite steps: NaN, as where torch divides by them."""
    values, weight, scales, bias = matrices(40, 70, 30)
    stored = stored_as(kind, weight)
    ready = arranged(kind, stored, 70, kernels)
    exact = product(kind, values, ready, scales, bias, kernels)
    values[3, 7] = number
    found = product(kind, values, ready, scales, bias, kernels)
    assert found[3].isnan().all()
    others = [row for row in range(30) if row != 3]
    torch.testing.assert_close(found[others], exact[others])


@compiled
def test_rows_too_long_for_sums_of_32_bits_are_torchs():
    columns = MOST_COLUMNS + 3
    values, stored = torch.ones(1, columns), torch.full((2, columns), 127, dtype=torch.int8)
    scales, exact = torch.ones(2), 127.0 * columns
    layer = Int8Linear(columns, 2, bias=False).eval()
    layer.weight.data, layer.scales.data = stored, scales
    with torch.no_grad():
        for found in (layer(values), OPERATORS["w8a8"](values, stored, scales, None)):
            torch.testing.assert_close(found, torch.full((1, 2), exact), rtol=1e-3, atol=0)
