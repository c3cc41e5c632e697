"""What a finished piece of work leaves in a run's folder: weights, their Shape, and a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lessen.artefact import WEIGHTS, write_json
from lessen.errors import InputError, PlanError
from lessen.plan import Shape
from lessen.records import parse
from lessen.reshaping import with_shape

RECORD = "done.json"


class Milestone:
    """A folder of the run, and what was left there if the work in it was finished.

    Args:
        folder: Need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def reached(self) -> bool:
        """Whether the work is finished; the record is written last."""
        return (self.folder / RECORD).exists()

    def leave(self, state: Mapping[str, Tensor], shape: Shape, training: dict[str, Any]) -> None:
        """Write down a transformer's tensors, their Shape and how they were trained."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, self.folder / WEIGHTS)
        write_json(self.folder / RECORD, {"shape": shape.model_dump(mode="json"), "training": training})

    def training(self) -> dict[str, Any]:
        """How it was trained.

        Raises:
            InputError: When the record is damaged; so do the others.
        """
        return self._record()["training"]

    def state(self) -> dict[str, Tensor]:
        """The tensors that were left."""
        try:
            return load_file(self.folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise self._damaged(WEIGHTS) from error

    def model(self, like: Any) -> Any:
        """The model that was left, of the task and the tokenizer of another."""
        try:
            shape = parse(Shape, self._record()["shape"], str(self.folder / RECORD))
            return with_shape(like, shape, self.state())
        except (PlanError, RuntimeError) as error:  # torch names a tensor that is missing or does not fit
            raise self._damaged(RECORD) from error

    def _record(self) -> dict[str, Any]:
        try:
            record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
            return {name: record[name] for name in ("shape", "training")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(RECORD) from error

    def _damaged(self, name: str) -> InputError:
        place = self.folder / name
        return InputError(f"{place} is damaged; delete {self.folder} to do this part of the work again")
