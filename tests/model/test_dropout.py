"""Dropout by our own masks: torch's law, torch's seeds."""

import pytest
import torch

from lessen.model.dropout import Dropout, mask


@pytest.mark.parametrize("share", [0.1, 0.15, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_is_gone_and_the_mean(share: float, dtype: torch.dtype) -> None:
    """A million values: five standard errors."""
    torch.manual_seed(0)
    found = mask(torch.ones(1000, 1000, dtype=dtype), share)
    gone = (found == 0).double().mean().item()
    assert abs(gone - share) < 5 * (share * (1 - share) / 1e6) ** 0.5 + 1 / 65536
    assert found.dtype == dtype
    rounding = 0 if dtype == torch.float32 else 2**-8
    kept = found[found != 0].double().mean().item()
    assert kept == pytest.approx(1 / (1 - share), rel=1e-4 + rounding)


def test_neighbours_are_independent() -> None:
    """Of a million pairs side by side, and below each other, as many are gone together as chance has it."""
    torch.manual_seed(1)
    gone = mask(torch.ones(1000, 1001), 0.1) == 0
    for one, other in ((gone[:, 1:], gone[:, :-1]), (gone[1:], gone[:-1])):
        assert (one & other).double().mean().item() == pytest.approx(0.01, abs=5e-4)


def test_seeds_are_torchs() -> None:
    layer, values = Dropout(0.3).train(), torch.ones(33, 7)
    torch.manual_seed(4)
    first, second = layer(values), layer(values)
    torch.manual_seed(4)
    assert torch.equal(layer(values), first)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    third = layer(values)
    torch.set_rng_state(state)
    assert torch.equal(layer(values), third)


def test_gradients_pass_where_values_did() -> None:
    values = torch.randn(50, 20, requires_grad=True)
    found = Dropout(0.5).train()(values)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, torch.where(found == 0, 0.0, 2.0))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_nothing_happens_at_rest_and_all_or_nothing_as_in_torch(share: float) -> None:
    values = torch.randn(8, 3)
    assert Dropout(share).eval()(values) is values
    if share in (0.0, 1.0):
        assert torch.equal(Dropout(share).train()(values), torch.nn.Dropout(share)(values))
    assert Dropout(share).train()(values[:0]).shape == (0, 3)
