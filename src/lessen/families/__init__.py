"""The Hugging Face architectures lessen can read: one short file each, and the lookup."""

from __future__ import annotations

from lessen.errors import UnsupportedModelError
from lessen.families import (
    bert,
    distilbert,
    electra,
    gpt2,
    gpt_neox,
    llama,
    mpnet,
    qwen2,
    qwen3,
    roberta,
    t5,
)
from lessen.families.family import Family

FAMILIES: dict[str, Family] = {
    model_type: module.FAMILY
    for module in (bert, distilbert, electra, gpt2, gpt_neox, llama, mpnet, qwen2, qwen3, roberta, t5)
    for model_type in module.FAMILY.model_types
}


def family_of(model_type: str) -> Family:
    """The family of a Hugging Face `model_type`.

    Raises:
        UnsupportedModelError: Naming the supported ones.
    """
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"model_type {model_type!r} is not supported; lessen reads {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]
