"""Checkpoints of a training that was stopped: which of them can be gone on from."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open


def last_whole(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; the Trainer writes its state file last."""
    for place in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        if _is_whole(place):
            return str(place)
        shutil.rmtree(place, ignore_errors=True)
    return None


def _is_whole(checkpoint: Path) -> bool:
    """Whether nothing of a checkpoint is missing, cut off or damaged, as far as its files tell."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        for place in checkpoint.glob("*.safetensors"):
            with safe_open(place, "pt"):
                pass
        for place in (*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")):
            with zipfile.ZipFile(place) as parts:
                if parts.testzip() is not None:
                    return False
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile):
        return False
    return all(any(checkpoint.glob(name)) for name in ("*.safetensors", "optimizer.pt", "scheduler.pt"))
