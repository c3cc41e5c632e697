"""Plain text as documents: what exits of a generator learn from, and what its promises are counted in.

Documents are independent of one another, tokens of one are not; so text is cut into training, tuning,
calibration and test parts by document (self-supervised exits page, 1.5 and 5.9).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lessen.data.formats import FORMATS
from lessen.data.reading import read
from lessen.data.splits import without_repeats
from lessen.data.table import Table, Text
from lessen.errors import InputError

TITLE = re.compile(r"^ ?= [^=\n]+ = ?$", re.MULTILINE)
"""How an article begins in WikiText; sections have more signs."""


def documents(source: str, *, text: str | None = None) -> Table:
    """Read texts and forget their labels; a text that occurs more than once is kept once.

    Args:
        source: A .txt file (UTF-8): WikiText's articles if it has their titles, else stretches between empty
            lines, each a document; a folder of .txt files, each a document; or what `reading.read` takes,
            each row a document, the two texts of a pair one after the other.
        text: The column of the text.

    Raises:
        InputError: Naming what cannot be read, or holds no text.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir() and (files := sorted(path.glob("*.txt"))) and not _is_table(path):
        texts = [_content(file) for file in files]
    elif path.suffix.lower() == ".txt":
        texts = _parts(_content(path))
    else:
        table = read(source, text=text, labelled=False)
        texts = ["\n".join(_sides(row)) for row in table.texts]
    texts = [one.strip() for one in texts]
    table = Table(source, [one for one in texts if one], None, None, [])
    if not len(table):
        raise InputError(f"{source} holds no text")
    return without_repeats(table)


def _is_table(folder: Path) -> bool:
    """Whether a folder holds data in another form, beside a note or a licence in .txt."""
    return any(file.suffix.lower() in FORMATS and file.suffix.lower() != ".txt" for file in folder.iterdir())


def _parts(content: str) -> list[str]:
    starts = [match.start() for match in TITLE.finditer(content)]
    if starts and not content[: starts[0]].strip():
        return [content[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    return re.split(r"\n\s*\n", content)


def _content(path: Path) -> str:
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save the file as UTF-8") from None
    return content.replace("\r\n", "\n").replace("\r", "\n")


def _sides(row: Text) -> tuple[str, ...]:
    return (row,) if isinstance(row, str) else row
