"""What a family file says: how a Hugging Face architecture calls its sizes and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lessen.errors import ArtefactError, UnsupportedModelError
from lessen.model.architecture import Architecture
from lessen.plan import ExitShape, HeadActivation, parse

Names = Mapping[str, str | tuple[str, ...]]
"""Our part to theirs. A tuple means ours is theirs laid end to end along the first axis."""


@dataclass(frozen=True)
class Family:
    """One Hugging Face architecture.

    Attributes:
        model_types: Values of `model_type` in `config.json` this describes.
        prefix: Name of the backbone inside a model with a head.
        sizes: Fields of `Architecture` to attributes of the Hugging Face config.
        facts: Fields of `Architecture` that are fixed for the family.
        stem: Parts outside the layers, without the prefix.
        layer: Name of layer `{i}`, without the prefix.
        parts: Parts of one layer.
        head: The classification head's `dense` and `output`, with any prefix.
        head_activation: Between the two.
    """

    model_types: tuple[str, ...]
    prefix: str
    layer: str
    stem: Names
    parts: Names
    head: Names
    head_activation: HeadActivation = "tanh"
    sizes: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def architecture(self, config: Any) -> Architecture:
        """Read the family facts out of a Hugging Face config."""
        if getattr(config, "is_decoder", False):
            raise UnsupportedModelError(
                f"{config.model_type} with is_decoder=True is not supported; lessen knows it as an encoder"
            )
        sizes = {
            ours: theirs for ours, theirs in {**COMMON_SIZES, **self.sizes}.items() if ours not in self.facts
        }
        read = {ours: getattr(config, theirs) for ours, theirs in sizes.items()}
        read.setdefault("embedding_size", read["hidden_size"])
        facts: dict[str, Any] = {
            "family": config.model_type,
            "num_key_value_heads": read["num_attention_heads"],
            "head_dim": read["hidden_size"] // read["num_attention_heads"],
            **self.facts,
        }
        if read.get("pad_token_id") is None:
            read["pad_token_id"] = 0
            if "counts_from_pad" in facts:
                raise UnsupportedModelError(
                    f"{config.model_type} counts positions from pad_token_id, which its config.json lacks"
                )
        if facts.pop("counts_from_pad", False):
            facts["position_offset"] = read["pad_token_id"] + 1
        return parse(Architecture, {**read, **facts}, f"{config.model_type} config.json")

    def head_shape(self, config: Any) -> ExitShape:
        """The family's own classification head, as the last exit."""
        return ExitShape(
            layer=config.num_hidden_layers,
            pool="cls",
            hidden_size=config.hidden_size,
            activation=self.head_activation,
        )

    def names(self, architecture: Architecture, *, prefixed: bool, head: bool) -> dict[str, tuple[str, ...]]:
        """Every part of a whole model: ours to theirs (`.weight` and `.bias` left off).

        Args:
            architecture: Gives the number of layers and says which optional parts exist.
            prefixed: Whether their backbone sits inside a model with a head.
            head: Whether to include the classification head, as the exit after the last layer.
        """
        layers = architecture.num_hidden_layers
        prefix = f"{self.prefix}." if prefixed else ""
        table: dict[str, tuple[str, ...]] = {}
        for ours, theirs in self.stem.items():
            if ours == "embeddings.project" and architecture.embedding_size == architecture.hidden_size:
                continue
            table[ours] = tuple(prefix + name for name in _tuple(theirs))
        for i in range(layers):
            for ours, theirs in self.parts.items():
                stem = f"{prefix}{self.layer.format(i=i)}."
                table[f"layers.{i}.{ours}"] = tuple(stem + name for name in _tuple(theirs))
        if head:
            for ours, theirs in self.head.items():
                table[f"exits.{layers}.{ours}"] = tuple(name.format(prefix=prefix) for name in _tuple(theirs))
        return table


COMMON_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "hidden_act": "hidden_act",
    "pad_token_id": "pad_token_id",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}

BERT_PARTS: Names = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def from_hugging_face(state: Mapping[str, Tensor], names: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Rename and join a Hugging Face state dict into ours.

    Args:
        state: Their tensors by name.
        names: From `Family.names`.

    Raises:
        ArtefactError: When a part is missing.
    """
    result: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            found = [state[f"{name}.{kind}"] for name in theirs if f"{name}.{kind}" in state]
            if kind == "weight" and len(found) < len(theirs):
                missing = next(name for name in theirs if f"{name}.weight" not in state)
                raise ArtefactError(f"the checkpoint has no tensor {missing}.weight")
            if found:
                result[f"{ours}.{kind}"] = found[0] if len(found) == 1 else torch.cat(found)
    return result


def to_hugging_face(state: Mapping[str, Tensor], names: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """The inverse of `from_hugging_face`; tensors of ours that have no counterpart are left out."""
    result: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            if (tensor := state.get(f"{ours}.{kind}")) is not None:
                for name, piece in zip(theirs, tensor.chunk(len(theirs)), strict=True):
                    result[f"{name}.{kind}"] = piece.contiguous()
    return result


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
