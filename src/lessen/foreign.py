"""From a checkpoint of transformers to the same model in our core."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)

from lessen.config import LessenConfig
from lessen.errors import ArtefactError, UnsupportedModelError, first_line
from lessen.families import family_of
from lessen.families.parts import Part, from_hugging_face
from lessen.hf import (
    LessenForCausalLM,
    LessenForSeq2SeqLM,
    LessenForSequenceClassification,
    LessenModel,
)
from lessen.plan import dense_shape
from lessen.reshaping import Model, problem_type_of


def load_foreign(source: str, config: PreTrainedConfig) -> Model:
    """A checkpoint as one of our models, with its head, in the precision it is stored in.

    Args:
        source: A folder or hub name.
        config: What it holds, of a family that is supported.

    Raises:
        ArtefactError: When its weights cannot be read, or some are missing.
        UnsupportedModelError: When it is a generator that classifies.
    """
    family = family_of(config.model_type)
    facts = family.architecture(config)
    has_head = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
    if generates := facts.language_head is not None:
        if has_head:
            raise UnsupportedModelError(f"{source}: a {config.model_type} that classifies is not supported")
        auto, kind = AutoModelForCausalLM, LessenForCausalLM
        if facts.decoder is not None:
            auto, kind = AutoModelForSeq2SeqLM, LessenForSeq2SeqLM
    elif has_head:
        auto, kind = AutoModelForSequenceClassification, LessenForSequenceClassification
    else:
        auto, kind = AutoModel, LessenModel
    try:
        foreign, found = auto.from_pretrained(source, dtype="auto", output_loading_info=True)
    except Exception as error:  # transformers raises many kinds for a damaged or missing weights file
        raise ArtefactError(f"cannot read the weights of {source}: {first_line(error)}") from None
    if facts.decoder is not None and _has_its_own_head(foreign):
        facts = facts.model_copy(update={"language_head": "own"})
    head = family.head_shape(config) if has_head else None
    shape = dense_shape(
        facts.num_hidden_layers,
        facts.num_attention_heads,
        facts.intermediate_size,
        exits=(head,) if head else (),
        decoder_layers=facts.num_decoder_layers,
    )
    own = LessenConfig(
        architecture=facts.model_dump(mode="json"),
        shape=shape.model_dump(mode="json"),
        id2label=config.id2label if has_head else None,
        label2id=config.label2id if has_head else None,
        problem_type=config.problem_type or problem_type_of(config.num_labels) if has_head else None,
    )
    with torch.device("meta"):
        model = kind(own)
    names = family.names(facts, prefixed=has_head or generates, head=has_head or generates)
    _refuse_gaps(source, names, found["missing_keys"])
    state = from_hugging_face(foreign.state_dict(), names, facts)
    model.load_state_dict({f"transformer.{k}": v for k, v in state.items()}, strict=True, assign=True)
    if generates:
        model.generation_config = foreign.generation_config
    return model


def _has_its_own_head(foreign: Any) -> bool:
    """Whether the matrix to the vocabulary is another than the token table, whatever the config says.

    transformers calls both kinds of T5 tied, and looks at the weights.
    """
    head, table = foreign.get_output_embeddings().weight, foreign.get_input_embeddings().weight
    return bool(head.data_ptr() != table.data_ptr())


def _refuse_gaps(source: str, names: Mapping[str, Part], missing: Collection[str]) -> None:
    """transformers fills missing tensors with random numbers and goes on; that is never what a user wants."""
    theirs = (name for part in names.values() for name in part.names)
    needed = {f"{name}.{kind}" for name in theirs for kind in ("weight", "bias")}
    if absent := sorted(needed & set(missing)):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ArtefactError(
            f"{source}: the weights lack {absent[0]}{more}; the file is incomplete or another model's"
        )
