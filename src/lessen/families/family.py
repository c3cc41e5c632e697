"""What a family file says: how a Hugging Face architecture calls its sizes and its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lessen.errors import UnsupportedModelError
from lessen.families.parts import Layout, Part
from lessen.model.architecture import Architecture
from lessen.plan import ExitShape, HeadActivation
from lessen.records import parse

Names = Mapping[str, str | tuple[str, ...]]
"""Our part to theirs. A tuple means ours is theirs laid end to end along the first axis."""


@dataclass(frozen=True)
class DecoderNames:
    """How the layers of a decoder that reads an encoder are called.

    Attributes:
        layer: Name of layer `{i}`.
        parts: Parts of one layer.
        gated: Those of them that are called otherwise where the feed-forward half is gated.
    """

    layer: str
    parts: Names
    gated: Names = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """One Hugging Face architecture.

    Attributes:
        model_types: Values of `model_type` in `config.json` this describes.
        prefix: Name of the backbone inside a model with a head; empty where it has none.
        sizes: Fields of `Architecture` to attributes of the Hugging Face config.
        facts: Fields of `Architecture` that are fixed for the family.
        stem: Parts outside the layers, without the prefix.
        layer: Name of layer `{i}`, without the prefix.
        parts: Parts of one layer.
        gated: Those of them that are called otherwise where the feed-forward half is gated.
        decoder: Of an encoder-decoder model; `layer` and `parts` are then the encoder's.
        head: The classification head's `dense` and `output`, with any prefix; decoders have none.
        head_activation: Between the two.
        only: Attributes of their config that have to be so, as nothing else can be run.
        layouts: Parts whose tensors they arrange in another way.
        language_head: A decoder's matrix to the vocabulary.
        copies_of_table: Further names of the token table in their state dict.
        read: Facts to be worked out of their config.
        write: Fields of their config that follow from such facts; rotary angles apart.
    """

    model_types: tuple[str, ...]
    prefix: str
    layer: str
    stem: Names
    parts: Names
    gated: Names = field(default_factory=dict)
    decoder: DecoderNames | None = None
    head: Names = field(default_factory=dict)
    head_activation: HeadActivation = "tanh"
    sizes: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    only: Mapping[str, Any] = field(default_factory=lambda: {"is_decoder": False})
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    language_head: str | None = None
    copies_of_table: tuple[str, ...] = ()
    read: Callable[[Any], dict[str, Any]] = lambda config: {}
    write: Callable[[Architecture], dict[str, Any]] = lambda architecture: {}

    def architecture(self, config: Any) -> Architecture:
        """Read the family facts out of a Hugging Face config.

        Raises:
            UnsupportedModelError: For a variant of the family that cannot be run.
            PlanError: When a size makes no sense.
        """
        for attribute, value in self.only.items():
            if (found := getattr(config, attribute, value)) != value:
                raise UnsupportedModelError(
                    f"{config.model_type} with {attribute}={found} is not supported, only {attribute}={value}"
                )
        if windows := set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
            raise UnsupportedModelError(
                f"{config.model_type} with {min(windows)} layers is not supported, only with full_attention"
            )
        known = {**self.facts, **self.read(config)}
        sizes = {ours: name for ours, name in {**COMMON_SIZES, **self.sizes}.items() if ours not in known}
        read = {ours: getattr(config, theirs) for ours, theirs in sizes.items()}
        read.setdefault("embedding_size", read["hidden_size"])
        facts: dict[str, Any] = {"family": config.model_type, **known}
        if "num_key_value_heads" not in read:
            facts.setdefault("num_key_value_heads", read["num_attention_heads"])
        if "head_dim" not in read:
            facts.setdefault("head_dim", read["hidden_size"] // read["num_attention_heads"])
        if self.language_head is not None:
            facts["language_head"] = "tied" if config.tie_word_embeddings else "own"
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

    def names(self, architecture: Architecture, *, prefixed: bool, head: bool) -> dict[str, Part]:
        """Every part of a whole model: ours to theirs (`.weight` and `.bias` left off).

        Args:
            architecture: Gives the number of layers and says which optional parts exist.
            prefixed: Whether their backbone sits inside a model with a head.
            head: Whether to include the head: a decoder's language head if it has weights of its own, an
                encoder's classification head as the exit after the last layer.
        """
        layers, gated = architecture.num_hidden_layers, architecture.feed_forward == "gated"
        prefix = f"{self.prefix}." if prefixed and self.prefix else ""
        table: dict[str, Part] = {}
        for ours, theirs in self.stem.items():
            if ours == "embeddings.project" and architecture.embedding_size == architecture.hidden_size:
                continue
            table[ours] = self._part(ours, theirs, prefix, architecture)
        for i in range(layers):
            for ours, theirs in {**self.parts, **(self.gated if gated else {})}.items():
                stem = f"{prefix}{self.layer.format(i=i)}."
                table[f"layers.{i}.{ours}"] = self._part(ours, theirs, stem, architecture)
        if self.decoder is not None:
            parts = {**self.decoder.parts, **(self.decoder.gated if gated else {})}
            for i in range(architecture.num_decoder_layers):
                for ours, theirs in parts.items():
                    stem = f"{prefix}{self.decoder.layer.format(i=i)}."
                    table[f"decoder.layers.{i}.{ours}"] = self._part(ours, theirs, stem, architecture)
        if head and self.language_head is not None and architecture.language_head == "own":
            table["language_head"] = Part((self.language_head,))
        elif head:
            for ours, theirs in self.head.items():
                names = tuple(name.format(prefix=prefix) for name in _tuple(theirs))
                table[f"exits.{layers}.{ours}"] = Part(names)
        return table

    def _part(self, ours: str, theirs: str | tuple[str, ...], stem: str, architecture: Architecture) -> Part:
        names = tuple(stem + name for name in _tuple(theirs))
        sizes = None
        if ours == "attention.qkv" and len(names) == 3:
            heads, shared = architecture.num_attention_heads, architecture.num_key_value_heads
            sizes = tuple(count * architecture.head_dim for count in (heads, shared, shared))
        return Part(names, sizes, self.layouts.get(ours))


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


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
