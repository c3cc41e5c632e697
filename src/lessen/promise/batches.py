"""Answers of finished batches, kept in files while others are still to come: a stopped run goes on there."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lessen.artefact import write_bytes

CALIBRATING = "calibration"
"""The folder, in one of unfinished work, of answers to calibrate on."""


class KeptBatches:
    """A folder with a file for each finished batch.

    Args:
        folder: Made when the first part is kept; None: nothing is kept.
        identity: Hash of all that answers depend on: parts of other work are not read.
    """

    def __init__(self, folder: Path | None, identity: str) -> None:
        self.folder, self.identity = folder, identity

    def get(self, number: int) -> dict[str, torch.Tensor] | None:
        """A batch that was kept; None if it was not, or cannot be read."""
        if self.folder is None:
            return None
        try:
            with safe_open(self._place(number), "pt") as file:
                if (file.metadata() or {}).get("identity") != self.identity:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None

    def put(self, number: int, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Keep a batch, and give it back.

        Raises:
            ArtefactError: When it cannot be written.
        """
        if self.folder is not None:
            write_bytes(self._place(number), save(found, metadata={"identity": self.identity}))
        return found

    def _place(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:05}.safetensors"
