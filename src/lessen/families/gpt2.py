"""GPT-2 (Radford et al. 2019): learned positions, pre-norm, matrices stored the other way round."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lessen.families.family import Family
from lessen.families.parts import Layout
from lessen.model.architecture import Architecture


def _transposed(tensor: Tensor, architecture: Architecture) -> Tensor:
    """A matrix `[in_features, out_features]` to `[out_features, in_features]`, or back; a bias as it is."""
    return tensor.t().contiguous()


def _facts(config: Any) -> dict[str, Any]:
    return {"intermediate_size": config.n_inner or 4 * config.n_embd}


def _config(architecture: Architecture) -> dict[str, Any]:
    return {"n_inner": architecture.intermediate_size}


CONV1D = Layout(_transposed, _transposed)

FAMILY = Family(
    model_types=("gpt2",),
    prefix="transformer",
    sizes={
        "norm_eps": "layer_norm_epsilon",
        "hidden_act": "activation_function",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
    },
    facts={"causal": True, "norm_place": "pre", "embedding_norm": False},
    only={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    stem={
        "embeddings.token": "wte",
        "embeddings.position": "wpe",
        "final_norm": "ln_f",
    },
    layer="h.{i}",
    parts={
        "attention.qkv": "attn.c_attn",
        "attention.output": "attn.c_proj",
        "attention_norm": "ln_1",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
        "feed_forward_norm": "ln_2",
    },
    layouts={
        "attention.qkv": CONV1D,
        "attention.output": CONV1D,
        "feed_forward.up": CONV1D,
        "feed_forward.down": CONV1D,
    },
    language_head="lm_head",
    read=_facts,
    write=_config,
)
