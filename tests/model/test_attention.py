"""What attention relies on of torch: a softmax written over its own input."""

import pytest
import torch

from lessen.model.attention import _probabilities


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("length", [1, 2, 7, 63, 64, 129, 1000])
def test_a_softmax_may_be_written_over_its_own_input(length: int, dtype: torch.dtype) -> None:
    """Bit by bit what it is elsewhere. Torch does not promise it: a kernel that reads late would break it."""
    scores = 5 * torch.randn(2, 3, length, length, dtype=dtype, generator=torch.Generator().manual_seed(0))
    scores[:, 0, :, 1:] = float("-inf")
    expected = torch.softmax(scores.clone(), -1)
    found = torch.softmax(scores, -1, out=scores)
    assert found.data_ptr() == scores.data_ptr(), "no other memory"
    assert torch.equal(scores, expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_probabilities_are_those_of_the_definition(
    dtype: torch.dtype, tolerance: float, masked: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 4, 63, 8, dtype=dtype, generator=generator).unbind(0)
    mask = torch.randn(63, 63, dtype=dtype, generator=generator).triu() if masked else None
    scores = torch.einsum("rhqd,rhkd->rhqk", query, key) / 8**0.5
    expected = torch.softmax(scores if mask is None else scores + mask, -1)
    found = _probabilities(query, key, mask)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
