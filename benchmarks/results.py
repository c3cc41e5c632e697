"""Where benchmarks read data and write results: every file carries machine, versions, threads and date.

LESSEN_RESULTS and LESSEN_CACHE name other folders for results and for work, to try a benchmark out.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from lessen.artefact import write_text

ROOT = Path(__file__).parent
CACHE = Path(os.environ.get("LESSEN_CACHE", ROOT.parent / ".cache"))
RESULTS = Path(os.environ.get("LESSEN_RESULTS", ROOT / "results"))


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
    write_text(path, as_text(facts | content))
    return path


def as_text(content: dict[str, Any]) -> str:
    """JSON, indented but for each of `runs`, which is a line: they are many, and not read by eye."""
    lines = [json.dumps(run, separators=(",", ":")) for run in content.get("runs", ())]
    if not lines:
        return json.dumps(content, indent=2) + "\n"
    around = json.dumps(content | {"runs": []}, indent=2)
    runs = ",\n    ".join(lines)
    return around.replace('\n  "runs": []', f'\n  "runs": [\n    {runs}\n  ]', 1) + "\n"


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

    Long benchmarks go on where they stopped, on another machine too, and several may write at once. A file
    of other settings is not lost: it is copied to `NAME-HASH.json` before the new one takes its place.

    Args:
        name: Of the results file.
        settings: What all runs have in common; a change of it starts a file of its own.
        run: What was found; it is noted of which commit.
        summary: Made of all runs.
    """
    with alone(RESULTS / f".{name}.lock"):
        set_aside(name, settings)
        runs = [*kept(name, settings), run | {"commit": commit()}]
        write_results(name, {"settings": settings, "summary": summary(runs), "runs": runs})


def set_aside(name: str, settings: dict[str, Any]) -> None:
    """Copy `results/NAME.json` to `NAME-HASH.json`, after its content, if it is of other settings."""
    path = RESULTS / f"{name}.json"
    if path.exists():
        content = path.read_bytes()
        if json.loads(content).get("settings") != json.loads(json.dumps(settings)):
            aside = path.with_name(f"{name}-{sha256(content).hexdigest()[:12]}.json")
            aside.write_bytes(content)
            print(f"{path.name} is of other settings: kept as {aside.name}", file=sys.stderr)


@contextmanager
def alone(place: Path, *, wait: bool = True) -> Iterator[bool]:
    """Be the only process in such a block with this file.

    Args:
        place: The file; made if it is not there.
        wait: Until no other process is; without, the block is told False while one is.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


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
