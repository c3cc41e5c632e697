"""The linear layer: one matrix, and in inference on a CPU whatever multiplies by it fastest.

For a few tokens in float32 our own kernel reads the matrix as it is, once. For more, a laid-out copy is kept:
`torch.nn.functional.linear` hands MKL or oneDNN a plain matrix, which is laid out anew at every call. The
copy is MKL's in float32 on Intel processors, oneDNN's own everywhere else.

oneDNN also compiles a kernel for every number of tokens it meets, which takes longer than using it. Ragged
batches hardly ever have the same number twice, so products that go to oneDNN are rounded up to one of a few
numbers, in inference and in training alike.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lessen.model.activations import activate
from lessen.model.deriving import Deriving
from lessen.native import native_for, recorded
from lessen.native.state import state_of

ENABLED = os.environ.get("LESSEN_DISABLE_PACKING") != "1"
"""Whether laid-out copies are kept; they double the layers' memory, which LESSEN_DISABLE_PACKING=1 saves."""

FEW_TOKENS = 48
"""Up to so many, our own float32 kernel is faster than MKL with its laid-out copy."""

SMALL_LAYER, FEW_IN_SMALL, FEW_IN_LARGE = 1 << 20, 192, 112
"""The same of a whole layer in one call, beside oneDNN: where its largest matrix has at most so many numbers,
and where it has more. By hand, on Zen 5 with 1 and 2 threads: MiniLM (590 thousand), slender, BERT-base."""

FEWEST_TOKENS = 4
"""Below this, a float32 matrix-vector product on the plain layout is as fast."""

TYPICAL_TOKENS = 300
"""MKL lays out for a number of tokens, and computes right, if slower, for any other."""

FUSED: dict[str | None, tuple[str, str]] = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "relu": ("relu", ""),
}
"""Activations oneDNN's product applies itself, under its own names."""

Product = Callable[[Tensor, Tensor | None, str | None], Tensor]
"""`product(values, bias, activation)`: `[tokens, in_features]` to `[tokens, out_features]`."""


class _LaidOut(NamedTuple):
    """A product with a copy of a matrix, and what that was when it was copied."""

    product: Product
    weight: Tensor
    state: tuple[int, int]


class Linear(Deriving, nn.Linear):
    """`nn.Linear`, faster where gradients are off and the processor is a CPU.

    Where weights are laid out, a change of them is noticed when autograd sees it (in-place under `no_grad`,
    `load_state_dict`) or when they are replaced. A write through `weight.data` is seen by nobody: call
    `train()` and `eval()` then.
    """

    _derived: _LaidOut | None

    def reset_parameters(self) -> None:
        """As in torch; a layer without inputs or outputs has nothing to draw."""
        if self.weight.numel():
            super().reset_parameters()
        elif self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, values: Tensor) -> Tensor:
        """`[tokens, in_features]` to `[tokens, out_features]`."""
        return self.activated(values, None)

    def activated(self, values: Tensor, activation: str | None) -> Tensor:
        """The same through the activation of this name, in one go where the product can apply it itself."""
        kernels = native_for(values) if len(values) <= FEW_TOKENS else None
        if kernels is not None and _can_read(values, self.weight, self.bias):
            return activate(kernels.linear(values, self.weight, self.bias), activation)
        if self._lays_out(values):
            return self._laid_out()(values, self.bias, activation)
        return activate(dense(values, self.weight, self.bias), activation)

    def _lays_out(self, values: Tensor) -> bool:
        weight = self.weight
        if torch.is_grad_enabled() or not ENABLED or weight.device.type != "cpu" or weight.numel() == 0:
            return False
        if recorded():
            return False
        if values.shape[1] != weight.shape[1]:  # torch says so
            return False
        if values.dtype != weight.dtype or torch.is_autocast_enabled("cpu") or weight.is_inference():
            return False
        if weight.dtype == torch.float32:
            return len(values) >= FEWEST_TOKENS and (mkl_packs() or onednn_packs())
        return weight.dtype == torch.bfloat16 and onednn_packs()

    def _laid_out(self) -> Product:
        """The product with a laid-out copy, made anew whenever the weights have changed."""
        weight, known, state = self.weight, self._derived, state_of(self.weight)
        if known is None or known.weight is not weight or known.state != state:
            mkl = weight.dtype == torch.float32 and mkl_packs()
            product = _mkl_product(weight) if mkl else _onednn_product(weight)
            known = self._derived = _LaidOut(product, weight, state)
        return known.product


def few_in_a_layer(numbers: int) -> int:
    """Up to how many tokens our own float32 kernels do a layer faster than torch does its parts.

    Args:
        numbers: Of its largest matrix.
    """
    if mkl_packs():
        return FEW_TOKENS
    return FEW_IN_SMALL if numbers <= SMALL_LAYER else FEW_IN_LARGE


def dense(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`, the number of tokens rounded up where oneDNN computes it."""
    if _goes_to_onednn(values, weight):
        return rounded(values, lambda more: functional.linear(more, weight, bias))
    return functional.linear(values, weight, bias)


def multiply(values: Tensor, weight: Tensor) -> Tensor:
    """`values @ weight.T` with a matrix that serves for something else too: no copy of it is laid out.

    In bfloat16 the result may be float32.
    """
    kernels = native_for(values, narrow=True) if len(values) <= FEW_TOKENS else None
    fits = weight.dtype == values.dtype and values.shape[1] == weight.shape[1]
    if kernels is not None and fits and weight.is_contiguous() and weight.numel():
        return kernels.linear(values.float(), weight, None)
    return dense(values, weight, None)


def rounded(values: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
    """`product(values)`, computed on as many rows as `round_tokens` says; the surplus is cut off again."""
    tokens = len(values)
    surplus = round_tokens(tokens) - tokens
    if surplus == 0:
        return product(values)
    return product(torch.cat([values, values.new_zeros(surplus, *values.shape[1:])]))[:tokens]


def round_tokens(tokens: int) -> int:
    """`tokens` up to 64 as they are, above that rounded up by less than a sixteenth: 16 numbers an octave."""
    if tokens <= 64:
        return tokens
    step = 1 << (tokens.bit_length() - 5)
    return -(-tokens // step) * step


def _can_read(values: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernels can; what does not go together is for torch to refuse."""
    if values.shape[1] != weight.shape[1] or weight.numel() == 0:
        return False
    parts = [weight] if bias is None else [weight, bias]
    return all(each.dtype == torch.float32 and each.is_contiguous() for each in parts)


def _goes_to_onednn(values: Tensor, weight: Tensor) -> bool:
    if values.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return weight.dtype == torch.bfloat16


def _mkl_product(weight: Tensor) -> Product:
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight.detach(), TYPICAL_TOKENS)

    def product(values: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
        result = torch.ops.mkl._mkl_linear(values.contiguous(), packed, weight, bias, len(values))
        return activate(result, activation)

    return product


def _onednn_product(weight: Tensor) -> Product:
    blocked = torch.ops.mkldnn._reorder_linear_weight(weight.detach())

    def product(values: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
        name, algorithm = FUSED.get(activation, FUSED[None])
        result = rounded(
            values,
            lambda more: torch.ops.mkldnn._linear_pointwise(more, blocked, bias, name, [], algorithm),
        )
        return result if activation in FUSED else activate(result, activation)

    return product


@cache
def onednn_packs() -> bool:
    """Whether this torch can keep weights in oneDNN's layout."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


@cache
def mkl_packs() -> bool:
    """Whether this torch can keep weights in MKL's layout, and the processor is one MKL is made for.

    One layout is used for every number of tokens. MKL's manual does not promise that, so it is tried once.
    """
    if not (
        torch.backends.mkl.is_available()
        and hasattr(torch.ops.mkl, "_mkl_linear")
        and hasattr(torch.ops.mkl, "_mkl_reorder_linear_weight")
        and _is_intel()
    ):
        return False
    weight = torch.sin(torch.arange(40.0 * 48)).view(40, 48)
    product = _mkl_product(weight)
    with torch.autocast("cpu", enabled=False):
        for tokens in (FEWEST_TOKENS, 33, TYPICAL_TOKENS, 3 * TYPICAL_TOKENS):
            values = torch.cos(torch.arange(48.0 * tokens)).view(tokens, 48)
            if not torch.allclose(product(values, None, None), values @ weight.T, rtol=0, atol=1e-4):
                return False
    return True


def _is_intel() -> bool:
    listing = Path("/proc/cpuinfo")
    text = listing.read_text(encoding="utf-8") if listing.exists() else platform.processor()
    return "GenuineIntel" in text
