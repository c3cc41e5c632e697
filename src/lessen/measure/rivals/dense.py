"""The dense twin: a model's own weights in the Hugging Face implementation of its family, as everyone else
runs them.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from lessen.errors import PlanError
from lessen.families import family_of
from lessen.families.family import COMMON_SIZES
from lessen.hf import LessenForSequenceClassification
from lessen.model.architecture import Architecture
from lessen.model.heads import Head
from lessen.plan import Rank, Shape
from lessen.reshaping import export_hugging_face


class DenseTwin(nn.Module):
    """A Hugging Face backbone and the last head, on padded batches.

    Attributes:
        backbone: The family's `AutoModel`, without its pooler.
        head: The last head's layers.
        config: Of the backbone.
        has_segments: Whether segment ids make a difference.
        pad: The id to pad with.
    """

    def __init__(self, backbone: PreTrainedModel, head: Head, facts: Architecture) -> None:
        super().__init__()
        self.backbone = backbone
        self.config: PreTrainedConfig = backbone.config
        self.head = head
        self.has_segments = facts.type_vocab_size > 1
        self.pad = facts.pad_token_id

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Ids `[batch, length]`, padded on the right, to logits `[batch, outputs]`.

        Without `attention_mask` nothing is padding; `token_type_ids` only where `has_segments`.
        """
        extra = {"token_type_ids": token_type_ids} if self.has_segments else {}
        hidden = self.backbone(input_ids, attention_mask=attention_mask, **extra).last_hidden_state
        pooled = _pool(hidden, attention_mask, self.head.pool)
        if self.head.dense is not None:
            pooled = self.head.activation(self.head.dense(pooled))
        return self.head.output(pooled)


def dense_twin(
    model: LessenForSequenceClassification, *, attention: Literal["sdpa", "eager"] | None = None
) -> DenseTwin:
    """The model at full depth in Hugging Face's implementation, float32, in evaluation mode.

    Args:
        model: A classifier with all heads and neurons. Dropped layers are fine: the twin is as deep as the
            model.
        attention: transformers' attention implementation; its own choice if None, which is the fused one for
            all families but MPNet.

    Returns:
        A twin sharing no memory with `model`.

    Raises:
        PlanError: When heads, neurons, rank or bits have been taken away, so that no such model exists
            elsewhere.
    """
    facts, shape = model.config.facts(), model.config.form()
    check_dense(facts, shape)
    with torch.random.fork_rng(devices=[]):
        backbone = AutoModel.from_config(
            _hugging_face_config(facts, len(shape.layers)), attn_implementation=attention
        )
    if hasattr(backbone, "pooler"):
        backbone.pooler = None
    backbone.load_state_dict({name: value.cpu() for name, value in export_hugging_face(model).items()})
    head = deepcopy(cast(Head, model.transformer.exits[str(len(shape.layers))])).cpu()
    return DenseTwin(backbone, head, facts).float().eval().requires_grad_(False)


def _hugging_face_config(facts: Architecture, layers: int) -> PreTrainedConfig:
    family = family_of(facts.family)
    names = {
        ours: theirs for ours, theirs in {**COMMON_SIZES, **family.sizes}.items() if ours not in family.facts
    }
    values = {theirs: getattr(facts, ours) for ours, theirs in names.items()}
    return AutoConfig.for_model(facts.family, **values | {names["num_hidden_layers"]: layers})


def check_dense(facts: Architecture, shape: Shape) -> None:
    """Refuse a model that no other runtime can run.

    Raises:
        PlanError: When heads, neurons, rank or bits have been taken away.
    """
    if (why := why_not_dense(facts, shape)) is not None:
        raise PlanError(f"{why}; give the model this one was made from, or --against none")


def why_not_dense(facts: Architecture, shape: Shape) -> str | None:
    """Why no other runtime can run a model, in a few words; None if one can."""
    every_head = tuple(range(facts.num_attention_heads))
    for place, layer in enumerate(shape.layers):
        changed = {
            "heads": layer.heads != every_head,
            "intermediate_size": layer.intermediate_size != facts.intermediate_size,
            "rank": layer.rank != Rank(),
            "bits": layer.bits != 32,
            "activation_bits": layer.activation_bits != 32,
        }
        if any(changed.values()):
            field = next(name for name, differs in changed.items() if differs)
            return f"shape.layers[{place}].{field}: other runtimes can only run the dense model"
    if shape.embedding_rank is not None or shape.embedding_bits != 32:
        return "shape.embedding_rank or embedding_bits: other runtimes can only run the dense model"
    return None


def _pool(hidden: Tensor, mask: Tensor | None, how: str) -> Tensor:
    if how == "cls":
        return hidden[:, 0]
    if how == "last":
        return hidden[:, -1] if mask is None else hidden[torch.arange(len(hidden)), mask.sum(1) - 1]
    if mask is None:
        return hidden.mean(1)
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)
