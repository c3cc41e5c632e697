"""Plain text as documents, each once."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from lessen.builtin import model_folder
from lessen.data.documents import documents
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.systems.material import _tokens

WIKI = " \n = A = \n \n One . \n \n = = Part = = \n Two . \n \n = B of C = \n \n Three . \n"


def test_text_files(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("one\nmore\n\n\ntwo\n \nthree\n\ntwo\n")
    assert documents(str(place)).texts == ["one\nmore", "two", "three"]
    place.write_text(WIKI)
    assert [text.split()[1] for text in documents(str(place)).texts] == ["A", "B"]
    assert "Two" in documents(str(place)).texts[0]
    place.write_text("before\n\nmore\n = A = \nafter\n")
    assert documents(str(place)).texts == ["before", "more\n = A = \nafter"], "no WikiText"


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    for name, text in (("b.txt", "two\n\nparts"), ("a.txt", "one")):
        (tmp_path / name).write_text(text)
    assert documents(str(tmp_path)).texts == ["one", "two\n\nparts"]


def test_tables_lose_their_labels(tmp_path: Path) -> None:
    place = tmp_path / "a.jsonl"
    place.write_text("".join(json.dumps({"text": t, "label": i}) + "\n" for i, t in enumerate("ab")))
    found = documents(str(place))
    assert (found.texts, found.labels) == (["a", "b"], None)
    place.write_text(json.dumps({"question": "why", "passage": "so"}) + "\n")
    assert documents(str(place)).texts == ["why\nso"]
    (tmp_path / "LICENSE.txt").write_text("do what you like")
    place.rename(tmp_path / "train.jsonl")
    assert documents(str(tmp_path)).texts == ["why\nso"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    with pytest.raises(InputError, match="cannot be read"):
        documents(str(place))
    place.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        documents(str(place))
    place.write_text(" \n\n ")
    with pytest.raises(InputError, match="holds no text"):
        documents(str(place))


def test_line_ends_of_windows_are_line_ends(tmp_path: Path) -> None:
    text = " = One = \n\n first \n\n second \n\n = Two = \n\n third \n"
    (tmp_path / "here.txt").write_bytes(text.encode())
    (tmp_path / "windows.txt").write_bytes(text.replace("\n", "\r\n").encode())
    here, windows = (documents(str(tmp_path / f"{name}.txt")).texts for name in ("here", "windows"))
    assert len(here) == 2
    assert here == windows


def test_exits_learn_from_the_whole_of_a_long_document() -> None:
    """A book of 40,000 words loses none of them, however few tokens the model takes at once."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    book = Table("book", ["a film " * 20_000], None, None, [])
    assert [len(ids) for ids in _tokens(SimpleNamespace(tokenizer=tokenizer), book)] == [40_002]
