"""Parts of the data, where the model has learned from some of it before."""

import pytest

from lessen.data.table import Table, row_key
from lessen.errors import InputError
from lessen.systems.dividing import divide

SHARES = {"tune": 0.1, "calibration": 0.2, "test": 0.1}


def table(*numbers: int, name: str = "rows") -> Table:
    texts = [f"text {i}" for i in numbers]
    return Table(name, texts, [i % 2 for i in numbers], "single_label_classification", ["0", "1"])


def sizes(parts: dict[str, Table]) -> dict[str, int]:
    return {name: len(part) for name, part in parts.items()}


def keys(*numbers: int) -> frozenset[str]:
    return frozenset(map(row_key, table(*numbers).texts))


def test_what_was_learned_from_is_only_trained_on() -> None:
    said: list[str] = []
    parts = divide(table(*range(200)), {}, SHARES, 0, keys(*range(120), 999), said.append)
    assert sizes(parts) == {"tune": 20, "calibration": 40, "test": 20, "train": 120}
    assert set(parts["train"].texts) == {f"text {i}" for i in range(120)}
    assert said == ["120 of rows the model has learned from: they are trained on again, none judges it"]


def test_new_rows_beyond_the_shares_are_trained_on_too() -> None:
    parts = divide(table(*range(200)), {}, SHARES, 0, keys(*range(100)))
    assert sizes(parts) == {"tune": 20, "calibration": 40, "test": 20, "train": 120}
    assert len(set(parts["train"].texts) & {f"text {i}" for i in range(100)}) == 100


def test_too_few_new_rows_are_shared_in_proportion() -> None:
    parts = divide(table(*range(200)), {}, SHARES, 0, keys(*range(160)))
    assert sizes(parts) == {"tune": 10, "calibration": 20, "test": 10, "train": 160}
    with pytest.raises(InputError, match=r"learned from all but 2 of its 200 rows; give it others .*\(tune"):
        divide(table(*range(200)), {}, SHARES, 0, keys(*range(198)))


def test_files_of_their_own_lose_what_was_learned_from() -> None:
    said: list[str] = []
    named = {"test": table(*range(190, 230), name="more")}
    shares = {"tune": 0.1, "calibration": 0.2}
    parts = divide(table(*range(200)), named, shares, 0, keys(*range(150), 195, 205), said.append)
    assert sizes(parts) == {"test": 38, "tune": 13, "calibration": 27, "train": 150}
    assert not set(parts["train"].texts) & set(named["test"].texts)
    assert said[0] == "2 of more are left out of test: the model has learned from them"
    with pytest.raises(InputError, match="more: the model has learned from all of it; name other data for t"):
        divide(table(*range(200)), named, shares, 0, keys(*range(190, 230)))
