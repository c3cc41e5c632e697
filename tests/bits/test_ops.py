"""The products as operators of torch: graphs see their shapes, and kernels nothing that does not fit."""

import pytest
import torch

from lessen.bits.ops import OPERATORS
from lessen.bits.packing import pack
from lessen.bits.products import reference
from lessen.native.matrix import LOW_BITS

ROWS, COLUMNS, TOKENS = 12, 70, 5


def operands(kind: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, weight, scales and bias."""
    generator = torch.Generator().manual_seed(0)
    values, weight = (
        torch.randn(TOKENS, COLUMNS, generator=generator),
        torch.randn(ROWS, COLUMNS, generator=generator),
    )
    stored = (weight * 20).clamp(-127, 127).to(torch.int8) if kind in ("w8a8", "w8a32") else pack(weight)
    return values, stored, torch.rand(ROWS, generator=generator) + 0.5, torch.randn(ROWS, generator=generator)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("kind", LOW_BITS)
def test_torch_finds_nothing_wrong_with_them(kind: str) -> None:
    values, weight, scales, bias = operands(kind)
    for given in (bias, None):
        torch.library.opcheck(OPERATORS[kind], (values, weight, scales, given))
        found = OPERATORS[kind](values, weight, scales, given)
        assert close(found, reference(kind, values, weight, scales, given))


@pytest.mark.parametrize("kind", LOW_BITS)
def test_a_layer_is_exported_with_them(kind: str) -> None:
    values, weight, scales, bias = operands(kind)

    class Layer(torch.nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return getattr(torch.ops.lessen, f"linear_{kind}")(given, weight, scales, bias)

    exported = torch.export.export(Layer(), (values,)).module()
    assert torch.equal(exported(values), Layer()(values))


@pytest.mark.parametrize("kind", LOW_BITS)
def test_a_layer_is_exported_once_for_any_number_of_tokens(kind: str) -> None:
    values, weight, scales, bias = operands(kind)

    class Layer(torch.nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return getattr(torch.ops.lessen, f"linear_{kind}")(given, weight, scales, bias)

    tokens = {"given": {0: torch.export.Dim("tokens", min=1, max=100)}}
    exported = torch.export.export(Layer(), (values,), dynamic_shapes=tokens).module()
    for some in (values[:2], values.repeat(3, 1)):
        assert torch.equal(exported(some), Layer()(some))


def test_one_weight_serves_two_products() -> None:
    values, weight, scales, bias = operands("w8a8")
    for _ in range(2):
        for kind in ("w8a8", "w8a32"):
            expected = reference(kind, values, weight, scales, bias)
            assert close(OPERATORS[kind](values, weight, scales, bias), expected)


@pytest.mark.parametrize("kind", LOW_BITS)
def test_scales_and_bias_may_lie_anywhere_and_be_of_any_type(kind: str) -> None:
    values, weight, scales, bias = operands(kind)
    expected = reference(kind, values, weight, scales, bias)
    apart = [torch.stack([each, each + 1], 1)[:, 0] for each in (scales, bias)]
    assert close(OPERATORS[kind](values, weight, *apart), expected)
    assert close(OPERATORS[kind](values, weight, scales.double(), bias), expected)
    beside = torch.empty(TOKENS * COLUMNS + 1)[1:].view(TOKENS, COLUMNS).copy_(values)
    assert close(OPERATORS[kind](beside, weight, scales, bias), expected), "values at any address"


@pytest.mark.parametrize("kind", LOW_BITS)
def test_what_does_not_fit_is_refused(kind: str) -> None:
    values, weight, scales, bias = operands(kind)
    narrow = values[:, : -65 if weight.dtype == torch.int64 else -1]
    wrong = [
        ("values and weight have two dimensions", (values[0], weight, scales, bias)),
        ("expected a weight of .*, not torch.int(8|64), ", (narrow, weight, scales, bias)),
        ("not torch.int32, ", (values, weight.to(torch.int32), scales, bias)),
        (r"expected a weight of .* \(11, ", (values, weight, scales[:-1], bias)),
        (r"bias \(11,\): one for each of 12 rows", (values, weight, scales, bias[:-1])),
        ("scales: expected real numbers, not torch.int64", (values, weight, scales.long(), bias)),
    ]
    for says, given in wrong:
        with pytest.raises(RuntimeError, match=says):
            OPERATORS[kind](*given)
