"""The shell around a model with exits: classification and regression, Points, the dial, training's loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from lessen.config import LessenConfig
from lessen.data.table import Text
from lessen.depth.exits import every_exit
from lessen.depth.losses import Objective, imitation, task_loss, weighted
from lessen.errors import PlanError
from lessen.hf.pointed import LessenPointedModel
from lessen.hf.shell import refuse_ignored, tokenizer_of
from lessen.model.rows import Rows
from lessen.plan import Point
from lessen.runtime.dial import bounded, by_layers, by_time, check_wish, usual_tokens
from lessen.runtime.engine import elimination_of, run
from lessen.runtime.latency_model import LatencyModel, ms_cost, read_latency
from lessen.runtime.predict import Prediction, predict
from lessen.runtime.retention import point_for, point_within
from lessen.tokens.passes import Passes, all_stay
from lessen.tokens.profile import Cost

Teaching = Callable[[Tensor, Rows, Tensor | None, list[Tensor], list[Tensor], Tensor], Tensor]
"""`teaching(ids, rows, segments, answers, states, labels)`: a loss, from what a teacher says of the batch."""


class LessenForSequenceClassification(LessenPointedModel):
    """Single and pair classification, multi-label classification and regression, with exits.

    Attributes:
        objective: What training minimises, given the logits of every exit and the labels.
        equilibrium: Whether training uses gradient equilibrium.
        passes: What takes tokens away in each training step.
        teaching: What training minimises in place of `objective`, where a teacher shows how; else None.
    """

    accepts_loss_kwargs = False
    """Trainer divides the loss by its accumulation steps; left to guess, it believes that was done."""

    def __init__(self, config: LessenConfig) -> None:
        super().__init__(config)
        if not config.form().exits:
            raise PlanError(
                "config.json: shape.exits is empty; this model embeds sentences and has no classifier"
            )
        self.objective: Objective = partial(weighted, loss=task_loss(self.problem_type), how="linear")
        self.equilibrium = False
        self.passes: Passes = all_stay
        self.teaching: Teaching | None = None

    @property
    def problem_type(self) -> str:
        """`single_label_classification`, `multi_label_classification` or `regression`."""
        if self.config.problem_type:
            return self.config.problem_type
        return "regression" if self.config.num_labels == 1 else "single_label_classification"

    def _judges(self) -> str:
        return self.problem_type

    @property
    def label_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return [self.config.id2label[i] for i in range(self.config.num_labels)]

    def dial(
        self,
        *,
        max_drop: float | None = None,
        speedup: float | None = None,
        latency_ms: float | None = None,
        tokens: int | None = None,
        by: Literal["macs", "latency"] = "macs",
    ) -> LessenForSequenceClassification:
        """Choose the Point inputs are answered at by what is wanted of it; give exactly one wish.

        Args:
            max_drop: Loss allowed against the reference, 0.01 for one point in a hundred: the fastest Point
                certified for it, or full depth.
            speedup: With a retention profile, MACs of the whole model over those left when as many tokens
                leave as it takes; any number up to what the model can. Without one, layers of the model over
                layers used per row, as expected on the tuning rows.
            latency_ms: Milliseconds per row, alone in its batch, with the threads torch uses. With a
                retention profile and latencies fitted on this machine (`lessen bench --fit`), as many tokens
                leave as it takes; without, layers are timed here and now, and rows leave early.
            tokens: For `latency_ms`: length of a row; that of the tuning rows if None.
            by: For `speedup` with a retention profile: whether it is of MACs, or of the latencies fitted.

        Returns:
            The model; `model.point` says what was chosen and whether it is certified.

        Raises:
            PlanError: When the wish cannot be kept, or is not exactly one.
        """
        wishes = {"max_drop": max_drop, "speedup": speedup, "latency_ms": latency_ms}
        given = {name: value for name, value in wishes.items() if value is not None}
        if len(given) != 1:
            raise PlanError("dial takes one of max_drop, speedup and latency_ms")
        check_wish(*next(iter(given.items())))
        if tokens is not None and (latency_ms is None or tokens < 1):
            raise PlanError(f"tokens {tokens}: the length of a row, 1 or more, for latency_ms only")
        if by not in ("macs", "latency"):
            raise PlanError(f"by is 'macs' or 'latency', not {by!r}")
        points, steps = list(self.points.values()), self.config.steps()
        profile = self.config.retention_profile()
        if max_drop is not None:
            self.point = bounded(points, max_drop)
        elif speedup is not None and profile is not None:
            cost = None if by == "macs" else self._latency_cost()
            self.point = point_for(self.transformer, profile, speedup, cost)
        elif speedup is not None:
            self.point = by_layers(self.transformer, points, steps, speedup)
        elif profile is not None and self._latencies() is not None:
            assert latency_ms is not None
            cost, usual = self._latency_cost(), tokens or usual_tokens(steps)
            self.point = point_within(self.transformer, profile, latency_ms, usual, cost)
        else:
            assert latency_ms is not None
            most = self.config.facts().max_tokens
            usual = min(tokens or usual_tokens(steps), most)
            self.point = by_time(self.transformer, points, steps, latency_ms, usual)
        return self

    def _latencies(self) -> LatencyModel | None:
        return None if self.folder is None else read_latency(self.folder)

    def _latency_cost(self) -> Cost:
        """Milliseconds of a row alone in its batch, as fitted for the threads and precision used now."""
        fits = self._latencies()
        if fits is None:
            raise PlanError("no latencies were fitted for this model; run lessen bench --fit on its folder")
        return ms_cost(self.transformer, fits.fit_for(torch.get_num_threads(), self.precision, 1))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool = True,
        **further: Any,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Padded ids `[batch, length]` to logits `[batch, labels]`.

        Padding may stand on either side; positions count from each row's first token. In training mode every
        exit answers and the loss is `objective`. In evaluation mode rows leave as the Point says, the loss is
        the task's own on the answers given, and gradients flow only at full depth.

        Raises:
            InputError: For ids the model does not know, or a row that is too long.
            PlanError: For an input there is not, which would be passed over otherwise.
        """
        refuse_ignored(further)
        ids, rows, segments, _ = self._ragged(input_ids, attention_mask, token_type_ids)
        loss: Tensor | None = None
        if self.training:
            states: list[Tensor] | None = None if self.teaching is None else []
            answer = partial(every_exit, self.transformer, ids, rows, segments, equilibrium=self.equilibrium)
            learning, *imitating = self.passes()
            first = answer(in_layer=learning, states=states)
            others = [answer(in_layer=takes_away) for takes_away in imitating]
            logits = first[-1]
            if labels is not None:
                if self.teaching is None or states is None:
                    loss = self.objective(first, labels)
                else:
                    loss = self.teaching(ids, rows, segments, first, states, labels)
                imitations = [imitation(answers, logits, self.problem_type) for answers in others]
                loss = loss + torch.stack(imitations).mean() if imitations else loss
        else:
            if torch.is_grad_enabled() and self._point.exits is None:
                leave = elimination_of(self._point, self.transformer, ids, rows)
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
        explain: bool = False,
    ) -> list[Prediction]:
        """Answer texts or pairs, each with its label, probability and the layers it used; in evaluation mode.

        Args:
            texts: Texts, or pairs of texts.
            point: A Point or the name of one; the current one if None.
            batch_size: Texts per ragged batch.
            strict: Refuse texts longer than the model instead of cutting them.
            explain: Say of every token how many layers it went through.

        Raises:
            InputError: With `strict`, for a text longer than the model takes; or for one text in place of
                several.
            PlanError: For an unknown Point, or one the model cannot keep.
        """
        chosen = self._point if point is None else self._fitting(point)
        return predict(
            self.eval().transformer,
            tokenizer_of(self),
            texts,
            labels=self.label_names,
            problem_type=self.problem_type,
            point=chosen,
            batch_size=batch_size,
            strict=strict,
            explain=explain,
        )
