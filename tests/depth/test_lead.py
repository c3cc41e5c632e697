"""How far the likeliest outcome is ahead: the kernels and torch say the same."""

from __future__ import annotations

import math

import pytest
import torch

from lessen.depth.criteria import LANGUAGE, OF_LEAD
from lessen.model import lead as module
from lessen.model.lead import lead


@torch.no_grad()
@pytest.mark.parametrize("columns", [2, 16, 101, 256, 1000])
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 200.0])
def test_criteria_are_those_of_the_softmax(columns: int, size: float, monkeypatch) -> None:
    """Against float64; sums of a thousand float32 numbers: 1e-5."""
    logits = size * torch.randn(7, columns)
    shares = logits.double().softmax(-1)
    best = shares.topk(2).values
    expected = {
        "entropy": torch.special.entr(shares).sum(-1),
        "improbability": 1 - best[:, 0],
        "closeness": 1 - (best[:, 0] - best[:, 1]),
        "logit_closeness": -(lambda two: two[:, 0] - two[:, 1])(logits.double().topk(2).values),
    }
    by_kernels = lead(logits)
    monkeypatch.setattr(module, "native_for", lambda _: None)
    for found in (by_kernels, lead(logits)):
        assert torch.equal(found.place, logits.argmax(-1))
        for name in LANGUAGE:
            score = OF_LEAD[name](found)
            assert score.dtype == torch.float32
            assert torch.allclose(score.double(), expected[name], rtol=1e-5, atol=1e-6), name
    exact = lead(logits.double())
    assert torch.allclose(OF_LEAD["entropy"](exact), expected["entropy"], rtol=1e-12, atol=1e-14)


@torch.no_grad()
@pytest.mark.parametrize("kernels", [True, False])
def test_what_is_no_number_makes_no_token_sure(kernels: bool, monkeypatch) -> None:
    if not kernels:
        monkeypatch.setattr(module, "native_for", lambda _: None)
    logits = torch.zeros(3, 20)
    logits[1, 4] = math.nan
    logits[2, 3], logits[2, 5:] = 50.0, -math.inf
    found = lead(logits)
    for name in LANGUAGE:
        score = OF_LEAD[name](found)
        assert score.isnan().tolist() == [False, True, False], name
        assert not (score < 1e9)[1], name
    assert float(OF_LEAD["improbability"](found)[2]) == pytest.approx(4 * math.exp(-50), rel=1e-5)
