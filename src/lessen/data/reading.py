"""From what a user names (file, folder, built-in or hub data) to a table, with errors that name the row."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lessen.data import packaged
from lessen.data.formats import Columns, columns_of
from lessen.data.labels import code_labels
from lessen.data.table import KINDS, Table, Text, listed
from lessen.errors import InputError

PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "passage"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("text", "text_pair"),
    ("text", "pair"),
)
TEXTS = ("text", "sentence", "review", "content", "sms", "message", "question")
LABELS = ("label", "labels", "score", "class", "category", "target", "sentiment")
"""Column names tried in this order, in any case, when the user names none; pairs come before single texts."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character, which JSON can write and no tokenizer can read."""


def read(
    source: str | Path,
    *,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    split: str | None = None,
    task: str | None = None,
    limit: int | None = None,
    allow_empty: bool = False,
    labelled: bool | None = None,
) -> Table:
    """Read texts and labels.

    Args:
        source: A CSV, TSV, JSONL, JSON or Parquet file (UTF-8); a folder with such files named train,
            validation and test, or written by `datasets.save_to_disk`; `builtin:NAME` or
            `builtin:NAME[PART]`; else a hub data set, `NAME` or `NAME:CONFIG`.
        text: The column of the text; found by its name when not given (`PAIRS`, `TEXTS`).
        pair: The column of the second text of a pair.
        label: The column of the label; found by its name when not given (`LABELS`).
        split: Which part of a folder, a hub data set (default: train) or built-in data (default: all rows).
        task: "classification", "multi-label" or "regression"; inferred from the labels when not given
            (`labels.code_labels`).
        limit: Keep at most so many rows: a random sample, always the same, in the source's order. Files are
            often sorted by label, so their first rows would not do.
        allow_empty: Accept empty texts, as when only predicting.
        labelled: True refuses data without labels, False ignores the labels.

    Raises:
        InputError: Naming the source, the row and what to do, for anything that cannot be read or used.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the limit is {limit}; it must be at least 1")
    name = os.fspath(source)
    if name.startswith("builtin:"):
        if text or pair or label:
            raise InputError(f"{name}: built-in data has its own columns; do not name any")
        table = _built_in(name, split, task, labelled)
    else:
        columns = columns_of(name, split)
        if not columns.rows:
            raise InputError(f"{columns.name} holds no rows")
        sides = _text_columns(columns, text, pair)
        table = Table(name, _texts(columns, sides, allow_empty), None, None, [])
        if labelled is not False:
            table = _with_labels(table, columns, sides, label, task, required=labelled is True)
    if limit is not None and limit < len(table):
        table = table.take(sorted(random.Random(0).sample(range(len(table)), limit)))
    return table


def _built_in(name: str, split: str | None, task: str | None, labelled: bool | None) -> Table:
    match = re.fullmatch(r"builtin:([^\[\]]+)(?:\[([^\[\]]+)\])?", name)
    if match is None or (split is not None and match[2] not in (None, split)):
        raise InputError(f"{name}: write built-in data as builtin:NAME or builtin:NAME[PART], one part only")
    table = packaged.load(match[1], match[2] or split)
    if labelled is False:
        return replace(table, labels=None, kind=None, label_names=[])
    if labelled and table.labels is None:
        raise InputError(f"{name} has no labels; choose another part")
    if task is not None and table.kind not in (None, KINDS.get(task, task)):
        raise InputError(f"{name} is data for {table.kind}, not for {task}")
    return table


def _with_labels(
    table: Table, columns: Columns, sides: list[str], label: str | None, task: str | None, *, required: bool
) -> Table:
    chosen = _named(columns, label) if label else _find(columns, LABELS, besides=sides)
    if chosen is None:
        if required:
            raise _no_column(columns, "label", LABELS)
        return table
    values = columns.column(chosen) if columns.typed else _numbers(columns.column(chosen))
    classes = columns.classes.get(chosen)
    if classes and all(value == -1 for value in values):  # how the hub marks a test part without labels
        if label or required:
            raise InputError(f"{columns.name}: every label is -1, that is none; choose another part")
        return table
    kind, labels, label_names = code_labels(values, columns.name, columns.where, task, classes)
    return replace(table, labels=labels, kind=kind, label_names=label_names)


def _named(columns: Columns, name: str) -> str:
    if name not in columns.names:
        raise InputError(f"{columns.name}: no column {name!r}; it has {listed(columns.names)}")
    return name


def _find(columns: Columns, candidates: tuple[str, ...], besides: Sequence[str] = ()) -> str | None:
    known = {name.strip().lower(): name for name in reversed(columns.names) if name not in besides}
    return next((known[name] for name in candidates if name in known), None)


def _text_columns(columns: Columns, text: str | None, pair: str | None) -> list[str]:
    """The column of the text, or the two of a pair."""
    if text:
        return [_named(columns, name) for name in (text, pair) if name]
    if pair:
        partners = tuple(one for one, two in PAIRS if two == _named(columns, pair).strip().lower())
        if first := _find(columns, partners + TEXTS, besides=[pair]):
            return [first, pair]
    else:
        for names in PAIRS:
            both = [column for name in names if (column := _find(columns, (name,)))]
            if len(both) == 2:
                return both
        if only := _find(columns, TEXTS):
            return [only]
    raise _no_column(columns, "text", TEXTS)


def _no_column(columns: Columns, what: str, candidates: tuple[str, ...]) -> InputError:
    return InputError(
        f"{columns.name}: no {what} column ({', '.join(candidates)}); it has {listed(columns.names)}; "
        f"say which one holds the {what}"
    )


def _texts(columns: Columns, sides: list[str], allow_empty: bool) -> list[Text]:
    values = {side: columns.column(side) for side in sides}
    for side, texts in values.items():
        for row, text in enumerate(texts):
            if problem := _problem(text, allow_empty):
                raise InputError(
                    f"{columns.where(row)}: the text in column {side!r} {problem}; correct or remove the row"
                )
    both = list(values.values())
    return list(both[0]) if len(sides) == 1 else list(zip(both[0], both[-1], strict=True))


def _problem(text: Any, allow_empty: bool) -> str | None:
    """What makes a cell unusable as a text."""
    if not isinstance(text, str):
        return "is missing" if text is None else f"is of type {type(text).__name__}"
    if not allow_empty and not text.strip():
        return "is empty"
    if not text.isascii() and SURROGATE.search(text):
        return "holds half a surrogate pair"
    return None


def _numbers(cells: list[str]) -> list[Any]:
    """The numbers a CSV column writes: integers if all are, else floats if all are, else the cells."""
    if any("_" in cell for cell in cells):  # Python would read 1_000 as a number
        return cells
    for number in (int, float):
        try:
            return [number(cell) if cell.strip() else None for cell in cells]
        except ValueError:
            continue
    return cells
