"""Scores against numbers worked out by hand, and against padding."""

import pytest
import torch

from lessen.tokens.score import NAMES, SCORES, WINDOW


def random_probabilities(
    rows: int, heads: int, length: int, real: torch.Tensor | None = None
) -> torch.Tensor:
    scores = torch.randn(rows, heads, length, length, generator=torch.Generator().manual_seed(0))
    if real is not None:
        scores = scores.masked_fill(~real[:, None, None], float("-inf"))
    return scores.softmax(-1)


def test_the_pages_golden_numbers() -> None:
    """Latency-adjustable page, 1.2."""
    one = torch.tensor([[[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]])
    assert SCORES["mean"](one, None)[0].tolist() == pytest.approx([0.8 / 3, 1.3 / 3, 0.9 / 3])
    assert (3 * SCORES["offdiag"](one, None)[0]).tolist() == pytest.approx([0.3, 0.5, 0.3])
    causal = torch.tril(torch.ones(4, 4)) / torch.arange(1, 5)[:, None]
    found = SCORES["mean"](causal[None, None], None)[0].tolist()
    assert found == pytest.approx([0.520833, 0.270833, 0.145833, 0.0625], abs=1e-6)
    uniform = SCORES["causal_norm"](causal[None, None], None)[0]
    assert uniform.tolist() == pytest.approx([0.520833, 4 * 0.270833 / 3, 2 * 0.145833, 0.25], abs=1e-5)


@pytest.mark.parametrize("name", ["mean", "last_query", "window"])
def test_scores_that_share_out_the_attention_sum_to_one(name: str) -> None:
    found = SCORES[name](random_probabilities(3, 4, 20), None)
    assert found.sum(-1).tolist() == pytest.approx([1.0] * 3, abs=1e-6)
    assert (found >= 0).all()


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.parametrize("length", [1, 5, 13])
def test_padding_changes_nothing(name: str, length: int) -> None:
    """A padded row's real tokens score as the row does alone, whatever padding queries attend to."""
    real = torch.arange(16)[None] < length
    probabilities = random_probabilities(1, 3, 16, real)
    padded = SCORES[name](probabilities, real)[0]
    alone = SCORES[name](probabilities[:, :, :length, :length], None)[0]
    assert torch.allclose(padded[:length], alone, atol=1e-6)
    assert (padded[length:] == 0).all()


def test_window_is_the_last_queries() -> None:
    probabilities = random_probabilities(2, 3, 20)
    expected = probabilities[:, :, -WINDOW:].mean((1, 2))
    assert torch.allclose(SCORES["window"](probabilities, None), expected)
    assert set(SCORES) < set(NAMES)
