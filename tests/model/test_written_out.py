"""Attention written out for training: the definition, and its gradients, whatever is added and dropped."""

import pytest
import torch
from torch import Tensor

from lessen.model import written_out
from lessen.model.written_out import attend_written_out

ROWS, LONGEST, HEADS, WIDTH = 5, 6, 2, 4
LENGTHS = torch.tensor([2, 3, 3, 5, 6])
BIASES = {
    "none": None,
    "heads": (HEADS, LONGEST, LONGEST),
    "one for all heads": (1, LONGEST, LONGEST),
    "rows": (ROWS, HEADS, LONGEST, LONGEST),
    "rows, one for all heads": (ROWS, 1, LONGEST, LONGEST),
}


@pytest.fixture(autouse=True, params=[2, 1 << 20], ids=["rows one by one", "all rows at once"])
def _at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written_out, "AT_ONCE", request.param)


def given(bias: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values, a mask and a bias."""
    torch.manual_seed(0)
    qkv = torch.randn(ROWS, LONGEST, 3, HEADS, WIDTH, dtype=dtype, requires_grad=True)
    padding = torch.arange(LONGEST) >= LENGTHS[:, None]
    mask = torch.zeros(ROWS, 1, 1, LONGEST).masked_fill(padding[:, None, None], float("-inf"))
    shape = BIASES[bias]
    return qkv, mask, None if shape is None else torch.randn(shape, dtype=dtype, requires_grad=True)


def definition(qkv: Tensor, mask: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Context and probabilities, left to autograd."""
    query, key, value = qkv.unbind(2)
    scores = torch.einsum("rqhd,rkhd->rhqk", query, key) / WIDTH**0.5
    for added in (mask, bias):
        scores = scores if added is None else scores + added
    probabilities = scores.softmax(-1)
    return torch.einsum("rhqk,rkhd->rqhd", probabilities, value), probabilities


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_the_definition_and_so_are_its_gradients(bias: str, padded: bool) -> None:
    qkv, mask, added = given(bias)
    mask = mask if padded else None
    upstream = torch.randn(ROWS, LONGEST, HEADS, WIDTH, dtype=torch.float64)
    wanted = [qkv] if added is None else [qkv, added]
    expected = definition(qkv, mask, added)[0]
    found = attend_written_out(qkv, mask, added)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted, upstream), torch.autograd.grad(expected, wanted, upstream)
    )


def test_gradients_of_what_was_not_dropped() -> None:
    """Numerically, the same weights dropped each time."""
    qkv, mask, added = given("heads")

    def dropping(values: Tensor, more: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attend_written_out(values, mask, more, 0.4)

    assert not torch.equal(dropping(qkv, added), attend_written_out(qkv, mask, added))
    assert torch.autograd.gradcheck(dropping, (qkv, added))


def test_all_weights_can_be_dropped() -> None:
    qkv, mask, _ = given("none")
    found = attend_written_out(qkv, mask, None, 1.0)
    found.sum().backward()
    assert found.count_nonzero() == 0
    assert qkv.grad is not None
    assert qkv.grad.count_nonzero() == 0


def test_probabilities_are_shown_before_any_is_dropped() -> None:
    qkv, mask, _ = given("none", torch.bfloat16)
    seen = torch.full((ROWS, HEADS, LONGEST, LONGEST), float("nan"))

    def see(probabilities: Tensor, part: slice) -> None:
        assert not probabilities.requires_grad
        assert probabilities.dtype == torch.float32
        seen[part] = probabilities

    attend_written_out(qkv, mask, None, 0.5, see)
    expected = definition(qkv.detach().float(), mask, None)[1]
    torch.testing.assert_close(seen, expected, atol=2e-2, rtol=0)
    torch.testing.assert_close(seen.sum(-1), torch.ones(ROWS, HEADS, LONGEST))


@pytest.mark.parametrize("bias", ["none", "heads"])
def test_in_bfloat16_it_is_as_near_as_that_goes(bias: str) -> None:
    """In autocast too, which would have a softmax in float32."""
    qkv, mask, added = given(bias, torch.float32)
    wanted = [qkv] if added is None else [qkv, added]
    narrow = qkv.detach().bfloat16().requires_grad_()
    expected = torch.autograd.grad(definition(qkv, mask, added)[0].sum(), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        context = attend_written_out(narrow, mask, added)
    assert context.dtype == torch.bfloat16
    found = torch.autograd.grad(context.sum(), [narrow, *wanted[1:]])
    assert [each.dtype for each in found] == [torch.bfloat16, torch.float32][: len(found)]
    for one, other in zip(found, expected, strict=True):
        assert (one.float() - other).norm() <= 0.02 * other.norm()


def test_a_large_bias_is_added_before_anything_is_rounded() -> None:
    """Scores and bias in the tens: each rounded to bfloat16, they would be off by a tenth."""
    qkv, mask, _ = given("none", torch.float32)
    bias = 10 * torch.randn(HEADS, LONGEST, LONGEST)
    narrow = (2 * qkv.detach()).bfloat16()
    expected = definition(narrow.double(), mask, bias.double())[0]
    found = attend_written_out(narrow, mask, bias)
    assert (found.double() - expected).norm() <= 0.006 * expected.norm()
