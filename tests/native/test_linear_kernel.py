"""The compiled product of few rows: equal to torch's, for every shape, and used where it should be."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from lessen.model.linear import FEW_TOKENS, Linear
from lessen.native import available, native, why_not

kernels = native()
pytestmark = pytest.mark.skipif(kernels is None, reason=f"no kernels: {why_not()}")


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 24, FEW_TOKENS, 100])
@pytest.mark.parametrize(("depth", "columns"), [(1, 1), (7, 3), (16, 8), (33, 50), (384, 1536), (3072, 768)])
def test_equals_torch(rows, depth, columns):
    generator = torch.Generator().manual_seed(rows * columns)
    values = torch.randn(rows, depth, generator=generator)
    weight = torch.randn(columns, depth, generator=generator) / depth**0.5
    bias = torch.randn(columns, generator=generator)
    for given in (bias, None):
        exact = functional.linear(
            values.double(), weight.double(), given.double() if given is not None else None
        )
        torch.testing.assert_close(
            kernels.linear(values, weight, given).double(), exact, rtol=1e-5, atol=1e-5
        )


def test_a_row_is_the_same_alone_and_with_any_number_of_threads():
    generator = torch.Generator().manual_seed(1)
    values, weight = torch.randn(17, 384, generator=generator), torch.randn(1153, 384, generator=generator)
    together = kernels.linear(values, weight, None)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = torch.cat([kernels.linear(values[i : i + 1], weight, None) for i in range(17)])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, alone)


def test_values_with_gaps_between_rows():
    values, weight = torch.randn(6, 40)[:, ::2], torch.randn(9, 20)
    torch.testing.assert_close(kernels.linear(values, weight, None), values @ weight.T)


def test_a_layer_uses_them_for_few_tokens_in_float32_and_only_then(monkeypatch):
    calls = []

    class Counting:
        def linear(self, values, weight, bias):
            calls.append(len(values))
            return kernels.linear(values, weight, bias)

    monkeypatch.setattr(available, "native", Counting)
    layer = Linear(64, 32).eval()
    layer(torch.randn(5, 64))  # gradients are on
    with torch.no_grad():
        layer(torch.randn(FEW_TOKENS + 1, 64))
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.randn(5, 64))
        assert calls == []
        layer(torch.randn(FEW_TOKENS, 64))
        layer.weight.add_(1.0)  # no copy of the weights is kept
        given = torch.randn(3, 64)
        torch.testing.assert_close(layer(given), functional.linear(given, layer.weight, layer.bias))
        layer.bfloat16()(given.bfloat16())
    assert calls == [FEW_TOKENS, 3]


def test_compiled_and_traced_models_keep_torchs_product():
    layer = Linear(64, 32).eval()
    with torch.no_grad():
        traced = torch.jit.trace(layer, torch.randn(5, 64))
        given = torch.randn(7, 64)
        torch.testing.assert_close(traced(given), layer(given))


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"LESSEN_DISABLE_NATIVE": "1"}, "switched off"), ({"LESSEN_ISA": "pdp11"}, "not on this processor")],
)
def test_switched_off(setting, said):
    code = "from lessen.native import native, why_not; print(native(), why_not())"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | setting, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("None")
    assert said in run.stdout


def test_a_lower_instruction_set_can_be_asked_for():
    code = "from lessen.native import native; print(native().isa)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"LESSEN_ISA": "scalar"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "scalar"
