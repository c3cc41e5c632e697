"""Activations by name."""

import pytest
import torch
from transformers.activations import ACT2FN

from lessen.model.activations import NEARLY_GELU, activation


@pytest.mark.parametrize("name", NEARLY_GELU)
def test_gelu_by_a_tanh_has_three_names(name: str) -> None:
    values = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(activation(name)(values), ACT2FN[name](values), atol=1e-9, rtol=0)
