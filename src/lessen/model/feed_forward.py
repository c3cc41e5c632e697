"""The feed-forward half of a layer, in each of the forms there are."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from lessen.bits.binarizer import Centre
from lessen.errors import PlanError
from lessen.model.activations import activate
from lessen.model.architecture import MATRICES, Architecture, MatrixName
from lessen.model.matrices import OURS, REAL, Numbers, linear
from lessen.plan import LayerShape, Rank

CENTRE = 0.5
"""What a sigmoid varies around."""

NEVER_NEGATIVE = ("relu", "relu2", "relu6", "sigmoid")
"""Activations whose signs say nothing."""


class FeedForward(nn.Module):
    """Two linear layers around an activation, applied to each token alone."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        rank: Rank | None = None,
        numbers: Numbers = REAL,
        biases: Collection[MatrixName] = MATRICES,
    ) -> None:
        super().__init__()
        rank = rank or Rank()
        self.up = linear(hidden_size, intermediate_size, rank.up, numbers, bias="up" in biases)
        self.activation = activation
        centre: Centre = "rectified" if activation in NEVER_NEGATIVE and numbers.activation_bits == 1 else 0.0
        self.down = linear(intermediate_size, hidden_size, rank.down, numbers, centre, bias="down" in biases)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[tokens, hidden]` to the same; a layer put in the place of `up` is called as any other."""
        if type(self.up) in OURS:
            return self.down(self.up.activated(hidden, self.activation))
        return self.down(activate(self.up(hidden), self.activation))


class GatedFeedForward(nn.Module):
    """Gated linear units (Shazeer 2020): `down (activation(gate) * up)`.

    The rows of `up` are those of the gate, then those of the other branch.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: str,
        rank: Rank,
        numbers: Numbers,
        biases: Collection[MatrixName],
    ) -> None:
        super().__init__()
        self.up = linear(hidden_size, 2 * intermediate_size, rank.up, numbers, bias="up" in biases)
        self.activation = activation
        self.down = linear(intermediate_size, hidden_size, rank.down, numbers, bias="down" in biases)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[tokens, hidden]` to the same."""
        gate, up = self.up(hidden).chunk(2, -1)
        return self.down(activate(gate, self.activation) * up)


class SelectiveFeedForward(nn.Module):
    """SLFN, the selective learn-forget network (BEExformer page, 1.6): a learned branch times a gate.

    `(gate_down sigmoid(gate)) * (learn_down tanh(learn))`, element by element, where `up` makes the inner
    values of both branches, the gate's first. A sigmoid is never negative, so its signs would say nothing:
    before few bits it is centred on one half.
    """

    def __init__(self, hidden_size: int, intermediate_size: int, rank: Rank, numbers: Numbers) -> None:
        super().__init__()
        self.up = linear(hidden_size, 2 * intermediate_size, rank.up, numbers)
        self.gate_down = linear(intermediate_size, hidden_size, rank.down, numbers, centre=CENTRE)
        self.learn_down = linear(intermediate_size, hidden_size, rank.down, numbers)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[tokens, hidden]` to the same."""
        gate, learn = self.up(hidden).chunk(2, -1)
        return self.gate_down(gate.sigmoid()) * self.learn_down(learn.tanh())


class RecurrentFeedForward(nn.Module):
    """SLFN with the gates of an LSTM, its other reading (BEExformer page, 1.6).

    `down (sigmoid(forget) * x + sigmoid(input) * tanh(cell))`, where `up` makes forget, input and cell of x.
    """

    def __init__(self, hidden_size: int, rank: Rank, numbers: Numbers) -> None:
        super().__init__()
        self.up = linear(hidden_size, 3 * hidden_size, rank.up, numbers)
        self.down = linear(hidden_size, hidden_size, rank.down, numbers)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[tokens, hidden]` to the same."""
        forget, take, cell = self.up(hidden).chunk(3, -1)
        return self.down(forget.sigmoid() * hidden + take.sigmoid() * cell.tanh())


def feed_forward(architecture: Architecture, shape: LayerShape, numbers: Numbers) -> nn.Module:
    """The feed-forward half of a layer.

    Raises:
        PlanError: When an LSTM's gates are not as wide as the layer.
    """
    hidden, inner, biases = architecture.hidden_size, shape.intermediate_size, architecture.biases
    if architecture.feed_forward == "slfn":
        return SelectiveFeedForward(hidden, inner, shape.rank, numbers)
    if architecture.feed_forward == "slfn_lstm":
        if inner != hidden:
            raise PlanError(f"slfn_lstm: intermediate_size {inner} must be hidden_size {hidden}")
        return RecurrentFeedForward(hidden, shape.rank, numbers)
    kind = GatedFeedForward if architecture.feed_forward == "gated" else FeedForward
    return kind(hidden, inner, architecture.hidden_act, shape.rank, numbers, biases)
