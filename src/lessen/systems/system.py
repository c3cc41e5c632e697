"""What a system says: the stages of its training and the criteria its exits may use."""

from __future__ import annotations

from dataclasses import dataclass

from lessen.train.fine_tuning import Recipe


@dataclass(frozen=True)
class System:
    """A recipe.

    Attributes:
        name: As given to `--system`.
        summary: One line for the help.
        stages: Trainings in order; each starts from the weights the one before it left.
        criteria: Exit criteria to choose from, for classification.
        keeps_head: Whether the checkpoint must bring the task's own head (nothing of it is retrained).
    """

    name: str
    summary: str
    stages: tuple[Recipe, ...]
    criteria: tuple[str, ...]
    keeps_head: bool = False
