"""The losses of language exits: their value, their sign, and that memory stays small (page 1.4)."""

import math

import pytest
import torch

from lessen.depth import language_losses
from lessen.depth.language_losses import candidates, foresight, imitation, penalized, positions_at_once


def test_imitation_is_the_divergence_and_zero_for_equals() -> None:
    student, teacher = torch.randn(2, 7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p, q = teacher.softmax(-1), student.softmax(-1)
    assert float(imitation(student, teacher)) == pytest.approx(float((p * (p / q).log()).sum()))
    assert float(imitation(teacher, teacher)) == pytest.approx(0, abs=1e-12)
    assert float(imitation(teacher + 3.0, teacher)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("penalty", [0.3, 0.6, 0.95])
def test_penalized_rewards_entropy_up_to_the_closed_form(penalty: float) -> None:
    """The best exit has log(p_y / q) = (1 - lambda) / (lambda p_y): more penalty, less sure."""
    words, teacher = 9, torch.zeros(1, 9, dtype=torch.float64)
    teacher[0, 4] = 5.0
    logits = torch.zeros(1, words, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimizer.zero_grad()
        loss = penalized(logits, teacher, penalty)
        loss.backward()
        return loss

    optimizer.step(closure)
    p = logits.detach().softmax(-1)[0]
    others = torch.cat([p[:4], p[5:]])
    assert others.max() - others.min() < 1e-6
    assert math.log(p[4] / others[0]) == pytest.approx((1 - penalty) / (penalty * float(p[4])), rel=1e-3)
    assert p.argmax() == 4


def test_without_a_penalty_it_is_cross_entropy() -> None:
    logits, teacher = torch.randn(2, 5, 8)
    expected = torch.nn.functional.cross_entropy(logits, teacher.argmax(-1), reduction="sum")
    assert torch.allclose(penalized(logits, teacher, 0.0), expected)


def test_the_teacher_gets_no_gradient() -> None:
    logits, teacher = torch.randn(4, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    for loss in (imitation(logits, teacher), penalized(logits, teacher, 0.5)):
        loss.backward()
    assert teacher.grad is None


def test_a_probe_learns_whether_the_exit_agrees() -> None:
    teacher = torch.eye(4)
    logits = teacher[[0, 1, 3, 2]]
    right = torch.tensor([9.0, 9.0, -9.0, -9.0])
    assert foresight(right, logits, teacher) < 0.01
    assert foresight(-right, logits, teacher) > 30


def test_logits_of_a_large_vocabulary_stay_within_bounds() -> None:
    assert positions_at_once(49152) * 49152 * 4 <= language_losses.LOGITS_BYTES < 100e6
    assert positions_at_once(10**9) == 1


def test_candidates_stand_for_the_whole_vocabulary() -> None:
    """Sampled softmax: sum of exp(logit) right on average; standard error over 2,000 draws, 4 of them."""
    draw = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 3, 200, dtype=torch.float64, generator=draw)
    whole, sums = student.exp().sum(-1), []
    for _ in range(2000):
        chosen = candidates(teacher, 30, draw)
        assert chosen is not None
        assert len(chosen.tokens.unique()) == len(chosen.tokens)
        assert set(teacher.argmax(-1).tolist()) <= set(chosen.tokens.tolist())
        sums.append((student[:, chosen.tokens] + chosen.more).exp().sum(-1))
    found = torch.stack(sums)
    assert ((found.mean(0) - whole).abs() < 4 * found.std(0) / 2000**0.5).all()
    plain = torch.stack([student[:, candidates(teacher, 30, draw).tokens].exp().sum(-1) for _ in range(50)])
    assert (plain.mean(0) < 0.6 * whole).all(), "without the weights it is not"
    assert candidates(teacher, 100, draw) is None
