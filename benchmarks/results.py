"""Where benchmarks read data and write results: every file carries machine, versions, threads and date."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lessen.artefact import write_json

ROOT = Path(__file__).parent
CACHE = ROOT.parent / ".cache"
RESULTS = ROOT / "results"


def data_folder() -> Path:
    """The folder named by LESSEN_DATA."""
    place = os.environ.get("LESSEN_DATA")
    if not place or not Path(place).is_dir():
        sys.exit("set LESSEN_DATA to the folder with the benchmark data (sst2/, mrpc/, ...)")
    return Path(place)


def write_results(name: str, content: dict[str, Any]) -> Path:
    """Write `results/NAME.json` with what is needed to judge it."""
    from lessen.machine import machine

    path = RESULTS / f"{name}.json"
    facts = {
        "benchmark": name,
        "commit": commit(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
    }
    write_json(path, facts | content)
    return path


def kept(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs in `results/NAME.json`, if they were made with the same settings; else none."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["runs"] if found.get("settings") == json.loads(json.dumps(settings)) else []


def add_run(
    name: str,
    settings: dict[str, Any],
    run: dict[str, Any],
    summary: Callable[[list[dict[str, Any]]], dict[str, Any]],
) -> None:
    """Put a run beside those in `results/NAME.json` that were made with the same settings.

    Long benchmarks go on where they stopped, on another machine too, and several may write at once.

    Args:
        name: Of the results file.
        settings: What all runs have in common; a change of it starts the file anew.
        run: What was found; it is noted of which commit.
        summary: Made of all runs.
    """
    with alone(RESULTS / f".{name}.lock"):
        runs = [*kept(name, settings), run | {"commit": commit()}]
        write_results(name, {"settings": settings, "summary": summary(runs), "runs": runs})


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with this file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def commit() -> str | None:
    """The commit measured, marked where `src/` differs from it; None outside of a git checkout."""
    try:
        head, changed = (
            subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
            for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "../src"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + (" with changes" if changed.strip() else "")
