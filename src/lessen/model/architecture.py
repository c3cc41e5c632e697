"""What a checkpoint's family fixes: sizes and variants of the transformer; no choice of lessen's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lessen.plan import Size, Strict

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "mish"]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class Architecture(Strict):
    """Family facts, under transformers' config names where those exist.

    `position` is how order enters: a learned table added to the embeddings, or that plus a learned bias over
    bucketed relative distances shared by all layers. `position_offset` is the row of the position table used
    by the first token (RoBERTa counts from `pad_token_id + 1`). `feed_forward` is two matrices around an
    activation, or one of BEExformer's gated forms. With `shared_layers` one block is all
    layers, as in ALBERT.
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
    position: Literal["learned", "learned+relative"] = "learned"
    position_offset: Count = 0
    relative_buckets: Count = 0
    relative_max_distance: Size = 128
    norm_place: Literal["post", "pre"] = "post"
    norm_eps: Annotated[float, Field(gt=0)] = 1e-12
    hidden_act: Activation = "gelu"
    feed_forward: Literal["ffn", "slfn", "slfn_lstm"] = "ffn"
    shared_layers: bool = False
    pad_token_id: Count = 0
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.1

    @model_validator(mode="after")
    def _positions_are_left(self) -> Architecture:
        if self.position_offset >= self.max_position_embeddings:
            raise ValueError("position_offset leaves no positions for tokens")
        return self

    @property
    def max_tokens(self) -> int:
        """The longest input, in tokens, the position table covers."""
        return self.max_position_embeddings - self.position_offset
