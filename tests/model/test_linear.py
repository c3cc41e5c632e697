"""The linear layer computes the plain product in every layout, precision and number of tokens."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional

from lessen.model import linear
from lessen.model.linear import Linear, round_tokens

COUNTS = [1, 3, 4, 5, 24, 63, 64, 65, 100, 333, 1000]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
LAYOUTS = ["mkl", "onednn", "plain"]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each layout in turn; one that this processor does not have is skipped."""
    name: str = request.param
    if name == "mkl" and not linear.mkl_packs():
        pytest.skip("MKL's layout is not used on this processor")
    if name == "onednn" and not linear.onednn_packs():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(linear, "mkl_packs", lambda: name == "mkl")
    monkeypatch.setattr(linear, "onednn_packs", lambda: name == "onednn")
    return name


def layer(dtype: torch.dtype, inputs: int = 48, outputs: int = 40) -> Linear:
    torch.manual_seed(0)
    return Linear(inputs, outputs).to(dtype).eval()


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", [None, "gelu", "relu", "gelu_new"])
def test_every_count_of_tokens(layout: str, dtype: torch.dtype, activation: str | None) -> None:
    module = layer(dtype)
    for tokens in COUNTS:
        values = torch.randn(tokens, 48).to(dtype)
        expected = functional.linear(values.double(), module.weight.double(), module.bias.double())
        if activation is not None:
            approximate = "tanh" if activation == "gelu_new" else "none"
            gelu = functional.gelu(expected, approximate=approximate)
            expected = functional.relu(expected) if activation == "relu" else gelu
        with torch.inference_mode():
            found = module.activated(values, activation)
        assert found.shape == (tokens, 40)
        assert found.dtype == dtype
        assert gap(found, expected) < TOLERANCE[dtype], tokens


def test_new_weights_are_noticed(layout: str) -> None:
    module = layer(torch.float32)
    values = torch.randn(24, 48)
    with torch.no_grad():
        before = module(values)
        module.weight.mul_(2.0)
        module.bias.mul_(2.0)
        assert gap(module(values), 2 * before) < 1e-5
        module.load_state_dict({"weight": torch.zeros(40, 48), "bias": torch.zeros(40)})
        assert not module(values).any()
        module.weight = torch.nn.Parameter(torch.ones(40, 48))
        assert module(values).any()
        module.weight.data = torch.zeros(40, 48)
        assert not module(values).any()
        module.weight.data.add_(1.0)
        module.train().eval()
        assert module(values).any()


def test_weights_made_in_inference_mode_are_never_laid_out(layout: str) -> None:
    """Their changes cannot be noticed."""
    with torch.inference_mode():
        module = copy.deepcopy(layer(torch.float32))
        values = torch.randn(24, 48)
        before = module(values)
        module.weight.mul_(2.0)
        module.bias.mul_(2.0)
        assert gap(module(values), 2 * before) < 1e-5
        assert module._derived is None


def test_the_copy_stays_behind(layout: str) -> None:
    """Copies and pickles of the layer carry the weights once; training drops the laid-out copy."""
    module = layer(torch.float32)
    values = torch.randn(24, 48)
    with torch.no_grad():
        expected = module(values)
        twins = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
        assert all(twin._derived is None for twin in twins)
        assert all(gap(twin(values), expected) < 1e-6 for twin in twins)
    assert module.train()._derived is None


def test_gradients_are_those_of_the_plain_product() -> None:
    """Rounding the tokens up in bfloat16 training adds nothing to any gradient."""
    module = layer(torch.float32).train()
    values = torch.randn(75, 48, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        module(values).float().square().sum().backward()
    found = [values.grad, module.weight.grad, module.bias.grad]
    assert values.grad is not None
    leaves = [t.detach().double().requires_grad_() for t in (values, module.weight, module.bias)]
    functional.linear(*leaves).square().sum().backward()
    for ours, leaf in zip(found, leaves, strict=True):
        assert ours is not None
        assert leaf.grad is not None
        assert gap(ours, leaf.grad) < 3e-2


def test_rounding_keeps_few_numbers_and_adds_little() -> None:
    kept = {round_tokens(n) for n in range(1, 8193)}
    assert all(n <= round_tokens(n) < n * 17 / 16 for n in range(1, 8193))
    assert len(kept) == 64 + 7 * 16
