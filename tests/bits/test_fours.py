"""Weights of 4 bits: GGUF's own blocks, held exactly where they came from them; products as they say."""

import numpy as np
import pytest
import torch

from lessen.bits import fours
from lessen.builtin import gguf_file
from lessen.errors import InputError, PlanError
from lessen.native import native

KERNELS = [None] if native() is None else [None, native()]
COLUMNS = [1, 31, 32, 33, 70, 128, 576]


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_the_bytes_are_those_of_gguf():
    """Written out by hand: 0.5 and -2 as float16, numbers 0, 1, ... 15 and then 15, 14, ... 0."""
    numbers = torch.cat([torch.arange(16), torch.arange(15, -1, -1)])
    golden = bytes.fromhex("003800c0f0e1d2c3b4a5968778695a4b3c2d1e0f")
    blocks = fours.fit((0.5 * numbers - 2)[None])
    assert blocks.numpy().tobytes() == golden
    assert torch.equal(fours.unpack(blocks, 32)[0], 0.5 * numbers - 2)


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_what_ggml_rounded_is_held_exactly(size: float):
    """Byte for byte what ggml's own rounding in Python makes, and its own reading of it."""
    quants = pytest.importorskip("gguf.quants")
    kind = pytest.importorskip("gguf").GGMLQuantizationType.Q4_1
    theirs = quants.quantize((size * matrix(50, 96)).numpy(), kind)
    real = torch.from_numpy(quants.dequantize(theirs, kind).astype(np.float32))
    blocks = fours.fit(real)
    assert torch.equal(fours.unpack(blocks, 96), real)
    assert np.array_equal(blocks.numpy(), theirs.reshape(50, -1))


def test_the_packaged_model_is_held_byte_for_byte():
    """A matrix of SmolLM2's file, as the file says and as float32 becomes of it again."""
    gguf = pytest.importorskip("gguf")
    try:
        file = gguf_file("smollm2-135m")
    except InputError as missing:
        pytest.skip(str(missing))
    tensor = next(each for each in gguf.GGUFReader(file).tensors if each.name == "blk.7.ffn_down.weight")
    real = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    blocks = fours.fit(real)
    assert torch.equal(fours.unpack(blocks, real.shape[1]), real)
    assert np.array_equal(blocks.numpy(), tensor.data)


@pytest.mark.parametrize("columns", COLUMNS)
def test_what_it_makes_stays_as_it_is(columns: int):
    """What was fitted once is fitted again with no error, and columns that are not there are 0."""
    once = fours.unpack(fours.fit(matrix(7, columns)), columns)
    again = fours.fit(once)
    assert again.shape == (7, fours.bytes_for(columns))
    assert (fours.unpack(again, columns) - once).norm() <= 1e-3 * once.norm()
    last = fours.unpack(again, -(-columns // 32) * 32)[:, -32:]
    beyond = last[:, (columns - 1) % 32 + 1 :]
    assert (beyond <= last.amin(1, keepdim=True)).all()  # number 0 stands for the least


def test_the_fit_is_better_than_that_of_the_whole_range(monkeypatch):
    """On normal weights by a fortieth at least; never worse for any matrix that is tried."""
    weights = [matrix(64, 96), matrix(64, 96, 1).pow(3), matrix(64, 96, 2).exp()]
    found = [float((fours.unpack(fours.fit(each), 96) - each).norm()) for each in weights]
    monkeypatch.setattr(fours, "NARROWED", (1.0,))
    monkeypatch.setattr(
        fours, "_least_squares", lambda groups, numbers: (torch.zeros(len(groups)).half(),) * 2
    )
    plain = [float((fours.unpack(fours.fit(each), 96) - each).norm()) for each in weights]
    assert found[0] < 0.975 * plain[0]
    assert all(ours <= theirs for ours, theirs in zip(found, plain, strict=True))
    assert plain[0] < 0.08 * weights[0].norm()


def test_constants_zeros_and_nothing():
    weight = torch.tensor([[0.0] * 40, [1.5] * 40, [-0.25] * 40])
    assert torch.equal(fours.unpack(fours.fit(weight), 40), weight)
    assert fours.fit(torch.empty(3, 0)).shape == (3, 0)
    assert fours.fit(torch.empty(0, 40)).shape == (0, 40)
    for wrong in (1e5, float("nan")):
        with pytest.raises(PlanError, match="cannot be held in 4 bits"):
            fours.fit(torch.tensor([[1.0, wrong]]))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (16, 2), (41, 9), (130, 37)])
def test_products_are_what_they_say(kernels, columns: int, rows: int, tokens: int):
    """Against float64 to 1e-5 of the sizes summed; alone a row is the same to the last bit."""
    values, bias = matrix(tokens, columns, 1), matrix(1, rows, 2)[0]
    values[-1] = 0
    blocks = fours.fit(matrix(rows, columns))
    ready = fours.arranged(blocks, columns, kernels)
    found = fours.product(values, ready, bias, rows, kernels)
    exact = fours.rounded(values).double() @ fours.unpack(blocks, columns).double().T + bias.double()
    sizes = fours.rounded(values).abs() @ fours.unpack(blocks, columns).abs().T + bias.abs()
    assert ((found - exact).abs() <= 1e-5 * sizes).all()
    if kernels is not None:
        alone = torch.cat([fours.product(row[None], ready, bias, rows, kernels) for row in values])
        assert torch.equal(found, alone)
    without = fours.product(values, ready, None, rows, kernels) + bias
    assert ((without - found).abs() <= 1e-5 * sizes).all()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("rows", "columns"), [(0, 70), (5, 0), (0, 0)])
def test_matrices_of_nothing(kernels, rows: int, columns: int):
    """Layers without heads or neurons: without columns a product is its bias."""
    ready, bias = fours.arranged(fours.fit(matrix(rows, columns)), columns, kernels), torch.randn(rows)
    for given, expected in ((bias, bias), (None, torch.zeros(rows))):
        assert torch.equal(
            fours.product(matrix(4, columns), ready, given, rows, kernels), expected.expand(4, rows)
        )


def test_activations_keep_the_largest_of_each_group():
    values = torch.tensor([[127.0, 0.4, *[0.0] * 30, 12.7, 0.04, 0.06]])
    expected = torch.tensor([[127.0, 0.0, *[0.0] * 30, 12.7, 0.0, 0.1]])
    torch.testing.assert_close(fours.rounded(values), expected)


def test_damage_and_other_versions_are_noticed():
    blocks = fours.fit(matrix(3, 40))
    seal = fours.seal(blocks)
    assert fours.broken(blocks, seal) is None
    harmed = blocks.clone()
    harmed[1, 7] ^= 1
    assert "checksum" in str(fours.broken(harmed, seal))
    assert "version 2" in str(fours.broken(blocks, seal + torch.tensor([1, 0])))
