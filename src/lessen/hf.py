"""The one adapter to transformers: model shells, and their registration with the Auto classes.

After `import lessen`, `AutoModelForSequenceClassification.from_pretrained(folder)`, `Trainer` and
`pipeline("text-classification")` work on a lessen folder. The shells hold no weights of their own: everything
lives in `transformer`, whose form is given by the config's `architecture` and `shape`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from lessen.certificate import without_certificate
from lessen.config import LessenConfig
from lessen.data.table import Text
from lessen.depth.exits import every_exit
from lessen.depth.losses import Objective, imitation, task_loss, weighted
from lessen.errors import PlanError
from lessen.model.heads import pool
from lessen.model.rows import rows_of_mask, scatter
from lessen.model.transformer import Transformer, initialise
from lessen.plan import FULL, Point, check_point
from lessen.runtime.dial import at_most, bounded, layers_within
from lessen.runtime.engine import elimination_of, run
from lessen.runtime.predict import Prediction, predict
from lessen.runtime.retention import SPEEDUPS, point_for, reachable
from lessen.runtime.text import batches, collate, encode
from lessen.saving import push, save
from lessen.tokens.passes import Passes, all_stay


class LessenPreTrainedModel(PreTrainedModel):
    """What the shells share: building, initialising, saving, and turning padded batches into ragged ones."""

    config_class = LessenConfig
    base_model_prefix = "transformer"
    _supports_sdpa = True
    _no_split_modules = ["Block"]

    folder: Path | None = None
    """Where it was loaded from."""

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

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write config, weights, tokenizer (if attached) and model card.

        An old folder is replaced when all is written. If the weights are still those the model was loaded
        with, the certificate and the other files about them go along; else Points are written uncertified.

        Raises:
            ArtefactError: When the folder cannot be written; what was there before stays.
        """
        save(self, Path(save_directory), partial(super().save_pretrained, **kwargs))

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

    def _ragged(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
    ) -> tuple[Tensor, Any, Tensor | None, Tensor]:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        index, rows = rows_of_mask(mask)
        segments = None
        if token_type_ids is not None and self.transformer.embeddings.segment is not None:
            segments = token_type_ids.flatten()[index]
        return input_ids.flatten()[index], rows, segments, index


class LessenModel(LessenPreTrainedModel):
    """The encoder alone: hidden states, and mean-pooled sentence embeddings."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        return_dict: bool = True,
        **unused: Any,
    ) -> BaseModelOutput | tuple[Tensor]:
        """Padded ids `[batch, length]` to hidden states `[batch, length, hidden]`, zero at padding."""
        ids, rows, segments, index = self._ragged(input_ids, attention_mask, token_type_ids)
        hidden, rows = self.transformer(ids, rows, segments)
        states = scatter(hidden, index, (input_ids.shape[0], input_ids.shape[1]))
        return BaseModelOutput(last_hidden_state=states) if return_dict else (states,)

    @torch.inference_mode()
    def embed(
        self, texts: Sequence[str], *, batch_size: int = 32, normalize: bool = True, strict: bool = False
    ) -> Tensor:
        """Mean-pooled embeddings `[texts, hidden]` of texts, of unit length unless `normalize` is off.

        Raises:
            InputError: With `strict`, for a text longer than the model takes.
        """
        self.eval()
        encoded = encode(_tokenizer_of(self), texts, self.config.facts().max_tokens, strict=strict)
        result = torch.empty(len(texts), self.config.hidden_size)
        for batch in batches(encoded, batch_size):
            ids, rows, segments = collate([encoded[i] for i in batch], self.device)
            hidden, rows = self.transformer(ids, rows, segments)
            result[batch] = rows.restore(pool(hidden, rows, "mean")).float().cpu()
        return torch.nn.functional.normalize(result, dim=-1) if normalize else result


class LessenForSequenceClassification(LessenPreTrainedModel):
    """Single and pair classification, multi-label classification and regression, with exits.

    Attributes:
        objective: What training minimises, given the logits of every exit and the labels.
        equilibrium: Whether training uses gradient equilibrium.
        passes: What takes tokens away in each training step.
    """

    def __init__(self, config: LessenConfig) -> None:
        super().__init__(config)
        if not config.form().exits:
            raise PlanError(
                "config.json: shape.exits is empty; this model embeds sentences and has no classifier"
            )
        self._certified_for: torch.dtype | None = None
        self.point = self._named(config.point)
        self.objective: Objective = partial(weighted, loss=task_loss(self.problem_type), how="linear")
        self.equilibrium = False
        self.passes: Passes = all_stay

    @property
    def problem_type(self) -> str:
        """`single_label_classification`, `multi_label_classification` or `regression`."""
        if self.config.problem_type:
            return self.config.problem_type
        return "regression" if self.config.num_labels == 1 else "single_label_classification"

    @property
    def label_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return [self.config.id2label[i] for i in range(self.config.num_labels)]

    @property
    def points(self) -> dict[str, Point]:
        """The Points saved with the model, by name; certified only where the certificate holds."""
        return {name: self._honest(point) for name, point in self.config.choices().items()}

    @property
    def point(self) -> Point:
        """How much of the model an input uses."""
        return self._honest(self._point)

    @point.setter
    def point(self, point: Point) -> None:
        self._point = point

    def honour_certificate(self) -> None:
        """Let Points carry their certificate: called by what has checked it against these very weights.

        It holds until the model is trained, gets other weights, or is changed to another precision; on
        another device it rests.
        """
        self._certified_for = self.dtype

    def _apply(self, fn: Any, recurse: bool = True) -> LessenForSequenceClassification:
        """What moves and converts a module goes through here; a changed precision ends the certificate."""
        super()._apply(fn, recurse)
        if self._certified_for != self.dtype:
            self._certified_for = None
        return self

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Other weights end the certificate."""
        self._certified_for = None
        return super().load_state_dict(*arguments, **options)

    def _honest(self, point: Point) -> Point:
        holds = self._certified_for == self.dtype and self.device.type == "cpu"
        return point if holds else without_certificate(point)

    def train(self, mode: bool = True) -> LessenForSequenceClassification:
        """Switch the mode; in training the certificate ends."""
        if mode:
            self._certified_for = None
        return super().train(mode)

    def speeds(self) -> list[Point]:
        """Points at which tokens leave for some usual speed-ups; none without a retention profile."""
        profile = self.config.retention_profile()
        if profile is None:
            return []
        most = 2 * (profile.trained_at or max(SPEEDUPS))
        return reachable(self.transformer, profile, [each for each in SPEEDUPS if each <= most])

    def use(self, point: str | Point) -> LessenForSequenceClassification:
        """Choose the Point inputs are answered at from now on; returns the model.

        Raises:
            PlanError: When no Point of this name was saved, or the model cannot keep it.
        """
        chosen = self._named(point) if isinstance(point, str) else point
        check_point(chosen, self.config.form())
        self.point = chosen
        return self

    def dial(
        self,
        *,
        max_drop: float | None = None,
        speedup: float | None = None,
        latency_ms: float | None = None,
        tokens: int | None = None,
    ) -> LessenForSequenceClassification:
        """Choose the Point inputs are answered at by what is wanted of it; give exactly one wish.

        Args:
            max_drop: Loss allowed against the reference, 0.01 for one point in a hundred: the fastest Point
                certified for it, or full depth.
            speedup: With a retention profile, MACs of the whole model over those left when as many tokens
                leave as it takes; any number up to what the model can. Without one, layers of the model over
                layers used per row, as expected on the tuning rows.
            latency_ms: Milliseconds per row on average, alone in its batch, measured here and now with the
                threads torch uses.
            tokens: For `latency_ms`: length of a row; that of the tuning rows if None.

        Returns:
            The model; `model.point` says what was chosen and whether it is certified.

        Raises:
            PlanError: When the wish cannot be kept, or is not exactly one.
        """
        wishes = {"max_drop": max_drop, "speedup": speedup, "latency_ms": latency_ms}
        given = {name: value for name, value in wishes.items() if value is not None}
        if len(given) != 1 or min(given.values()) < 0:
            raise PlanError("dial takes one of max_drop, speedup and latency_ms, and it cannot be negative")
        points, depth = list(self.points.values()), len(self.transformer.layers)
        if max_drop is not None:
            self.point = bounded(points, max_drop)
            return self
        profile = self.config.retention_profile()
        if speedup is not None and profile is not None:
            self.point = point_for(self.transformer, profile, speedup)
            return self
        if speedup is not None:
            wanted, name = depth / max(speedup, 1.0), f"speedup-{speedup:g}x"
        else:
            assert latency_ms is not None
            steps = self.config.steps()
            usual = steps[0].expected.tokens if steps and steps[0].expected else None
            wanted = layers_within(self.transformer, latency_ms, tokens or round(usual or 32))
            name = f"latency-{latency_ms:g}ms"
        self.point = FULL if wanted >= depth else at_most(points, self.config.steps(), wanted, name)
        return self

    def _named(self, name: str) -> Point:
        points = self.config.choices()
        if name not in points:
            raise PlanError(f"no point named {name!r}; this model has {', '.join(points)}")
        return points[name]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool = True,
        **unused: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Padded ids `[batch, length]` to logits `[batch, labels]`.

        Padding may stand on either side; positions count from each row's first token. In training mode every
        exit answers and the loss is `objective`. In evaluation mode rows leave as the Point says, the loss is
        the task's own on the answers given, and gradients flow only at full depth.
        """
        ids, rows, segments, _ = self._ragged(input_ids, attention_mask, token_type_ids)
        loss: Tensor | None = None
        if self.training:
            first, *others = (
                every_exit(
                    self.transformer, ids, rows, segments, equilibrium=self.equilibrium, in_layer=takes_away
                )
                for takes_away in self.passes()
            )
            logits = first[-1]
            if labels is not None:
                loss = self.objective(first, labels)
                imitations = [imitation(answers, logits, self.problem_type) for answers in others]
                loss = loss + torch.stack(imitations).mean() if imitations else loss
        else:
            if torch.is_grad_enabled() and self._point.exits is None:
                leave = elimination_of(self._point, self.transformer)
                logits = every_exit(self.transformer, ids, rows, segments, in_layer=leave)[-1]
            else:
                logits = run(self.transformer, ids, rows, segments, self._point).logits
            if labels is not None:
                loss = task_loss(self.problem_type)(logits, labels)
        if return_dict:
            return SequenceClassifierOutput(loss=loss, logits=logits)
        return (logits,) if loss is None else (loss, logits)

    def predict(
        self,
        texts: Sequence[Text],
        *,
        point: str | Point | None = None,
        batch_size: int = 32,
        strict: bool = False,
    ) -> list[Prediction]:
        """Answer texts or pairs, each with its label, probability and the layers it used.

        Args:
            texts: Texts, or pairs of texts.
            point: A Point or the name of one; the current one if None.
            batch_size: Texts per ragged batch.
            strict: Refuse texts longer than the model instead of cutting them.

        Raises:
            InputError: With `strict`, for a text longer than the model takes.
            PlanError: For an unknown Point.
        """
        chosen = self._point if point is None else self._named(point) if isinstance(point, str) else point
        return predict(
            self.transformer.eval(),
            _tokenizer_of(self),
            texts,
            labels=self.label_names,
            problem_type=self.problem_type,
            point=chosen,
            batch_size=batch_size,
            strict=strict,
        )


def _tokenizer_of(model: LessenPreTrainedModel) -> PreTrainedTokenizerBase:
    if model.tokenizer is None:
        raise PlanError("the model has no tokenizer; load it with lessen.load or set model.tokenizer")
    return model.tokenizer


def register() -> None:
    """Make transformers' Auto classes know `model_type: "lessen"`."""
    AutoConfig.register("lessen", LessenConfig, exist_ok=True)
    AutoModel.register(LessenConfig, LessenModel, exist_ok=True)
    AutoModelForSequenceClassification.register(LessenConfig, LessenForSequenceClassification, exist_ok=True)
