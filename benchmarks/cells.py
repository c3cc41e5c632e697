"""What tables are made from: results files, and figures as Markdown. Needs the standard library only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

TASKS = {"imdb": "IMDB", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B"}
"""Tasks as tables call them."""


def read(name: str) -> dict[str, Any] | None:
    """A results file, or None if that benchmark has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def markdown(columns: list[str], rows: list[list[str]], others: str = "--:") -> str:
    """A table, its first column to the left, others to the right if nothing else is said."""
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join([':--', *[others] * (len(columns) - 1)])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def section(title: str, said: str, *parts: str, notes: Mapping[str, str] | None = None) -> str:
    """Tables under a heading, after what they are of; below them what is to be known of columns and rows."""
    below = "".join(f"* *{name}*: {meaning}\n" for name, meaning in (notes or {}).items())
    return "\n".join([f"### {title}\n", f"{said}\n", *parts, *([below] if below else [])])


def outcomes(verdicts: Iterable[tuple[str, str]]) -> str:
    """Targets, and what came of them."""
    return markdown(["target", "outcome"], [list(each) for each in verdicts], ":--")


def percent(share: float) -> str:
    """A share as a number of hundredths."""
    return f"{100 * share:.1f}"


def signed(difference: dict[str, float]) -> str:
    """A difference in hundredths, and its standard error."""
    return f"{100 * difference['mean']:+.1f} ± {100 * difference['se']:.1f}"


def with_spread(value: float, deviation: float | None) -> str:
    """A mean over seeds, and its deviation where there are several."""
    return percent(value) + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def with_noise(text: str, *lines: dict[str, Any]) -> str:
    """Marked where a timing it rests on was unsteady; where the spread was not kept, it is not known."""
    return text + (", noisy" if any(line.get("noisy") for line in lines) else "")
