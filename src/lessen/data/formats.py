"""The formats a table can have: CSV, TSV, JSON, JSONL, Parquet, saved and hub data sets, as named columns."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lessen.data.table import listed
from lessen.errors import InputError, first_line

LONGEST_CELL = 2**31 - 1
"""Signs in a cell: of whole books."""

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")
"""`NAME`, `OWNER/NAME`, either with `:CONFIG`."""


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


def columns_of(source: str, split: str | None) -> Columns:
    """The columns of a file, a folder, a saved data set, or one on the hub.

    Raises:
        InputError: When there is no such thing, or it is malformed; the message names file and row.
    """
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
    longest = csv.field_size_limit(LONGEST_CELL)
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
    finally:
        csv.field_size_limit(longest)
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
    import pyarrow.parquet

    try:
        return _hub_columns(str(path), datasets.Dataset(pyarrow.parquet.ParquetFile(path).read()))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {first_line(error)}") from None


def _saved(folder: Path, split: str | None) -> Columns:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise InputError(f"{folder} cannot be read as a saved data set: {first_line(error)}") from None
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
            f"{source}: no file or folder here, and not readable as a hub data set: {first_line(error)}"
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


def _lines(path: Path) -> Columns:
    """Plain text: each line that is not blank is a row, without a label."""
    found = [
        (number, line) for number, line in enumerate(_content(path).splitlines(), start=1) if line.strip()
    ]
    texts = [line.strip() for _, line in found]
    return Columns(str(path), ["text"], lambda _: texts, len(texts), [number for number, _ in found])


FORMATS: dict[str, Callable[[Path], Columns]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".parquet": _parquet,
    ".txt": _lines,
}
