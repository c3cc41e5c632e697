"""The rotary positions of a Hugging Face config, worked out once: angles are facts of the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lessen.errors import UnsupportedModelError
from lessen.model.architecture import Rotary

FIXED = ("linear", "llama3", "yarn")
"""Kinds of scaling whose angles do not change with the length of the input."""


def rotary(config: Any, *, partial: bool = False) -> Rotary:
    """The angles of a config.

    Args:
        config: With `rope_parameters`.
        partial: Whether plain rotary positions of this family turn only a part of each head.

    Raises:
        UnsupportedModelError: For a kind of scaling that depends on the input's length, or is unknown.
    """
    how = config.rope_parameters
    kind = how.get("rope_type", "default")
    if kind == "default":
        whole = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        turned = int(whole * how.get("partial_rotary_factor", 1.0)) if partial else whole
        pace = 1.0 / how["rope_theta"] ** (torch.arange(0, turned, 2, dtype=torch.float32) / turned)
        return Rotary(inverse_frequencies=tuple(pace.tolist()))
    if kind not in FIXED or kind not in ROPE_INIT_FUNCTIONS:
        raise UnsupportedModelError(
            f"{config.model_type} with rotary scaling {kind!r} is not supported; there is "
            f"default, {', '.join(FIXED)}"
        )
    pace, scale = ROPE_INIT_FUNCTIONS[kind](config)
    return Rotary(inverse_frequencies=tuple(pace.tolist()), scale=float(scale))
