"""A generator's weights in Hugging Face's own implementation: the rival, and a check of ours."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lessen.families import family_of
from lessen.families.family import COMMON_SIZES
from lessen.hf import LessenGenerator
from lessen.measure.rivals.dense import check_dense
from lessen.reshaping import export_hugging_face


def generator_twin(model: LessenGenerator) -> Any:
    """The same generator as transformers runs it, in evaluation mode, of the same type of weights.

    Args:
        model: With all heads and neurons; layers may be missing.

    Raises:
        PlanError: When heads, neurons, rank or bits have been taken away.
    """
    facts, shape = model.config.facts(), model.config.form()
    check_dense(facts, shape)
    family = family_of(facts.family)
    fields = {
        ours: name for ours, name in {**COMMON_SIZES, **family.sizes}.items() if ours not in family.facts
    }
    known = AutoConfig.for_model(facts.family)
    values = {name: getattr(facts, ours) for ours, name in fields.items() if hasattr(known, name)}
    layers = "num_layers" if facts.decoder is not None else "num_hidden_layers"
    values |= {layers: len(shape.layers), "tie_word_embeddings": facts.language_head == "tied"}
    config = AutoConfig.for_model(facts.family, **values | family.write(facts))
    auto = AutoModelForCausalLM if facts.decoder is None else AutoModelForSeq2SeqLM
    with torch.random.fork_rng(devices=[]):
        twin = auto.from_config(config, dtype=model.dtype)
    if facts.decoder is not None and facts.language_head == "own":  # transformers ties them all the same
        twin.lm_head.weight = torch.nn.Parameter(torch.empty_like(twin.lm_head.weight))
    twin.load_state_dict(export_hugging_face(model))
    if facts.rotary is not None:
        turns = getattr(twin, twin.base_model_prefix).rotary_emb
        turns.inv_freq = torch.tensor(facts.rotary.inverse_frequencies)
        turns.attention_scaling = facts.rotary.scale
    twin.generation_config = model.generation_config
    return twin.eval()
