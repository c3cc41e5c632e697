"""Qwen2 (Yang et al. 2024): Llama with biases where queries, keys and values are made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lessen.families import llama
from lessen.families.rotary import rotary


def _facts(config: Any) -> dict[str, Any]:
    return {
        "rotary": rotary(config),
        "biases": ("qkv",),
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
    }


FAMILY = replace(
    llama.FAMILY,
    model_types=("qwen2",),
    only={"use_sliding_window": False},
    read=_facts,
    write=lambda architecture: {"head_dim": architecture.head_dim},
)
