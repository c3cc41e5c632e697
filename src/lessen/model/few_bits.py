"""Layers whose weights have few bits, for inference only; `model/latent.py` has those that learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lessen.bits import fours
from lessen.bits.binarizer import Centre, middle
from lessen.bits.ops import OPERATORS
from lessen.bits.packing import unpack, words_for
from lessen.bits.products import arranged, product
from lessen.errors import PlanError
from lessen.model.activations import activate
from lessen.model.deriving import Deriving
from lessen.native import Native, native_for, recorded
from lessen.native.matrix import MOST_COLUMNS, FewBitKind, LowBits
from lessen.native.state import state_of
from lessen.plan import Bits

ONE_BIT: dict[Bits, LowBits] = {32: "w1a32", 8: "w1a8", 1: "w1a1"}
"""Products of binary weights, by bits of what they multiply."""

OPERANDS = ("weight", "scales", "bias")
"""What a product is made of."""


class Ready(NamedTuple):
    """Weights as some kernels want them, and what these were made of.

    Attributes:
        weight: As `kernels` read it.
        scales: That go with it.
        bias: The same.
        sums: Of each row of the weights, `[out_features]`, where inputs vary around a number of their own.
        kernels: Which multiply; None for torch, also where they cannot read scales or bias.
        asked: The kernels that would have been used.
        tensors: All this was made of; kept, so that no others come to lie in their place.
        states: Of these then.
    """

    weight: Tensor
    scales: Tensor | None
    bias: Tensor | None
    sums: Tensor | None
    kernels: Native | None
    asked: Native | None
    tensors: Sequence[Tensor]
    states: list[tuple[int, int]]


class Stored(nn.Module):
    """A matrix that is stored and does not learn, with a scale for each output.

    Attributes:
        weight: As stored; what subclasses say.
        scales: `[out_features]`; None where `weight` holds them.
        bias: `[out_features]`, or None.
    """

    frozen: str
    """Why it does not learn, and what to do."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool, stored: Tensor, *, scaled: bool = True
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(stored, requires_grad=False)
        self.scales = nn.Parameter(torch.empty(out_features), requires_grad=False) if scaled else None
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        """`[tokens, in_features]` to `[tokens, out_features]`.

        Raises:
            PlanError: When gradients are wanted, or in training mode where they could be.
        """
        return self.activated(values, None)

    def activated(self, values: Tensor, activation: str | None) -> Tensor:
        """The same through the activation of this name."""
        if torch.is_grad_enabled() and (self.training or values.requires_grad):
            raise PlanError(self.frozen)
        result = self.multiplied(values)
        return activate(result, activation)

    def multiplied(self, values: Tensor) -> Tensor:
        """With scales and bias, before any activation."""
        raise NotImplementedError


class FewBits(Deriving, Stored):
    """A matrix in few bits that our own kernels multiply by."""

    kind: FewBitKind

    _derived: Ready | None

    def multiplied(self, values: Tensor) -> Tensor:
        """As in `Stored`.

        Raises:
            RuntimeError: When values have another width.
        """
        if values.shape[1] != self.in_features:
            raise RuntimeError(f"values of width {values.shape[1]}, but the layer takes {self.in_features}")
        if recorded():
            return self._recorded(values)
        return self._product(values, self.made_ready(native_for(values)))

    def made_ready(self, asked: Native | None) -> Ready:
        """The weights as these kernels want them, if they can read all of it; made once."""
        ready = self._derived
        own = self._parameters  # a module's attributes are looked up slowly, and a token waits for this
        tensors = [each for name in OPERANDS if (each := own.get(name)) is not None]
        states = [*map(state_of, tensors)]
        if ready is None or ready.asked is not asked or ready.states != states:
            kernels = asked if self._is_whole() else None
            weight, scales, bias = self._arranged(kernels), own.get("scales"), self._whole_bias()
            ready = Ready(weight, scales, bias, self._sums(), kernels, asked, tensors, states)
            self._derived = ready
        return ready

    def _is_whole(self) -> bool:
        """Whether there are weights, not too many in a row, and scales and bias lie as the kernels read."""
        real = [each for each in (self.scales, self.bias) if each is not None]
        fit = all(each.dtype == torch.float32 and each.is_contiguous() for each in real)
        return 0 < self.in_features <= MOST_COLUMNS and self.out_features > 0 and fit

    def _whole_bias(self) -> Tensor | None:
        return self.bias

    def _sums(self) -> Tensor | None:
        return None

    def _arranged(self, kernels: Native | None) -> Tensor:
        assert self.kind != "w4a8"
        return arranged(self.kind, self.weight, self.in_features, kernels)

    def _product(self, values: Tensor, by: Ready) -> Tensor:
        assert self.kind != "w4a8"
        assert by.scales is not None
        return product(self.kind, values, by.weight, by.scales, by.bias, by.kernels)

    def _recorded(self, values: Tensor) -> Tensor:
        assert self.kind != "w4a8"
        return OPERATORS[self.kind](values, self.weight, self.scales, self._whole_bias())


class Int8Linear(FewBits):
    """Weights of 8 bits; inputs get 8 bits and a scale for each token.

    Attributes:
        weight: Whole numbers from -127 to 127, `[out_features, in_features]`, int8.
    """

    kind: FewBitKind = "w8a8"
    frozen = "weights of 8 bits cannot be trained; load the model in float32"

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        stored = torch.empty(out_features, in_features, dtype=torch.int8)
        super().__init__(in_features, out_features, bias, stored)


class Int8Weights(FewBits):
    """Weights of 8 bits for inputs that stay real numbers.

    They are read as they lie, a quarter of float32: what one token at a time waits for. Inputs are not
    rounded, so an answer is nearer to that of the real weights than with `Int8Linear`.

    Attributes:
        weight: Whole numbers from -127 to 127, `[out_features, in_features]`, int8.
    """

    kind: FewBitKind = "w8a32"
    frozen = Int8Linear.frozen

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        stored = torch.empty(out_features, in_features, dtype=torch.int8)
        super().__init__(in_features, out_features, bias, stored)


class Int8Embedding(Int8Weights):
    """A table of 8 bits for each weight and a scale for each row, which may be the language head too.

    Attributes:
        weight: Whole numbers from -127 to 127, `[rows, width]`, int8.
        scales: `[rows]`.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(width, rows, bias=False)
        self.num_embeddings, self.embedding_dim = rows, width

    def forward(self, ids: Tensor) -> Tensor:
        """`[tokens]` to `[tokens, width]`."""
        assert self.scales is not None
        factors = self.scales.index_select(0, ids)[:, None]
        return self.weight.index_select(0, ids).to(factors.dtype) * factors


class Int4Linear(FewBits):
    """Weights of 4 bits; inputs get 8 bits and a scale for each 32 columns of a token.

    Attributes:
        weight: Blocks of 32 columns, `[out_features, bytes]`, uint8 (`bits/fours.py`).
        seal: The version and checksum of them, `[2]`, int64.
    """

    kind: FewBitKind = "w4a8"
    frozen = "weights of 4 bits cannot be trained; load the model in float32"

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        stored = torch.empty(out_features, fours.bytes_for(in_features), dtype=torch.uint8)
        super().__init__(in_features, out_features, bias, stored, scaled=False)
        self.seal = nn.Parameter(torch.empty(2, dtype=torch.int64), requires_grad=False)

    def _arranged(self, kernels: Native | None) -> Tensor:
        return fours.arranged(self.weight, self.in_features, kernels)

    def _product(self, values: Tensor, by: Ready) -> Tensor:
        return fours.product(values, by.weight, by.bias, self.out_features, by.kernels)

    def _recorded(self, values: Tensor) -> Tensor:
        weight = fours.unpack(self.weight, self.in_features, values.dtype)
        return fours.reference(values, weight, self.bias)


class BinaryLinear(FewBits):
    """Weights of one bit, packed.

    Attributes:
        weight: Words of signs, `[out_features, words]`, int64 (`bits/packing.py`).
        seal: The version and checksum of them, `[2]`, int64.
        centre: What inputs are taken to vary around (`bits/binarizer.py`): they are rounded after it was
            taken off, and its own product is added again.
    """

    frozen = "packed signs cannot be trained; continue from the folder that keeps the latents"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_bits: Bits = 32,
        centre: Centre = 0.0,
    ) -> None:
        stored = torch.empty(out_features, words_for(in_features), dtype=torch.int64)
        super().__init__(in_features, out_features, bias, stored)
        self.seal = nn.Parameter(torch.empty(2, dtype=torch.int64), requires_grad=False)
        self.kind = ONE_BIT[activation_bits]
        self.centre = centre

    def activated(self, values: Tensor, activation: str | None) -> Tensor:
        """`[tokens, in_features]` to `[tokens, out_features]`, through the activation of this name."""
        if self.centre != "rectified":
            return super().activated(values - self.centre if self.centre else values, activation)
        around = middle(values)
        sums = self._row_sums() if recorded() else self.made_ready(native_for(values)).sums
        assert sums is not None
        assert self.scales is not None
        result = super().activated(values - around, None) + around * (sums * self.scales)
        return activate(result, activation)

    def _whole_bias(self) -> Tensor | None:
        if not self.centre or self.centre == "rectified":
            return self.bias
        assert self.scales is not None
        shift = self._row_sums() * self.scales * self.centre
        return shift if self.bias is None else self.bias + shift

    def _sums(self) -> Tensor | None:
        return self._row_sums() if self.centre == "rectified" else None

    def _row_sums(self) -> Tensor:
        """What a row of ones becomes by the signs alone, `[out_features]`."""
        assert self.scales is not None
        return unpack(self.weight, self.in_features, self.scales.dtype).sum(1)


class BinaryEmbedding(nn.Module):
    """A table of one bit for each weight and a scale for each row.

    Attributes:
        weight: Words of signs, `[rows, words]`, int64.
        scales: `[rows]`.
        seal: As in `BinaryLinear`.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = rows, width
        words = torch.empty(rows, words_for(width), dtype=torch.int64)
        self.weight = nn.Parameter(words, requires_grad=False)
        self.scales = nn.Parameter(torch.empty(rows), requires_grad=False)
        self.seal = nn.Parameter(torch.empty(2, dtype=torch.int64), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """`[tokens]` to `[tokens, width]`."""
        factors = self.scales.index_select(0, ids)[:, None]
        return unpack(self.weight.index_select(0, ids), self.embedding_dim, factors.dtype) * factors
