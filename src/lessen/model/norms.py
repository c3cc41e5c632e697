"""Norms: over a token's mean and deviation, or over its size alone."""

from __future__ import annotations

from torch import nn

from lessen.model.architecture import Architecture
from lessen.native.matrix import NormOf

NORMS = (nn.LayerNorm, nn.RMSNorm)
"""What the kernels can compute of norms."""


def norm(architecture: Architecture, width: int | None = None) -> nn.Module:
    """A norm of the architecture's kind.

    Args:
        architecture: Says which: LayerNorm (Ba et al. 2016), or RMSNorm (Zhang and Sennrich 2019), which
            has no bias and takes no mean off.
        width: Of what it norms; that of the hidden states if None.
    """
    kind = nn.LayerNorm if architecture.norm == "layer" else nn.RMSNorm
    return kind(width or architecture.hidden_size, eps=architecture.norm_eps)


def norm_of(norm: nn.Module) -> NormOf:
    """A norm as the kernels take it: weight, bias or None, and epsilon."""
    if isinstance(norm, nn.RMSNorm):
        assert norm.eps is not None
        return norm.weight.float(), None, norm.eps
    assert isinstance(norm, nn.LayerNorm)
    return norm.weight.float(), norm.bias.float(), norm.eps
