"""Qwen3 (Yang et al. 2025): Llama with a norm on each query and key head, and heads of any width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lessen.families import llama
from lessen.families.rotary import rotary


def _facts(config: Any) -> dict[str, Any]:
    biases = ("qkv", "attention_output") if config.attention_bias else ()
    return {"rotary": rotary(config), "biases": biases, "qk_norm": True}


FAMILY = replace(
    llama.FAMILY,
    model_types=("qwen3",),
    only={"use_sliding_window": False},
    parts={
        **llama.FAMILY.parts,
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
    },
    read=_facts,
    write=lambda architecture: {"attention_bias": "qkv" in architecture.biases},
)
