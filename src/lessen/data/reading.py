"""From what a user names (file, folder, built-in or hub data) to a table, with errors that name the row."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lessen.data import packaged
from lessen.data.table import KINDS, Table, code_labels, listed
from lessen.errors import InputError
from lessen.runtime.text import Text

PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "passage"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("text", "text_pair"),
)
TEXTS = ("text", "sentence", "review", "content", "sms", "message", "question")
LABELS = ("label", "labels", "score", "class", "category", "target", "sentiment")
"""Column names tried in this order, in any case, when the user names none; pairs come before single texts."""

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")
"""`NAME`, `OWNER/NAME`, either with `:CONFIG`."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character, which JSON can write and no tokenizer can read."""


@dataclass(frozen=True)
class Columns:
    """A source before it becomes a table.

    Attributes:
        name: What the user called it, or the file it was found in.
        names: Its columns.
        column: All values of a column.
        rows: How many there are.
        lines: Where each row starts (1-based), for files that have lines.
        classes: Names of integer labels, by column, where the source declares them.
        typed: False for CSV and TSV, where a number is written as text.
    """

    name: str
    names: list[str]
    column: Callable[[str], list[Any]]
    rows: int
    lines: list[int] | None = None
    classes: Mapping[str, list[str]] = field(default_factory=dict)
    typed: bool = True

    def where(self, row: int) -> str:
        """The row at an index (0-based), as a user finds it."""
        line = f" (line {self.lines[row]})" if self.lines else ""
        return f"{self.name}, row {row + 1}{line}"


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
            (`table.code_labels`).
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
        columns = _columns(name, split)
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


def _columns(source: str, split: str | None) -> Columns:
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        return _folder(Path(path), split)
    if os.path.isfile(path):
        if split is not None:
            raise InputError(f"{source} is one file without parts; leave out the split, or name the folder")
        return _file(Path(path))
    if Path(path).suffix.lower() in FORMATS or not HUB_NAME.fullmatch(source):
        raise InputError(f"{source[:200]}: there is no such file or folder")
    return _hub(source, split or "train")


def _folder(folder: Path, split: str | None) -> Columns:
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _saved(folder, split)
    part = split or "train"
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in FORMATS)
    found = [path for path in files if path.stem == part]
    if len(found) != 1:
        raise InputError(
            f"{folder}: {'more than one' if found else 'no'} file named {part!r}; "
            f"it has {listed([path.name for path in files]) or 'no data files'}"
        )
    return _file(found[0])


def _file(path: Path) -> Columns:
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"{path}: files ending in {path.suffix!r} are not read; there is {', '.join(FORMATS)}"
        )
    return FORMATS[path.suffix.lower()](path)


def _content(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def _delimited(path: Path) -> Columns:
    """CSV as in RFC 4180; TSV, where a quote is a sign like any other (as in GLUE). Skips blank lines."""
    text = io.StringIO(_content(path), newline="")
    if path.suffix.lower() == ".tsv":
        reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(text, strict=True)
    header: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for cells in reader:
            start, line = line, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
            elif len(cells) != len(header):
                raise InputError(
                    f"{path}, row {len(rows) + 1} (line {start}): it has {len(cells)} cells, the header has "
                    f"{len(header)}; put texts with a comma, a quote or a line break in double quotes"
                )
            else:
                rows.append(cells)
                lines.append(start)
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: not valid CSV ({error}); check the quotes") from None
    header = header or []
    if len(set(header)) != len(header):
        raise InputError(f"{path}: two columns have the same name ({listed(header)}); rename one")
    values = dict(zip(header, map(list, zip(*rows, strict=True)), strict=False))
    return Columns(str(path), header, values.__getitem__, len(rows), lines, typed=False)


def _json(path: Path) -> Columns:
    """A list of objects in a .json file, else one object per line."""
    content = _content(path)
    lines: list[int] | None = None
    if path.suffix.lower() == ".json" and content.lstrip()[:1] == "[":
        rows = _parsed(content, str(path))
    else:
        numbered = [(n, line) for n, line in enumerate(content.split("\n"), 1) if line and not line.isspace()]
        rows, lines = [_parsed(line, f"{path}, line {n}") for n, line in numbered], [n for n, _ in numbered]
    for row, value in enumerate(rows):
        if not isinstance(value, dict):
            at = f"line {lines[row]}" if lines else f"row {row + 1}"
            raise InputError(f"{path}, {at}: not an object; write every row as {{column: value, ...}}")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Columns(str(path), names, lambda name: [row.get(name) for row in rows], len(rows), lines)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        inner = f", line {error.lineno}" if error.lineno > 1 else ""
        raise InputError(
            f"{place}{inner}: not valid JSON ({error.msg}, column {error.colno}); correct it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not valid JSON ({error}); correct it") from None


def _parquet(path: Path) -> Columns:
    import datasets
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        return _hub_columns(str(path), datasets.Dataset(pyarrow.parquet.ParquetFile(path).read()))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {_first_line(error)}") from None


def _saved(folder: Path, split: str | None) -> Columns:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise InputError(f"{folder} cannot be read as a saved data set: {_first_line(error)}") from None
    if isinstance(saved, datasets.Dataset):
        if split is not None and str(saved.split) != split:
            raise InputError(f"{folder} holds one data set without parts; leave out the split")
        return _hub_columns(str(folder), saved)
    if (split or "train") not in saved:
        raise InputError(f"{folder} has no part {split or 'train'!r}; it has {', '.join(saved)}")
    return _hub_columns(str(folder), saved[split or "train"])


def _hub(source: str, split: str) -> Columns:
    import datasets

    name, _, config = source.partition(":")
    try:
        return _hub_columns(source, datasets.load_dataset(name, config or None, split=split))
    except Exception as error:
        raise InputError(
            f"{source}: no file or folder here, and not readable as a hub data set: {_first_line(error)}"
        ) from None


def _hub_columns(name: str, dataset: Any) -> Columns:
    plain = dataset.with_format(None)
    names, classes = plain.column_names, _classes(plain.features)
    return Columns(name, names, lambda column: plain[column][:], len(plain), classes=classes)


def _classes(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """The class names data sets declare, by column; for a list of labels those of its elements."""
    declared = {
        name: getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
        for name, feature in features.items()
    }
    return {name: list(names) for name, names in declared.items() if names}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


FORMATS: dict[str, Callable[[Path], Columns]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".parquet": _parquet,
}
