"""Binary weights and the gradient that reaches the real ones (BEExformer page, T1 to T7)."""

import pytest
import torch

from lessen.bits.binarizer import binarize, clip, scales, signs, surrogate, surrogate_slope
from lessen.bits.packing import pack


@pytest.fixture
def weight():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 37, generator=generator, dtype=torch.float64, requires_grad=True)


def test_forward_is_signs_times_the_row_scale(weight):
    """T1."""
    binary = binarize(weight)
    for row, real in zip(binary, weight, strict=True):
        assert set(row.abs().tolist()) == {real.abs().mean().item()}
    torch.testing.assert_close(binarize(binary.detach()), binary)
    assert binary.dtype == weight.dtype
    zeros = torch.tensor([[0.0, -0.0, 1.0, -1.0]])
    assert signs(zeros).tolist() == [[1, 1, 1, -1]]


def test_gradient_is_upstream_times_scale_times_slope():
    """T2."""
    values = torch.tensor([[-1.5, -1, -0.5, 0, 0.5, 1, 1.5]], dtype=torch.float64, requires_grad=True)
    upstream = torch.arange(1.0, 8, dtype=torch.float64)[None]
    expected = torch.tensor([[0, 0, 1, 2, 1, 0, 0]], dtype=torch.float64)
    scale = values.abs().mean().item()
    for gradient, factor in (("poly", scale), ("poly_unscaled", 1.0)):
        values.grad = None
        (binarize(values, gradient=gradient) * upstream).sum().backward()
        torch.testing.assert_close(values.grad, upstream * expected * factor)
    values.grad = None
    (binarize(values, gradient="ste_clip") * upstream).sum().backward()
    assert (values.grad / upstream).tolist() == [[0, 1, 1, 1, 1, 1, 0]]
    values.grad = None
    (binarize(values, gradient="ste") * upstream).sum().backward()
    assert torch.equal(values.grad, upstream)


def test_gradient_is_that_of_the_surrogate(weight):
    """T3."""
    upstream = torch.randn_like(weight)
    (binarize(weight) * upstream).sum().backward()
    found, weight.grad = weight.grad, None
    (surrogate(weight) * scales(weight) * upstream).sum().backward()
    torch.testing.assert_close(found, weight.grad)


def test_the_surrogate_is_smooth_odd_and_nearer_to_the_sign_than_clipping():
    """T4 and T5."""
    grid = torch.arange(-2, 2.0005, 1e-3, dtype=torch.float64)
    step = 1e-4
    slope = (surrogate(grid + step) - surrogate(grid - step)) / (2 * step)
    away = ((grid.abs() - 1).abs() > 1e-3) & (grid.abs() > 1e-3)
    assert (slope - surrogate_slope(grid))[away].abs().max() < 1e-9
    torch.testing.assert_close(surrogate(-grid), -surrogate(grid))
    assert surrogate(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [-1, 0, 1]
    inside = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    area = (torch.sign(inside) - surrogate(inside)).abs().mean() * 2
    assert area.item() == pytest.approx(2 / 3, abs=1e-4)
    clipped = (torch.sign(inside) - inside).abs().mean() * 2
    assert clipped.item() == pytest.approx(1, abs=1e-4)
    around = torch.linspace(-2, 2, 400_001, dtype=torch.float64)
    assert surrogate_slope(around).mean().item() * 4 == pytest.approx(2, abs=1e-4)


def test_the_row_scale_is_the_best_one(weight):
    """T6."""
    best = scales(weight)

    def error(factor):
        return (weight - factor * best * signs(weight)).norm()

    assert error(1) < min(error(0.99), error(1.01))


def test_scales_by_name(weight):
    assert scales(weight, "tensor_mean").shape == scales(weight).shape == (5, 1)
    assert set(binarize(weight, "none").unique().tolist()) == {-1, 1}
    with pytest.raises(ValueError, match="unknown scale"):
        binarize(weight, "median")
    with pytest.raises(ValueError, match="unknown gradient"):
        binarize(weight, gradient="cubic")


def test_a_step_moves_what_is_packed(weight):
    """T7: latents move, the binary copy is made of what they have become, and the edge does not move."""
    edge = torch.tensor([[1.0, -1.0, 0.01, -0.3]], requires_grad=True)
    before, words = edge.detach().clone(), pack(edge)
    optimizer = torch.optim.SGD([edge], lr=0.1)
    binarize(edge).sum().backward()
    assert edge.grad[0, :2].tolist() == [0, 0]
    optimizer.step()
    assert torch.equal(edge[0, :2], before[0, :2])
    assert (edge[0, 2:] < before[0, 2:]).all()
    assert edge[0, 2] < 0
    assert not torch.equal(pack(edge), words)
    assert binarize(edge)[0, 2] < 0


def test_clipped_weights_still_learn():
    """T7."""
    weights = [torch.tensor([[-3.0, 0.2, 1.0]]).requires_grad_()]
    clip(weights)
    assert weights[0].detach().abs().max() < 1
    binarize(weights[0]).sum().backward()
    assert (weights[0].grad > 0).all()
