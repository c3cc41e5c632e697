"""What a checkpoint's family fixes: sizes and variants of the transformer; no choice of lessen's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lessen.plan import Size
from lessen.records import Strict

MatrixName = Literal["qkv", "attention_output", "up", "down"]
"""The matrices of a layer."""

MATRICES: tuple[MatrixName, ...] = ("qkv", "attention_output", "up", "down")

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "mish"]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0)]


class Rotary(Strict):
    """Rotary positions (Su et al. 2021): pairs of a head's dimensions turn, further at later positions.

    Dimension `i` is paired with `i + len(inverse_frequencies)`; those beyond the pairs stay as they are.

    Attributes:
        inverse_frequencies: Angle of each pair, in radians for each position; rounded to float32.
        scale: Both cosine and sine are multiplied by it (YaRN's attention factor).
    """

    inverse_frequencies: Annotated[tuple[float, ...], Field(min_length=1)]
    scale: Factor = 1.0


class Architecture(Strict):
    """Family facts, under transformers' config names where those exist.

    `position` is how order enters: a learned table added to the embeddings, a learned bias over bucketed
    relative distances shared by all layers of a stack (`relative`), both, or `rotary`. `position_offset` is
    the row of the position table used by the first token (RoBERTa counts from `pad_token_id + 1`).
    `norm_place` is after each residual sum, or before each branch, with one more norm at the end.
    `feed_forward` is two matrices around an activation, one of BEExformer's gated forms, or `gated`:
    `down (activation(gate) * up)`. With `shared_layers` one block is all layers, as in ALBERT. Scores of
    attention are multiplied by `attention_scale`, 1 / sqrt(head_dim) if None.

    The other fields are those of decoders. With `causal` a token attends to itself and to those before it.
    The `language_head` that names the next token is the token table again, or a matrix of its own. `biases`
    names the matrices of a layer that have one. `qk_norm` norms each query and key head before it turns.
    `parallel` lets attention and feed-forward read the same input (GPT-NeoX).

    With `num_decoder_layers` the model is an encoder whose output a decoder reads (`decoder`): the fields
    above are the encoder's, sizes and kinds those of both, and the language head is the decoder's. Its text
    begins after `decoder_start_token_id`. Last states are multiplied by `language_head_scale` before the
    head, which T5 does where the head is the token table.
    """

    family: str
    vocab_size: Size
    hidden_size: Size
    embedding_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    head_dim: Size
    intermediate_size: Size
    max_position_embeddings: Size
    type_vocab_size: Count = 0
    position: Literal["learned", "learned+relative", "relative", "rotary"] = "learned"
    position_offset: Count = 0
    relative_buckets: Count = 0
    relative_max_distance: Size = 128
    attention_scale: Factor | None = None
    norm_place: Literal["post", "pre"] = "post"
    norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    hidden_act: Activation = "gelu"
    feed_forward: Literal["ffn", "slfn", "slfn_lstm", "gated"] = "ffn"
    shared_layers: bool = False
    causal: bool = False
    norm: Literal["layer", "rms"] = "layer"
    embedding_norm: bool = True
    rotary: Rotary | None = None
    biases: tuple[MatrixName, ...] = MATRICES
    qk_norm: bool = False
    parallel: bool = False
    language_head: Literal["tied", "own"] | None = None
    language_head_scale: Factor = 1.0
    num_decoder_layers: Count = 0
    decoder_start_token_id: Count = 0
    pad_token_id: Count = 0
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.1

    @model_validator(mode="after")
    def _positions_are_left(self) -> Architecture:
        if self.position_offset >= self.max_position_embeddings:
            raise ValueError("position_offset leaves no positions for tokens")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Architecture:
        if (self.position == "rotary") != (self.rotary is not None):
            raise ValueError("rotary: given for position 'rotary', and for no other")
        if self.rotary is not None and 2 * len(self.rotary.inverse_frequencies) > self.head_dim:
            raise ValueError("rotary: it turns more dimensions than a head has")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        if self.language_head is not None and not (self.causal or self.num_decoder_layers):
            raise ValueError("language_head: for causal models and those with a decoder only")
        if "relative" in self.position and self.relative_buckets < 4:
            raise ValueError("relative_buckets: a relative bias has at least 4")
        if "relative" in self.position and self.relative_max_distance <= self.relative_buckets // 2:
            raise ValueError("relative_max_distance: buckets must reach further than those of one distance")
        if self.causal and self.position == "learned+relative":
            raise ValueError("position: a causal model with a relative bias cannot be built yet")
        if not self.causal and (self.position == "rotary" or self.qk_norm or self.shared_heads > 1):
            raise ValueError("rotary positions, qk_norm and grouped heads are for causal models")
        if self.parallel and self.norm_place == "post":
            raise ValueError("parallel: branches that read one input have their norms before them")
        return self

    @model_validator(mode="after")
    def _decoder_fits(self) -> Architecture:
        if not self.num_decoder_layers:
            return self
        if self.causal or self.language_head is None:
            raise ValueError("num_decoder_layers: a decoder reads an encoder, and has a language head")
        if self.decoder_start_token_id >= self.vocab_size:
            raise ValueError("decoder_start_token_id: the vocabulary has no such token")
        if self.position != "relative" or self.norm_place != "pre" or self.parallel or self.shared_layers:
            raise ValueError("num_decoder_layers: only decoders such as T5's can be built yet")
        if self.embedding_size != self.hidden_size:
            raise ValueError("embedding_size: with a decoder it must be hidden_size")
        return self

    @property
    def decoder(self) -> Architecture | None:
        """Facts of the decoder that reads the encoder's output; None where there is none."""
        if not self.num_decoder_layers:
            return None
        changed = {"causal": True, "num_hidden_layers": self.num_decoder_layers, "num_decoder_layers": 0}
        return self.model_copy(update=changed)

    @property
    def shared_heads(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def max_tokens(self) -> int:
        """The longest input, in tokens, the position table covers."""
        return self.max_position_embeddings - self.position_offset
