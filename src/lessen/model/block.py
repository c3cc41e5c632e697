"""One transformer layer: attention, then feed-forward, each with its residual and norm."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from torch import Tensor, nn
from transformers.activations import ACT2FN

from lessen.errors import PlanError
from lessen.model.architecture import MATRICES, Architecture, MatrixName
from lessen.model.attention import Attention, Score, stretch_of
from lessen.model.causal import CausalAttention, Memory
from lessen.model.cross import CrossAttention, Source
from lessen.model.dropout import Dropout
from lessen.model.few_bits import BinaryLinear
from lessen.model.matrices import OURS, REAL, Numbers, linear
from lessen.model.norms import norm
from lessen.model.prepared import Prepared, Settings
from lessen.model.relative import PositionBias, heads_left
from lessen.model.rest import Parts, Rest, Whole, whole_layer
from lessen.model.rotary import Rotation
from lessen.model.rows import Rows
from lessen.model.step import Step, StepParts
from lessen.native import DecoderLayer, EncoderLayer, LayerRest, Native, native_for
from lessen.plan import Latent, LayerShape, Rank

CENTRE = 0.5
"""What a sigmoid varies around."""


class Keep(Protocol):
    """Which tokens of a layer go on, decided between its attention and its feed-forward half.

    Attributes:
        score: What it wants to know of the attention; None if nothing.
    """

    @property
    def score(self) -> Score | None: ...

    def __call__(self, scores: Tensor | None, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        """From scores `[tokens]` and the layer's input `[tokens, hidden]` to an index `[tokens left]`."""
        ...


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
        self.down = linear(intermediate_size, hidden_size, rank.down, numbers, bias="down" in biases)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[tokens, hidden]` to the same; a layer put in the place of `up` is called as any other."""
        if type(self.up) in OURS:
            return self.down(self.up.activated(hidden, self.activation))
        return self.down(ACT2FN[self.activation](self.up(hidden)))


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
        return self.down(ACT2FN[self.activation](gate) * up)


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


class Block(nn.Module):
    """A layer with its norms after each residual sum (post, as in BERT) or before each branch (pre).

    Branches follow one another, or with `parallel` both read the layer's input. A layer that `reads` an
    encoder's output does so in a branch of its own, between the other two.
    """

    def __init__(
        self,
        architecture: Architecture,
        shape: LayerShape,
        latent: Latent | None = None,
        *,
        reads: bool = False,
    ) -> None:
        super().__init__()
        numbers = Numbers.of(shape, latent)
        hidden = architecture.hidden_size
        self.pre = architecture.norm_place == "pre"
        self.parallel = architecture.parallel
        self.attention: Attention | CausalAttention
        if architecture.causal:
            self.attention = CausalAttention(architecture, shape, numbers)
        else:
            self.attention = Attention(
                hidden,
                len(shape.heads),
                architecture.head_dim,
                architecture.attention_dropout,
                shape.rank,
                numbers,
                architecture.biases,
                stretch_of(architecture),
                heads_left(architecture, shape),
            )
        self.attention_norm = norm(architecture)
        self.cross = CrossAttention(architecture, shape, numbers) if reads else None
        self.cross_norm = norm(architecture) if reads else None
        self.feed_forward = feed_forward(architecture, shape, numbers)
        self.feed_forward_norm = norm(architecture)
        self.dropout = Dropout(architecture.dropout)
        self._rest: Rest | None = None
        self._whole: Prepared[Whole] | None = None
        self._facts = architecture
        self._step: Step | None = None

    def forward(
        self,
        hidden: Tensor,
        rows: Rows,
        bias: PositionBias | None = None,
        keep: Keep | None = None,
        rotation: Rotation | None = None,
        memory: Memory | None = None,
        source: Source | None = None,
    ) -> tuple[Tensor, Rows]:
        """One layer, in which tokens may leave once they have been attended to.

        Args:
            hidden: `[tokens, hidden]`.
            rows: Layout of the batch.
            bias: Of scores, of all original heads.
            keep: Says which tokens stay; None: all.
            rotation: Of each token, where positions are rotary.
            memory: Of earlier tokens of the rows, in causal models; None: there are none.
            source: What a layer that reads reads, where there is no memory of it.

        Returns:
            `[tokens left, hidden]` and their layout.
        """
        if memory is not None and keep is None and not self.training:
            kernels = native_for(hidden, narrow=True)
            step = None if kernels is None else self.step(kernels, len(hidden))
            if kernels is not None and step is not None and (room := memory.room(rows)) is not None:
                near = None if bias is None else bias.for_kernels(rows)
                return kernels.decoder_layers([step], [room], rotation, hidden, bias=near), rows
        given = self.attention_norm(hidden) if self.pre else hidden
        score = None if keep is None else keep.score
        if isinstance(self.attention, CausalAttention):
            context, scores = self.attention.context(given, rows, rotation, score, memory, bias)
        else:
            context, scores = self.attention.context(given, rows, bias, score)
        if keep is not None:
            index, rows = keep(scores, hidden, rows)
            hidden, context = hidden.index_select(0, index), context.index_select(0, index)
        kernels = None if self.training or self.dropout.training else native_for(hidden)
        if kernels is not None and (rest := self._made_rest(kernels, len(hidden))):
            return kernels.layer_rest(rest, context, hidden), rows
        found = self.dropout(self.attention.output(context))
        if self.parallel:
            return hidden + found + self.dropout(self.feed_forward(self.feed_forward_norm(hidden))), rows
        hidden = hidden + found
        if self.cross is not None and self.cross_norm is not None:
            hidden = hidden + self.dropout(self.cross(self.cross_norm(hidden), rows, source, memory))
        if self.pre:
            return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden))), rows
        hidden = self.attention_norm(hidden)
        return self.feed_forward_norm(hidden + self.dropout(self.feed_forward(hidden))), rows

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rest": None, "_whole": None, "_step": None}

    def whole(self, kernels: Native, tokens: int) -> EncoderLayer | None:
        """The layer of an encoder as one call, where no token leaves in it.

        Args:
            kernels: That will compute it.
            tokens: To be computed.

        Returns:
            None where they cannot, or torch would be faster.
        """
        if self._whole is None:
            self._whole = Prepared(self._made_whole, self.modules)
        made = self._whole.ready(kernels, self._settings())
        if made is None or tokens > made.few or self.training or self.dropout.training:
            return None
        return made.layer

    def _made_whole(self, kernels: Native) -> Whole | None:
        parts, attention = self._parts_of_encoder(), self.attention
        if parts is None or not isinstance(attention, Attention):
            return None
        return whole_layer(attention, parts, kernels)

    def _made_rest(self, kernels: Native, tokens: int) -> LayerRest | None:
        """What follows the attention as one call, where it can be."""
        parts = self._parts_of_encoder()
        if parts is None:
            return None
        if self._rest is None or self._rest.parts != parts:
            self._rest = Rest(parts)
        return self._rest.ready(kernels, tokens, self._settings())

    def step(self, kernels: Native, tokens: int) -> DecoderLayer | None:
        """The whole layer for a few tokens of a decoder as the kernels take it, where they can compute it."""
        attention, rest = self.attention, self._parts()
        if not isinstance(attention, CausalAttention) or not attention.heads:
            return None
        if rest is None or not rest.before:
            return None
        if self.cross is not None and (self.parallel or self.cross.stretch != attention.stretch):
            return None
        norms, reading = (attention.query_norm, attention.key_norm), None
        if self.cross is not None and self.cross_norm is not None:
            reading = self.cross.query, self.cross.output, self.cross_norm
        parts = StepParts(
            attention,
            attention.qkv,
            tuple(each for each in norms if each is not None),
            rest,
            self.cross,
            reading,
        )
        if self._step is None or self._step.parts != parts:
            self._step = Step(parts, self._facts)
        return self._step.ready(kernels, tokens, self._settings())

    def _settings(self) -> Settings:
        """What a layer goes by besides modules and tensors, where these can be changed.

        It is asked at every call, so it does without `nn.Module`'s own way to attributes.
        """
        parts = self._modules
        half, attention, cross = parts["feed_forward"], parts["attention"], parts.get("cross_norm")
        first, second = parts["attention_norm"], parts["feed_forward_norm"]
        assert half is not None
        gate = half._modules.get("gate_down")
        centre = None if gate is None else vars(gate).get("centre")
        third = None if cross is None else vars(cross).get("eps")
        epsilons = vars(first).get("eps"), vars(second).get("eps"), third
        return vars(half).get("activation"), centre, vars(attention).get("stretch"), *epsilons

    def _parts_of_encoder(self) -> Parts | None:
        """The same of a layer of nothing but attention and feed-forward, one after the other."""
        return None if self.parallel or self.cross is not None else self._parts()

    def _parts(self) -> Parts | None:
        """What comes after the attention; None where the kernels know no such layer."""
        half, output = self.feed_forward, self.attention.output
        norms = self.attention_norm, self.feed_forward_norm
        if isinstance(half, FeedForward | GatedFeedForward):
            gated = isinstance(half, GatedFeedForward)
            if gated and not self.pre:
                return None
            facts = half.activation, 0.0, self.pre, gated
            return Parts(half, output, half.up, half.down, None, norms, *facts)
        if not isinstance(half, SelectiveFeedForward) or self.pre:
            return None
        gate = half.gate_down
        centre = gate.centre if isinstance(gate, BinaryLinear) else 0.0
        return Parts(half, output, half.up, gate, half.learn_down, norms, "sigmoid", centre)
