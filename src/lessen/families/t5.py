"""T5 (Raffel et al. 2020) and its versions 1.1 and Flan: encoder-decoder, relative bias, unscaled attention.

T5 norms by size alone, has no biases, and one bias over distances for all layers of a stack. Version 1.1,
which Flan-T5 is trained from, has a gated feed-forward half and a language head of its own. Two places where
T5 drops values in training have no counterpart here: inside the feed-forward half, and after the last norm.
"""

from __future__ import annotations

from typing import Any

from lessen.families.family import DecoderNames, Family, Names
from lessen.model.architecture import Architecture

USUAL_TOKENS = 512
"""What T5 was trained on; its positions have no end, but those beyond were never seen."""


def _facts(config: Any) -> dict[str, Any]:
    start = config.decoder_start_token_id if hasattr(config, "decoder_start_token_id") else None
    return {
        "hidden_act": config.dense_act_fn,
        "feed_forward": "gated" if config.is_gated_act else "ffn",
        "max_position_embeddings": getattr(config, "n_positions", None) or USUAL_TOKENS,
        "language_head_scale": config.d_model**-0.5 if config.scale_decoder_outputs else 1.0,
        "decoder_start_token_id": (config.pad_token_id or 0) if start is None else start,
    }


def _config(architecture: Architecture) -> dict[str, Any]:
    gated = architecture.feed_forward == "gated"
    act = "gelu" if gated and architecture.hidden_act == "gelu_new" else architecture.hidden_act
    return {
        "num_layers": architecture.num_hidden_layers,
        "num_decoder_layers": architecture.num_decoder_layers,
        "feed_forward_proj": f"gated-{act}" if gated else act,
        "tie_word_embeddings": architecture.language_head_scale != 1,  # by this T5 knows whether to scale
        "decoder_start_token_id": architecture.decoder_start_token_id,
    }


def _half(place: int) -> tuple[Names, Names]:
    """The feed-forward half as the layer's `place`-th part; and what is named otherwise where it is gated."""
    inner = f"layer.{place}.DenseReluDense"
    names = {
        "feed_forward.up": f"{inner}.wi",
        "feed_forward.down": f"{inner}.wo",
        "feed_forward_norm": f"layer.{place}.layer_norm",
    }
    return names, {"feed_forward.up": (f"{inner}.wi_0", f"{inner}.wi_1")}


ATTENTION: Names = {
    "attention.qkv": tuple(f"layer.0.SelfAttention.{part}" for part in "qkv"),
    "attention.output": "layer.0.SelfAttention.o",
    "attention_norm": "layer.0.layer_norm",
}
CROSS: Names = {
    "cross.query": "layer.1.EncDecAttention.q",
    "cross.key_value": ("layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"),
    "cross.output": "layer.1.EncDecAttention.o",
    "cross_norm": "layer.1.layer_norm",
}

FAMILY = Family(
    model_types=("t5",),
    prefix="",
    sizes={
        "head_dim": "d_kv",
        "intermediate_size": "d_ff",
        "num_decoder_layers": "num_decoder_layers",
        "relative_buckets": "relative_attention_num_buckets",
        "relative_max_distance": "relative_attention_max_distance",
        "norm_eps": "layer_norm_epsilon",
        "dropout": "dropout_rate",
        "attention_dropout": "dropout_rate",
    },
    facts={
        "position": "relative",
        "attention_scale": 1.0,
        "norm": "rms",
        "norm_place": "pre",
        "embedding_norm": False,
        "biases": (),
    },
    stem={
        "embeddings.token": "shared",
        "relative_bias": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        "final_norm": "encoder.final_layer_norm",
        "decoder.relative_bias": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        "decoder.final_norm": "decoder.final_layer_norm",
    },
    layer="encoder.block.{i}",
    parts={**ATTENTION, **_half(1)[0]},
    gated=_half(1)[1],
    decoder=DecoderNames("decoder.block.{i}", {**ATTENTION, **CROSS, **_half(2)[0]}, _half(2)[1]),
    language_head="lm_head",
    copies_of_table=("encoder.embed_tokens", "decoder.embed_tokens"),
    read=_facts,
    write=_config,
)
