"""GPT-NeoX (Black et al. 2022), as Pythia is: rotary positions on a part of each head, parallel branches."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lessen.families.family import Family
from lessen.families.parts import Layout
from lessen.families.rotary import rotary
from lessen.model.architecture import Architecture


def _by_kind(tensor: Tensor, architecture: Architecture) -> Tensor:
    """Rows ordered by head, then query, key and value, to ours: by kind, then head."""
    heads, dim = architecture.num_attention_heads, architecture.head_dim
    return tensor.unflatten(0, (heads, 3, dim)).transpose(0, 1).flatten(0, 2)


def _by_head(tensor: Tensor, architecture: Architecture) -> Tensor:
    heads, dim = architecture.num_attention_heads, architecture.head_dim
    return tensor.unflatten(0, (3, heads, dim)).transpose(0, 1).flatten(0, 2)


def _facts(config: Any) -> dict[str, Any]:
    attention = ("qkv", "attention_output") if config.attention_bias else ()
    return {
        "rotary": rotary(config, partial=True),
        "biases": (*attention, "up", "down"),
        "parallel": config.use_parallel_residual,
    }


def _config(architecture: Architecture) -> dict[str, Any]:
    assert architecture.rotary is not None
    share = 2 * len(architecture.rotary.inverse_frequencies) / architecture.head_dim
    return {
        "attention_bias": "qkv" in architecture.biases,
        "use_parallel_residual": architecture.parallel,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": share},
    }


FAMILY = Family(
    model_types=("gpt_neox",),
    prefix="gpt_neox",
    sizes={"dropout": "hidden_dropout", "attention_dropout": "attention_dropout"},
    facts={"causal": True, "norm_place": "pre", "embedding_norm": False, "position": "rotary"},
    only={},
    stem={"embeddings.token": "embed_in", "final_norm": "final_layer_norm"},
    layer="layers.{i}",
    parts={
        "attention.qkv": "attention.query_key_value",
        "attention.output": "attention.dense",
        "attention_norm": "input_layernorm",
        "feed_forward.up": "mlp.dense_h_to_4h",
        "feed_forward.down": "mlp.dense_4h_to_h",
        "feed_forward_norm": "post_attention_layernorm",
    },
    layouts={"attention.qkv": Layout(_by_kind, _by_head)},
    language_head="lm_head",
    read=_facts,
    write=_config,
)
