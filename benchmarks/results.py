"""Where benchmarks read data and write results: every file carries machine, versions, threads and date."""

from __future__ import annotations

import os
import subprocess
import sys
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
