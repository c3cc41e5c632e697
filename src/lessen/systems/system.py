"""What a system says: the stages of its training and the criteria its exits may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lessen.plan import ExitShape
from lessen.train.fine_tuning import Recipe

WIDE = 768
"""Hidden size from which on a model is as wide as BERT-base."""


@dataclass(frozen=True)
class System:
    """A recipe.

    Attributes:
        name: As given to `--system`.
        summary: One line for the help.
        stages: Trainings in order; each starts from the weights the one before it left.
        criteria: Exit criteria to choose from, for classification.
        exit: Form of new exits, after every layer where the user names none; mean pooling and one linear
            layer if None.
        wide: What is otherwise in each stage for models as wide as BERT-base; None: nothing.
        keeps_head: Whether the checkpoint must bring the task's own head (nothing of it is retrained).
    """

    name: str
    summary: str
    stages: tuple[Recipe, ...]
    criteria: tuple[str, ...]
    exit: ExitShape | None = None
    wide: tuple[dict[str, Any], ...] | None = None
    keeps_head: bool = False

    def stages_for(self, hidden_size: int) -> tuple[Recipe, ...]:
        """The stages for a model so wide."""
        if self.wide is None or hidden_size < WIDE:
            return self.stages
        return tuple(
            stage.model_copy(update=changes) for stage, changes in zip(self.stages, self.wide, strict=True)
        )
