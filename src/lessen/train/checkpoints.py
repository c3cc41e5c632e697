"""Checkpoints of a training that was stopped: which of them can be gone on from."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

STATE = "trainer_state.json"


def last_whole(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; the Trainer writes its state file last.

    Where steps are selected, the best one so far has to be whole too: it may be what a training comes to.
    """
    for place in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        if _is_whole(place) and _is_whole(_best_of(place)):
            return str(place)
        shutil.rmtree(place, ignore_errors=True)
    return None


def _best_of(checkpoint: Path) -> Path:
    """The best checkpoint beside a whole one, as that says; itself where none was selected."""
    step = json.loads((checkpoint / STATE).read_text()).get("best_global_step")
    return checkpoint.with_name(f"checkpoint-{step}") if step else checkpoint


def _is_whole(checkpoint: Path) -> bool:
    """Whether nothing of a checkpoint is missing, cut off or damaged, as far as its files tell."""
    try:
        if not isinstance(json.loads((checkpoint / STATE).read_text()), dict):
            return False
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
