"""Llama (Touvron et al. 2023), as SmolLM2 is: rotary, RMSNorm, grouped heads, gated feed-forward."""

from __future__ import annotations

from typing import Any

from lessen.families.family import Family
from lessen.families.rotary import rotary
from lessen.model.architecture import Architecture


def _facts(config: Any) -> dict[str, Any]:
    attention = ("qkv", "attention_output") if config.attention_bias else ()
    feed_forward = ("up", "down") if config.mlp_bias else ()
    return {"rotary": rotary(config), "biases": (*attention, *feed_forward)}


def _config(architecture: Architecture) -> dict[str, Any]:
    return {"attention_bias": "qkv" in architecture.biases, "mlp_bias": "up" in architecture.biases}


FAMILY = Family(
    model_types=("llama",),
    prefix="model",
    sizes={
        "num_key_value_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "norm_eps": "rms_norm_eps",
        "attention_dropout": "attention_dropout",
    },
    facts={
        "causal": True,
        "position": "rotary",
        "norm": "rms",
        "norm_place": "pre",
        "embedding_norm": False,
        "feed_forward": "gated",
        "dropout": 0.0,
    },
    only={},
    stem={"embeddings.token": "embed_tokens", "final_norm": "norm"},
    layer="layers.{i}",
    parts={
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.output": "self_attn.o_proj",
        "attention_norm": "input_layernorm",
        "feed_forward.up": ("mlp.gate_proj", "mlp.up_proj"),
        "feed_forward.down": "mlp.down_proj",
        "feed_forward_norm": "post_attention_layernorm",
    },
    language_head="lm_head",
    read=_facts,
    write=_config,
)
