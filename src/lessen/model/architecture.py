"""What a checkpoint's family fixes: sizes and variants of the transformer; no choice of lessen's."""

from __future__ import annotations

from typing import Literal

from lessen.plan import Size, Strict

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"]


class Architecture(Strict):
    """Family facts, under transformers' config names where those exist.

    `position` is how order enters: a learned table added to the embeddings, or that plus a learned bias over
    bucketed relative distances shared by all layers. `position_offset` is the row of the position table used
    by the first token (RoBERTa counts from `pad_token_id + 1`).
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
    type_vocab_size: int = 0
    position: Literal["learned", "learned+relative"] = "learned"
    position_offset: int = 0
    relative_buckets: int = 0
    relative_max_distance: int = 128
    norm_place: Literal["post", "pre"] = "post"
    norm_eps: float = 1e-12
    hidden_act: Activation = "gelu"
    pad_token_id: int = 0
    dropout: float = 0.1
    attention_dropout: float = 0.1

    @property
    def max_tokens(self) -> int:
        """The longest input, in tokens, the position table covers."""
        return self.max_position_embeddings - self.position_offset
