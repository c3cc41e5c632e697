"""What the commands share: options, tables on stdout, progress on stderr, one JSON object for `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lessen.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Data = Annotated[
    str, typer.Option("--data", help="A CSV, TSV, JSONL or Parquet file, builtin:NAME, or a hub dataset.")
]
TextColumn = Annotated[str | None, typer.Option(help="Column with the text.")]
PairColumn = Annotated[str | None, typer.Option(help="Column with the second text of a pair.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column with the label.")]
Task = Annotated[
    str | None,
    typer.Option(help="classification, multi-label or regression; found from the labels if not given."),
]
Precision = Annotated[str, typer.Option(help="Type of the weights: float32 or bfloat16.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; torch's default if not given.")]


def say(line: str) -> None:
    """A line of progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def emit(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, ensure_ascii=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A table on stdout: first column left, numbers right."""
    if title:
        print(title)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        drawn.add_column(column, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, str) else f"{cell}" for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(drawn)


def percent(share: float) -> str:
    """A share as percent with one decimal."""
    return f"{100 * share:.1f}"


def precision_of(name: str) -> Any:
    """Check a `--precision` value."""
    if name not in ("float32", "bfloat16"):
        raise InputError(f"--precision {name}: choose float32 or bfloat16")
    return name


def parse_share(text: str, option: str) -> float:
    """`1%` or `0.01` as 0.01.

    Raises:
        InputError: When it is neither.
    """
    raw = text.strip()
    try:
        value = float(raw[:-1]) / 100 if raw.endswith("%") else float(raw)
    except ValueError:
        raise InputError(f"{option} {text}: expected a share such as 1% or 0.01") from None
    if not 0 <= value < 1:
        raise InputError(
            f"{option} {text}: must be at least 0 and below 100%; 1% means one point in a hundred"
        )
    return value
