"""The shell around an encoder without a head: hidden states and sentence embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from lessen.config import LessenConfig
from lessen.errors import InputError, PlanError
from lessen.hf.shell import LessenPreTrainedModel, refuse_ignored, tokenizer_of
from lessen.model.heads import pool
from lessen.model.rows import Rows, scatter
from lessen.plan import FULL, Point, check_point
from lessen.runtime.engine import elimination_of
from lessen.runtime.text import batches, collate, encode
from lessen.tokens.restore import Restoring


class LessenModel(LessenPreTrainedModel):
    """The encoder alone: hidden states, and mean-pooled sentence embeddings.

    Attributes:
        point: How many tokens leave on the way; "full": none. A token that has left keeps its last state.
    """

    def __init__(self, config: LessenConfig) -> None:
        super().__init__(config)
        self.point = FULL

    def use(self, point: Point) -> LessenModel:
        """Choose how many tokens leave from now on; returns the model.

        Raises:
            PlanError: For a Point with exits, or one that does not fit the model.
        """
        if not isinstance(point, Point):
            raise InputError(f"point {point!r}: give a Point; a model that only embeds has none with a name")
        check_point(point, self.config.form())
        if point.exits is not None:
            raise PlanError(f"point {point.name!r} has exits; a model that only embeds has none")
        self.point = point
        return self

    def dial(self, *, speedup: float) -> LessenModel:
        """Let as many tokens leave as a ratio of MACs takes; returns the model.

        Raises:
            PlanError: When it cannot be reached, or no retention profile was measured.
        """
        return self.use(self.point_at(speedup))

    def _states(self, ids: Tensor, rows: Rows, segments: Tensor | None) -> Tensor:
        """The last state of every token, `[tokens, hidden]`."""
        elimination = elimination_of(self.point, self.transformer, ids, rows)
        if elimination is None:
            return self.transformer(ids, rows, segments)[0]
        restoring = Restoring(elimination, rows)
        return restoring.restored(*self.transformer(ids, rows, segments, None, restoring))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        return_dict: bool = True,
        **further: Any,
    ) -> BaseModelOutput | tuple[Tensor]:
        """Padded ids `[batch, length]` to hidden states `[batch, length, hidden]`, zero at padding.

        Raises:
            InputError: For ids the model does not know, or a row that is too long.
            PlanError: For an input there is not, which would be passed over otherwise.
        """
        refuse_ignored(further)
        ids, rows, segments, index = self._ragged(input_ids, attention_mask, token_type_ids)
        states = self._states(ids, rows, segments)
        states = scatter(states, index, (input_ids.shape[0], input_ids.shape[1]))
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
        encoded = encode(tokenizer_of(self), texts, self.config.facts().max_tokens, strict=strict)
        result = torch.empty(len(texts), self.config.hidden_size)
        for batch in batches(encoded, batch_size):
            ids, rows, segments = collate([encoded[i] for i in batch], self.device)
            states = self._states(ids, rows, segments)
            result[batch] = rows.restore(pool(states, rows, "mean")).float().cpu()
        return torch.nn.functional.normalize(result, dim=-1) if normalize else result
