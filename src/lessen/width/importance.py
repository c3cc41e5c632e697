"""What heads and neurons are worth: first-order Taylor scores, and the controls they are compared with.

A Taylor score says how much a loss would change without a part, from its gradient. Which loss is the caller's
choice: summed over all exits the scores know what shallow exits need ("calibrated" in COST-EFF), of the last
exit alone they do not.

* `AbsWeight` is the authors' form (COST-EFF page, 1.5): |weight x accumulated |gradient|| over the output
  columns of a head, and the rows and columns of a neuron. Its size depends on the rows per batch.
* `SignedGroup` is the change itself: the gradient by a mask on the part, for each row alone, absolute values
  summed over rows. It does not depend on the rows per batch where the loss is the mean over rows; COST-EFF's
  has a mean over all tokens of a batch too, by which it does a little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from lessen.model.block import Block
from lessen.model.feed_forward import FeedForward, GatedFeedForward
from lessen.model.matrices import LowRank
from lessen.model.rows import Rows
from lessen.model.transformer import Transformer


@dataclass(frozen=True)
class Worth:
    """Of the parts of one layer; larger is worth more.

    Attributes:
        heads: `[heads]`.
        neurons: `[neurons]`.
    """

    heads: Tensor
    neurons: Tensor


Loss = Callable[[], Tensor]
"""Runs the model on a batch and returns a scalar, the mean over its rows."""


class Scorer(Protocol):
    """Collects what batches say, then gives scores of every layer."""

    def add(self, rows: Rows, loss: Loss) -> None:
        """Take a batch into account; gradients of the model's parameters are gone afterwards."""

    def worth(self) -> list[Worth]:
        """Scores of every layer."""


class AbsWeight:
    """|weight x sum over batches of |gradient||, summed over the weights of a part."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.layers = [_read_by(block) for block in _blocks(model)]
        self.sums = [[torch.zeros_like(weight) for weight in weights] for weights in self.layers]

    def add(self, rows: Rows, loss: Loss) -> None:
        """As in `Scorer`; rows are not looked at apart."""
        self.model.zero_grad(set_to_none=True)
        loss().backward()
        for weights, sums in zip(self.layers, self.sums, strict=True):
            for weight, total in zip(weights, sums, strict=True):
                if weight.grad is not None:
                    total += weight.grad.abs()
        self.model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def worth(self) -> list[Worth]:
        """As in `Scorer`."""
        return [
            _sums(block, [weight * total for weight, total in zip(weights, sums, strict=True)])
            for block, weights, sums in zip(_blocks(self.model), self.layers, self.sums, strict=True)
        ]


class SignedGroup:
    """|d loss / d mask| of each part, for each row alone, summed over rows."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.sums: list[Worth] | None = None

    def add(self, rows: Rows, loss: Loss) -> None:
        """As in `Scorer`."""
        found = [
            Worth(part.heads.abs().sum(0), part.neurons.abs().sum(0))
            for part in mask_gradients(self.model, rows, loss)
        ]
        if self.sums is None:
            self.sums = found
        else:
            self.sums = [
                Worth(a.heads + b.heads, a.neurons + b.neurons) for a, b in zip(self.sums, found, strict=True)
            ]

    def worth(self) -> list[Worth]:
        """As in `Scorer`.

        Raises:
            ValueError: Before any batch was added.
        """
        if self.sums is None:
            raise ValueError("no batch was scored")
        return self.sums


def mask_gradients(model: Transformer, rows: Rows, loss: Loss) -> list[Worth]:
    """The gradient by a mask on every head's context and every neuron, at 1, for each row alone.

    Args:
        model: The transformer `loss` runs.
        rows: Layout of the batch it runs on.
        loss: A mean over rows.

    Returns:
        For each layer, signed: `[rows, heads]` and `[rows, neurons]` in storage order. A row's gradient is
        that of its own loss, whatever the number of rows.
    """
    of_token = torch.repeat_interleave(
        torch.arange(len(rows), device=rows.device), torch.tensor(rows.lengths, device=rows.device)
    )
    with _masks(model, len(rows), of_token) as masks:
        model.zero_grad(set_to_none=True)
        loss().backward()
        model.zero_grad(set_to_none=True)
    return [
        Worth(*(mask.new_zeros(mask.shape) if mask.grad is None else mask.grad * len(rows) for mask in pair))
        for pair in masks
    ]


@contextmanager
def _masks(model: Transformer, rows: int, of_token: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Masks of ones, `[rows, heads]` and `[rows, neurons]` for each layer, applied while the block runs."""
    masks, hooks = [], []
    for block in _blocks(model):
        heads = _ones(rows, block.attention.heads, block)
        neurons = _ones(rows, _inputs(_ffn(block).down), block)
        masks.append((heads, neurons))
        hooks += [
            block.attention.output.register_forward_pre_hook(_applies(heads, of_token)),
            _ffn(block).down.register_forward_pre_hook(_applies(neurons, of_token)),
        ]
    try:
        yield masks
    finally:
        for hook in hooks:
            hook.remove()


def _ones(rows: int, parts: int, block: Block) -> Tensor:
    like = next(block.parameters())
    return torch.ones(rows, parts, device=like.device, dtype=like.dtype, requires_grad=True)


def _applies(mask: Tensor, of_token: Tensor) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    def apply(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        (values,) = given
        if mask.shape[1] == 0:
            return given
        width = values.shape[1] // mask.shape[1]
        return (values * mask[of_token].repeat_interleave(width, 1),)

    return apply


@torch.no_grad()
def magnitude(model: Transformer) -> list[Worth]:
    """Sum of absolute weights over the weights `AbsWeight` looks at: a control that needs no data."""
    return [_sums(block, [*_read_by(block)]) for block in _blocks(model)]


def random(model: Transformer, seed: int) -> list[Worth]:
    """A control that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Worth(
            torch.rand(block.attention.heads, generator=generator),
            torch.rand(_inputs(_ffn(block).down), generator=generator),
        )
        for block in _blocks(model)
    ]


def _blocks(model: Transformer) -> list[Block]:
    return [cast(Block, block) for block in model.layers]


def _read_by(block: Block) -> tuple[Tensor, Tensor, Tensor]:
    """Weights by which a layer's parts are read and made: columns, rows and columns."""
    feed_forward = _ffn(block)
    up = feed_forward.up.outer if isinstance(feed_forward.up, LowRank) else feed_forward.up
    return _reads(block.attention.output).weight, up.weight, _reads(feed_forward.down).weight


def _sums(block: Block, values: list[Tensor]) -> Worth:
    """Absolute values summed over the weights of each head and neuron."""
    output, up, down = (value.abs() for value in values)
    if isinstance(block.feed_forward, GatedFeedForward):  # a neuron's gate belongs to it
        up = torch.cat(up.chunk(2), 1)
    heads = output.sum(0).unflatten(0, (block.attention.heads, -1)) if block.attention.heads else output
    return Worth(heads.sum(-1) if block.attention.heads else output.new_zeros(0), up.sum(1) + down.sum(0))


def _ffn(block: Block) -> FeedForward | GatedFeedForward:
    """The feed-forward half, of one of the kinds that neurons are removed from."""
    return cast(FeedForward | GatedFeedForward, block.feed_forward)


def _reads(module: nn.Module) -> nn.Linear:
    return cast(nn.Linear, module.inner if isinstance(module, LowRank) else module)


def _inputs(module: nn.Module) -> int:
    return _reads(module).in_features
