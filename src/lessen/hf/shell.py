"""What the model shells share: building, initialising, saving, and ragged batches from padded ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lessen.config import LessenConfig
from lessen.data.table import Text
from lessen.errors import InputError, PlanError
from lessen.model.rows import rows_of_mask
from lessen.model.transformer import Transformer, initialise
from lessen.plan import Point, TokenScore
from lessen.runtime.dial import check_wish
from lessen.runtime.retention import MASS, SPEEDUPS, measured_profile, point_for, reachable
from lessen.runtime.text import encode
from lessen.saving import push, save
from lessen.tokens.usual import usual_elimination


class LessenPreTrainedModel(PreTrainedModel):
    """What the shells share: building, initialising, saving, and turning padded batches into ragged ones."""

    config_class = LessenConfig
    base_model_prefix = "transformer"
    _supports_sdpa = True
    _no_split_modules = ["Block"]

    folder: Path | None = None
    """Where it was loaded from, with all that speaks of it."""

    origin: Path | None = None
    """Where the model was that it was made of, or its weights alone were read: what that had learned from it
    has learned from."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *arguments: Any, **options: Any) -> Any:
        """transformers' own, by which the Auto classes load; it checks no certificate: see `lessen.load`."""
        found = super().from_pretrained(pretrained_model_name_or_path, *arguments, **options)
        place = pretrained_model_name_or_path
        if place is not None and Path(place).is_dir():
            (found[0] if isinstance(found, tuple) else found).origin = Path(place)
        return found

    def __init__(self, config: LessenConfig) -> None:
        super().__init__(config)
        if config.architecture is None or config.shape is None:
            raise PlanError("config.json: architecture and shape are missing; it was not written by lessen")
        self.transformer = Transformer(config.facts(), config.form(), config.num_labels)
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        if not any(True for _ in module.children()):
            initialise(module)

    def get_input_embeddings(self) -> torch.nn.Module:
        """The token table."""
        return self.transformer.embeddings.token

    def set_input_embeddings(self, value: torch.nn.Embedding) -> None:
        """Replace the token table."""
        self.transformer.embeddings.token = value

    def resize_token_embeddings(self, *arguments: Any, **options: Any) -> Any:
        """Not to be had: the vocabulary is part of the architecture.

        Raises:
            PlanError: Always; resize the model in transformers, and load that.
        """
        raise PlanError("the vocabulary is fixed; resize the model in transformers, save it, and load that")

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write config, weights, tokenizer (if attached) and model card.

        An old folder is replaced when all is written. If the weights are still those the model was loaded
        with, the certificate and the other files about them go along; else Points are written uncertified.
        Weights are one file whatever `max_shard_size` says.

        Raises:
            InputError: For a `variant`, whose file would have another name.
            ArtefactError: When the folder cannot be written; what was there before stays.
        """
        if kwargs.get("variant") is not None:
            raise InputError(
                f"variant {kwargs['variant']!r}: a folder has one file of weights; name another folder"
            )
        one_file = kwargs | {"max_shard_size": sys.maxsize}
        save(self, Path(save_directory), partial(super().save_pretrained, **one_file))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload model",
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **unused: Any,
    ) -> str:
        """Upload what `save_pretrained` writes, but for files that tell of the user's data or folders.

        `lessen.load(repo_id)` gives the model back, and its certificate where one holds.

        Args:
            repo_id: `name` or `organisation/name`; made if it is not there.
            commit_message: Of the upload.
            commit_description: Of the upload.
            private: Of a new repository.
            token: Of the hub; the one stored by its login command if None.
            revision: Branch to upload to.
            create_pr: Propose the upload instead.
            unused: Other options of transformers, which do not apply.

        Returns:
            The page of the upload.
        """
        return push(
            self,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            commit_description=commit_description,
        )

    @property
    def precision(self) -> str:
        """Type of the weights: `float32`, `bfloat16`, ...; of few bits `int8`, `int8-weights` or `int4`."""
        shape = self.transformer.shape
        for layer in (*shape.layers, *shape.decoder_layers):
            if layer.bits == 8:
                return "int8" if layer.activation_bits == 8 else "int8-weights"
            if layer.bits == 4:
                return "int4"
        return str(self.dtype).removeprefix("torch.")

    def point_at(self, speedup: float) -> Point:
        """The Point at which as many tokens leave as a ratio of MACs takes.

        Raises:
            PlanError: When it cannot be reached, or no retention profile was measured.
        """
        profile = self.config.retention_profile()
        if profile is None:
            raise PlanError(
                "the model has no retention profile; call measure_profile(texts) first, or make a folder "
                "with one: lessen compress MODEL --data TEXT --system latency-adjustable (--epochs 0: what "
                "writes stays as it is)"
            )
        return point_for(self.transformer, profile, check_wish("speedup", speedup))

    def speeds(self) -> dict[float, Point]:
        """Points at which tokens leave, for some usual speed-ups and the one trained at, ascending.

        None without a retention profile.
        """
        profile = self.config.retention_profile()
        if profile is None:
            return {}
        trained = profile.trained_at or 1.0
        most = 2 * trained if trained > 1 else max(SPEEDUPS)
        usual = {each for each in SPEEDUPS if each <= most} | ({trained} if trained > 1 else set())
        return reachable(self.transformer, profile, sorted(usual))

    def measure_profile(
        self,
        texts: Sequence[Text],
        *,
        score: TokenScore | None = None,
        family: Literal["acc", "envelope"] | None = None,
        mass: float = MASS,
        max_tokens: int | None = None,
    ) -> Self:
        """Measure on texts how attention falls with depth, so that `dial(speedup=...)` can let tokens leave.

        No weight changes. A model that was trained with tokens leaving (`compress --system
        latency-adjustable`) loses far less by it than one that was not.

        Args:
            texts: Texts or pairs such as the model will see; some hundreds are enough.
            score: What the tokens that stay will be chosen by; as in `usual_elimination` if None.
            family: Whether shares compound over layers (`acc`) or not; as in `usual_elimination` if None.
            mass: Share of the attention whose holders the profile is made from.
            max_tokens: Texts are cut to this; to what the model takes if None.

        Returns:
            The model; the profile is in `config.profile` and saved with it.

        Raises:
            InputError: When these make no sense.
            PlanError: When no text has a token that may leave.
        """
        usual = usual_elimination(causal=self.config.facts().causal)
        score, family = score or usual.score, family or usual.family
        if score not in get_args(TokenScore):
            raise InputError(f"score {score!r}: choose {', '.join(get_args(TokenScore))}")
        if family not in ("acc", "envelope"):
            raise InputError(f"family {family!r}: choose acc or envelope")
        if not 0 < mass <= 1:
            raise InputError(f"mass {mass}: a share of the attention, above 0, at most 1")
        if max_tokens is not None and max_tokens < 1:
            raise InputError(f"max_tokens {max_tokens}: must be 1 or more")
        most = self.config.facts().max_tokens
        encoded = encode(tokenizer_of(self), texts, min(max_tokens or most, most))
        envelope = family == "envelope"
        profile = measured_profile(
            self.transformer.eval(), encoded, score=score, mass=mass, envelope=envelope
        )
        self.config.profile = profile.model_dump(mode="json")
        return self

    def _ragged(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
    ) -> tuple[Tensor, Any, Tensor | None, Tensor]:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        index, rows = rows_of_mask(mask)
        segments = None
        if token_type_ids is not None and self.transformer.embeddings.segment is not None:
            segments = token_type_ids.flatten()[index]
        return input_ids.flatten()[index], rows, segments, index


HARMLESS = frozenset({"num_items_in_batch", "cache_position", "token_type_ids", "return_dict"})
"""Inputs that models of transformers are handed and that change no answer here."""


def refuse_ignored(further: Mapping[str, Any]) -> None:
    """Refuse inputs that would be passed over in silence.

    Raises:
        PlanError: Naming the first that says something.
    """
    for name, value in further.items():
        if name not in HARMLESS and value is not None and value is not False:
            raise PlanError(f"{name}: a model of lessen takes no such input; leave it out")


def tokenizer_of(model: LessenPreTrainedModel) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        PlanError: When it has none.
    """
    if model.tokenizer is None:
        raise PlanError("the model has no tokenizer; load it with lessen.load or set model.tokenizer")
    return model.tokenizer
