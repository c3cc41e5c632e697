"""Every format gives the same table, and every bad row is named."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lessen.data.reading import read
from lessen.errors import InputError

Rows = list[dict[str, Any]]
FILMS: Rows = [
    {"text": "good", "label": "pos"},
    {"text": "bad", "label": "neg"},
    {"text": "fine", "label": "pos"},
]


def write(path: Path, rows: Rows) -> Path:
    """Write rows in the format of the file's ending."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".tsv":
        lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


TEXT = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet"])
@settings(deadline=None)  # the machine may be busy
@given(rows=st.lists(st.tuples(TEXT, TEXT, st.integers(-3, 3)), min_size=2, max_size=8))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, ending: str, rows: list) -> None:
    rows = [*rows, ("a", "b", 8), ("a", "b", 9)]  # never one class only
    written: Rows = [{"premise": a, "idx": 0, "hypothesis": b, "label": c} for a, b, c in rows]
    table = read(write(tmp_path_factory.mktemp("data") / f"rows.{ending}", written))
    assert table.texts == [(a, b) for a, b, _ in rows]
    assert [int(table.label_names[label]) for label in table.labels or []] == [c for _, _, c in rows]
    assert table.label_names == list(map(str, sorted({c for _, _, c in rows})))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_formats_agree_on_regression_with_whole_numbers_first(tmp_path: Path, ending: str) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "score": score} for score in (5.0, 5.0, 3.8)]
    table = read(write(tmp_path / f"rows.{ending}", rows))
    assert (table.kind, table.labels, table.label_names) == ("regression", [5.0, 5.0, 3.8], [])


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        ({"Review": "r", "Text": "t"}, "t"),
        ({"message": "m", "idx": 1}, "m"),
        ({"question": "q", "text_pair": "p"}, "q"),
        ({"question": "q", "passage": "p"}, ("q", "p")),
        ({"text_pair": "p", "text": "t"}, ("t", "p")),
        ({"pair": "p", "text": "t"}, ("t", "p")),
        ({"question": "q", "sentence": "s"}, ("q", "s")),
        ({"question2": "b", "question1": "a"}, ("a", "b")),
    ],
)
def test_columns_are_found_by_name(tmp_path: Path, columns: dict[str, Any], texts: object) -> None:
    assert read(write(tmp_path / "rows.jsonl", [columns])).texts == [texts]


@pytest.mark.parametrize("label", ["label", "Labels", "score", "class", "category", "target", "sentiment"])
def test_label_columns_are_found_by_name(tmp_path: Path, label: str) -> None:
    rows = [{"sms": "a", label: "x"}, {"sms": "b", label: "y"}]
    assert read(write(tmp_path / "rows.csv", rows)).labels == [0, 1]


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [{"text": "t", "a": f"a{i}", "b": "b", "label": "same", "mood": i} for i in range(2)]
    path = write(tmp_path / "rows.jsonl", rows)
    assert read(path, text="a", label="mood").texts == ["a0", "a1"]
    assert read(path, text="a", pair="b", label="mood").texts == [("a0", "b"), ("a1", "b")]
    assert read(path, pair="b", label="mood").texts == [("t", "b"), ("t", "b")]
    assert read(path, label="mood").label_names == ["0", "1"]


def test_labels_are_optional_refused_or_ignored(tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.csv", [{"text": "a", "lable": 1}])
    assert read(bare).labels is None
    assert read(bare).kind is None
    with pytest.raises(InputError, match=r"bare\.csv: no label column .*; it has text, lable; say which"):
        read(bare, labelled=True)
    half = write(tmp_path / "half.jsonl", [{"text": "a", "label": 1}, {"text": "b"}])
    assert read(half, labelled=False).texts == ["a", "b"]


def test_empty_texts_are_for_prediction_only(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [{"text": "a", "id": 1}, {"text": "", "id": 2}])
    assert read(path, allow_empty=True).texts == ["a", ""]
    with pytest.raises(InputError, match=r"row 2 \(line 3\): the text in column 'text' is empty"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "words,label\na,1\n", r"a\.csv: no text column .*; it has words, label;"),
        (
            "a.csv",
            'text,label\n"a\nb",1\n ,0\n',
            r"a\.csv, row 2 \(line 4\): the text in column 'text' is empty",
        ),
        ("a.csv", "text,label\na,1\n\nb,\n", r"row 2 \(line 4\): the label is missing"),
        ("a.csv", "text,label\na,1\nb\n", r"row 2 \(line 3\): it has 1 cells, the header has 2"),
        ("a.csv", "text,label\na,b,1\n", r"row 1 \(line 2\): it has 3 cells, the header has 2"),
        ("a.csv", 'text,label\na,1\n"b,2\n', r"a\.csv, line 3: not valid CSV"),
        ("a.csv", "text,label,text\na,1,b\n", "two columns have the same name"),
        ("a.csv", "text,label\n", r"a\.csv holds no rows"),
        ("a.csv", "", r"a\.csv holds no rows"),
        ("a.csv", "text,score\na,0.5\nb,inf\n", r"row 2 \(line 3\): the target is inf"),
        ("a.csv", "text,score\na,0.5\nb,nan\n", r"row 2 \(line 3\): the label is missing"),
        ("a.csv", b"text,label\na,1\n\xff,2\n", r"a\.csv, line 3: not UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"\n', r"a\.jsonl, line 2: not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n\n["b"]\n', r"a\.jsonl, line 3: not an object"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, line 1: not valid JSON"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": null}\n',
            r"row 2 \(line 2\): the text in column 'text' is missing",
        ),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": 5}\n',
            r"row 2 \(line 2\): the text in column 'text' is of type int",
        ),
        ("a.jsonl", '{"text": "\\ud800"}\n', r"row 1 \(line 1\): .* half a surrogate pair"),
        ("a.jsonl", '{"text": "a", "label": NaN}\n', r"row 1 \(line 1\): the label is missing"),
        ("a.jsonl", "\n \n", r"a\.jsonl holds no rows"),
        ("a.json", '[{"text": "a"},\n {"text" "b"}]', r"a\.json, line 2: not valid JSON"),
        ("a.json", '[{"text": "a"}, 3]', r"a\.json, row 2: not an object"),
        ("a.json", "[]", r"a\.json holds no rows"),
        ("a.parquet", "text,label\n", r"a\.parquet cannot be read as Parquet"),
        ("a.xlsx", "", r"files ending in '\.xlsx' are not read; there is \.csv, \.tsv, \.jsonl"),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", ["text", "pair", "label"])
def test_a_named_column_that_is_missing(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "rows.jsonl", FILMS)
    with pytest.raises(InputError, match=r"rows\.jsonl: no column 'mood'; it has text, label"):
        read(path, **{column: "mood"})


def test_tsv_quotes_are_ordinary_signs(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('sentence\tlabel\n" he said .\t1\nhe said "\t0\n')
    assert read(path).texts == ['" he said .', 'he said "']


def test_odd_but_valid_files(tmp_path: Path) -> None:
    mark = tmp_path / "mark.csv"
    mark.write_bytes(b"\xef\xbb\xbftext,label\r\na,1\r\nb,0\r\n")
    assert read(mark).labels == [1, 0]
    lines = tmp_path / "lines.json"  # one object per line under .json, a line separator inside a text
    lines.write_text('{"text": "a\u2028b"}\n{"text": "c"}', encoding="utf-8")
    assert read(lines).texts == ["a\u2028b", "c"]


def test_a_folder_gives_the_part_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", FILMS)
    write(tmp_path / "test.jsonl", [{"text": "c"}])
    assert read(tmp_path).texts == ["good", "bad", "fine"]
    assert read(str(tmp_path), split="test").texts == ["c"]
    with pytest.raises(InputError, match=r"no file named 'validation'; it has test\.jsonl, train\.csv"):
        read(tmp_path, split="validation")
    write(tmp_path / "train.jsonl", FILMS)
    with pytest.raises(InputError, match="more than one file named 'train'"):
        read(tmp_path)


def test_a_limit_keeps_a_sample_that_is_always_the_same(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": int(i >= 500)} for i in range(1000)]
    path = write(tmp_path / "sorted.jsonl", rows)
    table = read(path, limit=100)
    assert len(table) == 100
    assert 25 < sum(table.labels or []) < 75  # both classes, although the file is sorted by label
    assert table.texts == read(path, limit=100).texts
    assert table.texts == sorted(table.texts, key=lambda text: int(str(text).split()[1]))
    assert len(read(path, limit=5000)) == 1000
    with pytest.raises(InputError, match="the limit is 0"):
        read(path, limit=0)


def test_built_in_data_is_read_by_name() -> None:
    assert len(read("builtin:trec")) == 5380
    assert read("builtin:trec[test]").texts == read("builtin:trec", split="test").texts
    assert len(read("builtin:vader-tweets", limit=7, task="regression")) == 7
    assert read("builtin:trec", labelled=False).labels is None


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("builtin:trec[test]", {"split": "train"}, "one part only"),
        ("builtin:trec[", {}, "write built-in data as builtin:NAME"),
        ("builtin:none", {}, "no built-in data 'none'"),
        ("builtin:trec", {"text": "question"}, "has its own columns"),
        ("builtin:trec", {"task": "regression"}, "not for regression"),
        ("builtin:boolq[test]", {"labelled": True}, "has no labels"),
    ],
)
def test_wrong_use_of_built_in_data(source: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(source, **options)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(labels: list, feature: Any, split: str | None = None) -> Path:
        features = datasets.Features({"text": datasets.Value("string"), "label": feature})
        texts = [f"text {i}" for i in range(len(labels))]
        data = datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)
        (datasets.DatasetDict({split: data}) if split else data).save_to_disk(str(tmp_path / "saved"))
        return tmp_path / "saved"

    return save


def test_a_saved_data_set_brings_its_class_names(saved: Callable[..., Path]) -> None:
    table = read(saved([2, 0], datasets.ClassLabel(names=["no", "maybe", "yes"])))
    assert (table.texts, table.labels) == (["text 0", "text 1"], [2, 0])
    assert table.label_names == ["no", "maybe", "yes"]


def test_a_saved_data_set_with_label_sets(saved: Callable[..., Path]) -> None:
    table = read(saved([[2, 0], []], [datasets.ClassLabel(names=["a", "b", "c"])], "train"))
    assert table.kind == "multi_label_classification"
    assert (table.labels, table.label_names) == ([[1, 0, 1], [0, 0, 0]], ["a", "b", "c"])


def test_hidden_labels_of_a_test_part_are_no_labels(saved: Callable[..., Path]) -> None:
    path = saved([-1, -1], datasets.ClassLabel(names=["a", "b"]), "test")
    assert read(path, split="test").labels is None
    with pytest.raises(InputError, match="every label is -1"):
        read(path, split="test", labelled=True)
    with pytest.raises(InputError, match="has no part 'train'; it has test"):
        read(path)


def test_parquet_brings_its_class_names(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    data.to_parquet(str(tmp_path / "rows.parquet"))
    assert read(tmp_path / "rows.parquet").label_names == ["n", "p"]


def test_any_other_name_is_a_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, config: str | None, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_list(FILMS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read("owner/glue:sst2", split="validation").labels == [1, 0, 1]
    assert read("films").name == "films"
    assert asked == [("owner/glue", "sst2", "validation"), ("films", None, "train")]


def test_a_hub_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ConnectionError("cannot reach it\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError, match=r"^films: no file or folder here, and not .*: cannot reach it$"):
        read("films")


@pytest.mark.parametrize(
    "source", ["no/such/folder", "./films", "films.csv", "a film we liked", "", "x" * 5000 + "/"]
)
def test_a_path_that_is_not_there_never_asks_the_hub(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(InputError, match="there is no such file or folder"):
        read(source)


def test_a_single_file_has_no_parts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one file without parts"):
        read(write(tmp_path / "rows.csv", FILMS), split="test")


def test_plain_text_has_a_row_for_each_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one line\n\n  another, with a comma \n", encoding="utf-8")
    table = read(path)
    assert table.texts == ["one line", "another, with a comma"]
    assert table.labels is None
    with pytest.raises(InputError, match="no label column"):
        read(path, labelled=True)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_cell_may_hold_a_book(tmp_path: Path, ending: str) -> None:
    book, mark = "word " * 40_000, {"csv": ",", "tsv": "\t"}[ending]
    path, most = tmp_path / f"books.{ending}", csv.field_size_limit()
    path.write_text(f"text{mark}label\n{book}{mark}good\nshort{mark}bad\n")
    assert read(str(path)).texts == [book, "short"]
    assert csv.field_size_limit() == most, "for others all stays as it was"
