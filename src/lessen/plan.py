"""Shape and Point: which weights exist, and how much of them an input uses.

A `Shape` is what training leaves behind (heads, neurons, ranks, bits, exits). A `Point` is a choice made at
load time or per request (exit rule, token retention, precision). Both have room for all four axes;
`docs/format.md` shows them on one screen. Size names follow transformers' `per_layer_config` vocabulary where
it has one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lessen.errors import PlanError
from lessen.records import Strict

Bits = Literal[1, 4, 8, 16, 32]
"""Bits per weight or activation: 1 is a sign, 4 and 8 an integer, 16 bfloat16, 32 float32."""

TokenScore = Literal[
    "mean",
    "offdiag",
    "max_head",
    "last_query",
    "window",
    "causal_norm",
    "cumulative",
    "random",
    "first_k",
    "last_k",
]
"""What the tokens that stay are chosen by; `mean` is ACC. See `tokens/score.py`."""

ProfileFamily = Literal["acc", "envelope", "explicit", "geometric", "tilt"]
"""How retention falls with depth; see `RetentionProfile`."""

Rates = Literal["one", "drawn", "sandwich"]
"""How many tokens leave in the steps of a training: as many in each, a number drawn for each, or passes at
several numbers in each. See `tokens/passes.py`."""

Precision = Literal["float32", "bfloat16", "float64", "int8", "int8-weights", "int4"]
"""What a model computes in: the type of its weights, or 8-bit weights and activations, float32 between; or
8-bit weights and float32 for all else; or 4-bit weights and 8-bit activations."""

FEW_BITS: tuple[Precision, ...] = ("int8", "int8-weights", "int4")
"""Precisions a model in float32 is converted to."""

WeightScale = Literal["row_mean", "tensor_mean", "learned", "none"]
"""What the signs of binary weights are multiplied by: the mean |w| of each row or of the matrix, a number
learned for each row, or nothing."""

SignGradient = Literal["poly", "poly_unscaled", "ste", "ste_clip"]
"""The derivative of a binary weight by the real one.

`poly`: the scale times that of a second-order polynomial; `poly_unscaled`: the polynomial's alone; `ste`: 1;
`ste_clip`: 1 up to |w| = 1, then 0.
"""

HeadActivation = Literal["tanh", "relu", "gelu"]

LanguageHeadKind = Literal["full", "tied", "gate", "shortlist", "shared"]
"""How a language exit names the next token; see `LanguageExitShape`."""

WITHOUT_RANK: tuple[LanguageHeadKind, ...] = ("full", "shared")
"""Language exits that correct nothing."""

Size = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class Rank(Strict):
    """Inner sizes of matrices stored as a product of two; `None` means one full matrix."""

    qkv: Size | None = None
    attention_output: Size | None = None
    up: Size | None = None
    down: Size | None = None


class LayerShape(Strict):
    """What exists of one layer.

    `layer` is its number in the original checkpoint (0-based) and `heads` the original ids of the attention
    heads it keeps; both survive repeated slimming. An empty `heads` or a zero `intermediate_size` leaves only
    that branch's output bias.
    """

    layer: Annotated[int, Field(ge=0)]
    heads: tuple[Annotated[int, Field(ge=0)], ...]
    intermediate_size: Annotated[int, Field(ge=0)]
    rank: Rank = Rank()
    bits: Bits = 32
    activation_bits: Bits = 32

    @model_validator(mode="after")
    def _ids_ascend(self) -> LayerShape:
        if any(a >= b for a, b in itertools.pairwise(self.heads)):
            raise ValueError("heads must be ascending original head ids without repeats")
        return self


class ExitShape(Strict):
    """An exit head: where it sits and how it is built.

    `layer` counts the layers an input has gone through when this head reads it (1-based), so the last exit's
    `layer` equals the number of layers. `hidden_size` is the width of an optional dense layer before the
    output.
    """

    layer: Size
    pool: Literal["cls", "mean", "last"] = "cls"
    hidden_size: Size | None = None
    activation: HeadActivation = "tanh"


class LanguageExitShape(Strict):
    """A head of a generator that names the next token early: where it sits and how it is built.

    `layer` counts the layers a token has gone through (1-based), of a decoder that reads an encoder its own,
    always fewer than there are: the last answer is the language head's. Kinds (self-supervised exits page,
    1.3): `full` has a matrix to the vocabulary of its own. The others share the model's: `shared` after the
    model's own last norm, with nothing to learn (CALM, Schuster et al. 2022); the rest after a correction of
    hidden states by a product of `rank`: `tied` alone; `gate` first asks a probe whether it is worth
    multiplying by it; `shortlist` names one of the `words` most frequent tokens of the training text, by
    their rows alone, or that it is none of them.
    """

    layer: Size
    kind: LanguageHeadKind = "tied"
    rank: Size | None = None
    words: Size | None = None

    @model_validator(mode="after")
    def _sizes_fit(self) -> LanguageExitShape:
        for name, size, needed in (
            ("rank", self.rank, self.kind not in WITHOUT_RANK),
            ("words", self.words, self.kind == "shortlist"),
        ):
            if (size is not None) != needed:
                has = "one; give it" if needed else "none"
                raise ValueError(f"{name}: a head of kind {self.kind!r} has {has}")
        return self


class Latent(Strict):
    """Binary weights that can learn: real numbers are stored, whose signs are used; and how they learn."""

    scale: WeightScale = "row_mean"
    gradient: SignGradient = "poly"


class Shape(Strict):
    """Which weights exist. Dropped layers are absent from `layers`; the rest keep their original number.

    `exits` answer for a row, `language_exits` for every token of a generator; a model has one kind or none.
    Weights of one bit are stored packed, or with `latent` as real numbers, for training. Of an
    encoder-decoder model `layers` are the encoder's; `decoder_layers` have their attention to the encoder's
    output with the same heads, and `language_exits` sit among them.
    """

    version: Literal[1] = 1
    layers: Annotated[tuple[LayerShape, ...], Field(min_length=1)]
    decoder_layers: tuple[LayerShape, ...] = ()
    exits: tuple[ExitShape, ...] = ()
    language_exits: tuple[LanguageExitShape, ...] = ()
    embedding_rank: Size | None = None
    embedding_bits: Bits = 32
    latent: Latent | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Shape:
        for field, layers in (("layers", self.layers), ("decoder_layers", self.decoder_layers)):
            if any(a.layer >= b.layer for a, b in itertools.pairwise(layers)):
                raise ValueError(
                    f"{field} must be in ascending order of their original number, without repeats"
                )
        places = [exit.layer for exit in self.exits]
        if any(a >= b for a, b in itertools.pairwise(places)):
            raise ValueError("exits must be in ascending order of layer, without repeats")
        if places and places[-1] != len(self.layers):
            raise ValueError(
                f"the last exit must sit after the last layer ({len(self.layers)}), not {places[-1]}"
            )
        early = [exit.layer for exit in self.language_exits]
        if early and places:
            raise ValueError("language_exits: a model that classifies has none")
        if any(a >= b for a, b in itertools.pairwise(early)):
            raise ValueError("language_exits must be in ascending order of layer, without repeats")
        if early and early[-1] >= len(self.writing_layers):
            raise ValueError(
                f"language_exits: layer {early[-1]}, but they sit before the last layer "
                f"({len(self.writing_layers)})"
            )
        return self

    @property
    def writing_layers(self) -> tuple[LayerShape, ...]:
        """The layers after which tokens are named: the decoder's, or all there are."""
        return self.decoder_layers or self.layers

    @property
    def few_bits(self) -> bool:
        """Whether any layer, or the token table, has fewer bits than float32."""
        layers = (*self.layers, *self.decoder_layers)
        return self.embedding_bits != 32 or any(layer.bits != 32 for layer in layers)

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Depths (1-based) at which a head can answer; of a classifier the last one included."""
        return tuple(exit.layer for exit in self.exits or self.language_exits)

    def in_words(self) -> str:
        """Layers, heads and neurons a layer, and the embedding's rank, as in messages and model cards."""
        heads = _span([len(layer.heads) for layer in self.layers])
        neurons = _span([layer.intermediate_size for layer in self.layers])
        rank = "" if self.embedding_rank is None else f", embedding rank {self.embedding_rank}"
        products = any(any(layer.rank.model_dump().values()) for layer in self.layers)
        layers = "1 layer" if len(self.layers) == 1 else f"{len(self.layers)} layers"
        return (
            f"{layers} of {heads} heads and {neurons} neurons{rank}"
            f"{', matrices of low rank' if products else ''}"
        )


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


class Decay(Strict):
    """How a threshold grows bolder along a text (CALM, Schuster et al. 2022, section 3.3; `depth/decay.py`).

    A wrong token early in a text misleads all that follow, so sureness is asked for there the most. `rate` is
    tau of the paper, `tokens` its N, the longest text there is.
    """

    rate: Annotated[float, Field(ge=0.0)]
    tokens: Size


class ExitRule(Strict):
    """When a row leaves early: a criterion and its threshold, one for all exits or one per exit.

    Thresholds are in the criterion's own unit (nats for entropy, a probability for confidence, a count for
    patience); an exit without a threshold never answers early. `change` is the regression criterion's
    tolerance in label units. `entropy_ceiling` (nats) forbids leaving while the head's entropy is above it.
    With a `decay` the threshold of a token depends on its place in the text.
    """

    criterion: str
    threshold: float | None = None
    thresholds: dict[Size, float] | None = None
    first_layer: Size = 1
    change: Annotated[float, Field(ge=0.0)] | None = None
    entropy_ceiling: Annotated[float, Field(ge=0.0)] | None = None
    decay: Decay | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> ExitRule:
        if (self.threshold is None) == (self.thresholds is None):
            raise ValueError("give either threshold (all exits) or thresholds (by layer), and not both")
        return self

    def at(self, layer: int) -> float | None:
        """The threshold of the exit after `layer` layers (1-based), or None where no row may leave."""
        if layer < self.first_layer:
            return None
        return self.threshold if self.thresholds is None else self.thresholds.get(layer)


class Expectation(Strict):
    """What was measured when the Point was chosen, and on which split: a figure, not a promise.

    A value is None where the metric is undefined (a correlation with a constant). `tokens` are those of a
    row, on average.
    """

    split: str
    rows: Size
    metric: str
    value: float | None
    full_value: float | None
    mean_layers: Annotated[float, Field(gt=0.0)]
    tokens: Annotated[float, Field(gt=0.0)] | None = None
    macs_ratio: Annotated[float, Field(gt=0.0)] | None = None


class Promise(Strict):
    """How far a Point may be trusted: a rule of the literature (uncertified), or a certificate by its id."""

    kind: Literal["uncertified", "certified"] = "uncertified"
    rule: str | None = None
    loss: str | None = None
    epsilon: Annotated[float, Field(ge=0.0)] | None = None
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    certificate: str | None = None


class Point(Strict):
    """How much of the Shape an input uses. The empty Point is the full model.

    `exits` is the early-exit rule, `retention` the share of each row's tokens leaving each layer
    (non-increasing), `token_score` what those that stay are chosen by (None: `mean`), `precision` the type
    the Point must run in (None: any).
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(min_length=1, pattern=r"^[^\s/][^\n/]*$")]
    exits: ExitRule | None = None
    retention: tuple[Fraction, ...] | None = None
    token_score: TokenScore | None = None
    precision: Literal["float32", "bfloat16", "int8", "int8-weights", "int4"] | None = None
    promise: Promise | None = None
    expected: Expectation | None = None

    @model_validator(mode="after")
    def _retention_falls(self) -> Point:
        if self.retention and any(a < b for a, b in itertools.pairwise(self.retention)):
            raise ValueError("retention must not increase from one layer to the next")
        if self.token_score is not None and self.retention is None:
            raise ValueError("token_score says how retention is met; give retention too")
        return self


class Drafts(Strict):
    """How a generator drafts in mode `spec` where no Point is named: when a token leaves, how many in a row.

    `weights_saved` is the share of weights read for a token that this should save against full depth, by the
    tuning prompts: a figure, not a promise. See `promise/drafting.py`.
    """

    version: Literal[1] = 1
    rule: ExitRule
    most: Size
    weights_saved: float


class RetentionProfile(Strict):
    """How retention falls with depth, as one scalar moves it; see `tokens/profile.py`.

    `base` has a share for each layer: measured from attention, compounding twice over layers (`acc`) or as it
    is (`envelope`), or given (`explicit`); raised to the power of the scalar. `geometric` and `tilt` use only
    its length. `lengths` are token counts of typical rows, which speed-ups are solved for.
    """

    version: Literal[1] = 1
    family: ProfileFamily = "acc"
    base: Annotated[tuple[Fraction, ...], Field(min_length=1)]
    score: TokenScore = "mean"
    lengths: Annotated[tuple[Size, ...], Field(min_length=1)] = (128,)
    trained_at: Annotated[float, Field(ge=1.0)] | None = None

    @model_validator(mode="after")
    def _base_falls(self) -> RetentionProfile:
        if any(a < b for a, b in itertools.pairwise(self.base)):
            raise ValueError("base must not increase from one layer to the next")
        return self


class Base(Strict):
    """The model that exits saved alone belong to: its name, and SHA-256 of its weights as float32."""

    model: str
    weights: str


FULL = Point(name="full")


def check_point(point: Point, shape: Shape) -> None:
    """Refuse a Point that a model of this Shape cannot keep, or that this version cannot run.

    Raises:
        PlanError: With the field and what is wrong with it.
    """
    if point.name == FULL.name and point != FULL:
        raise PlanError("name: 'full' is the whole model; give the point another name")
    if point.retention is not None and len(point.retention) != len(shape.layers):
        raise PlanError(
            f"retention: it has {len(point.retention)} shares, the model {len(shape.layers)} layers"
        )
    for layer in (point.exits.thresholds or {}) if point.exits else {}:
        if layer not in shape.exit_layers:
            places = ", ".join(map(str, shape.exit_layers))
            raise PlanError(
                f"exits.thresholds: there is no exit after layer {layer}; exits are after {places}"
            )


def dense_shape(
    layers: int,
    heads: int,
    intermediate_size: int,
    exits: tuple[ExitShape, ...] = (),
    decoder_layers: int = 0,
) -> Shape:
    """The Shape of an untouched checkpoint: every head and neuron of every layer, in 32 bits."""
    stacks = [
        tuple(
            LayerShape(layer=i, heads=tuple(range(heads)), intermediate_size=intermediate_size)
            for i in range(count)
        )
        for count in (layers, decoder_layers)
    ]
    return Shape(layers=stacks[0], exits=exits, decoder_layers=stacks[1])
