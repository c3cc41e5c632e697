"""Parts share no text, have the promised size, and do not depend on the order of the rows."""

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lessen.data.splits import split, without, without_contained, without_keys
from lessen.data.table import Table, Text, keys_of, row_key, words
from lessen.errors import InputError

PHRASES = st.lists(st.sampled_from(["a", "b", "c", "."]), min_size=1, max_size=5).map(" ".join)
TEXTS = PHRASES | st.tuples(PHRASES, PHRASES)


def table(texts: list[Text]) -> Table:
    return Table("data", texts, [float(i) for i in range(len(texts))], "regression", [])


def keys(part: Table) -> set[str]:
    return {row_key(text) for text in part.texts}


@settings(deadline=None)  # the machine may be busy
@given(
    st.integers(3, 200), st.lists(st.integers(1, 20), min_size=1, max_size=4), st.booleans(), st.integers()
)
def test_sizes_are_exact(rows: int, weights: list[int], all_of_it: bool, seed: int) -> None:
    whole = sum(weights) + (0 if all_of_it else 5)
    shares = {f"part{i}": weight / whole for i, weight in enumerate(weights)}
    assume(all(rows * weight >= whole for weight in weights))
    parts = split(table([f"text {i}" for i in range(rows)]), shares, seed)
    for weight, part in zip(weights, parts.values(), strict=True):
        assert abs(len(part) - Fraction(rows * weight, whole)) < 1
    total = sum(map(len, parts.values()))
    assert total == rows if all_of_it else abs(total - Fraction(rows * sum(weights), whole)) <= len(parts)


COPIES = st.tuples(st.sampled_from(["text {}", " TEXT  {}", "other {}"]), st.integers(0, 30))


@settings(deadline=None)  # the machine may be busy
@given(st.lists(COPIES, min_size=20, max_size=80), st.integers(0, 5))
def test_parts_share_no_text_and_lose_none(written: list[tuple[str, int]], seed: int) -> None:
    texts: list[Text] = [form.format(number) for form, number in written]
    data = table(texts)
    assume(len(keys(data)) >= 10)
    parts = split(data, {"train": 0.5, "validation": 0.25, "test": 0.25}, seed)
    assert not keys(parts["train"]) & keys(parts["validation"])
    assert not keys(parts["train"]) & keys(parts["test"])
    assert not keys(parts["validation"]) & keys(parts["test"])
    rows = [int(label) for part in parts.values() for label in part.labels or []]
    assert sorted(rows) == list(range(len(data)))
    for part in parts.values():
        assert part.texts == [texts[int(label)] for label in part.labels or []]
        assert part.labels == sorted(part.labels or [])


def test_copies_do_not_spoil_the_sizes_while_single_texts_can_fill_up() -> None:
    texts: list[Text] = (
        [f"text {i}" for i in range(60)] + ["copy"] * 20 + ["twice", "Twice "] * 5 + ["a b", "A  B"] * 5
    )
    for seed in range(20):
        parts = split(table(texts), {"a": 0.6, "b": 0.2, "c": 0.2}, seed)
        assert [len(part) for part in parts.values()] == [60, 20, 20]


def test_every_text_has_the_same_chance_for_a_part() -> None:
    # 400 draws of 40 in 100: within 5 standard deviations of sqrt(0.24 / 400) = 0.0245.
    data = table([f"text {i // 2 if i < 40 else i}" for i in range(100)])
    times = [0] * 100
    for seed in range(400):
        for row in split(data, {"a": 0.4, "b": 0.6}, seed)["a"].labels or []:
            times[int(row)] += 1
    assert all(abs(count / 400 - 0.4) < 0.1225 for count in times)


@settings(deadline=None)  # the machine may be busy
@given(st.permutations(range(40)), st.integers(0, 3))
def test_parts_do_not_depend_on_the_order_of_rows(order: list[int], seed: int) -> None:
    data = table([f"text {i // 2}" for i in range(40)])
    shares = {"train": 0.7, "test": 0.3}
    first, second = split(data, shares, seed), split(data.take(order), shares, seed)
    assert all(keys(first[part]) == keys(second[part]) for part in shares)


def test_the_seed_changes_the_parts_and_the_machine_does_not() -> None:
    data = table([f"text {i}" for i in range(20)])
    one, other = (split(data, {"test": 0.25}, seed)["test"] for seed in (0, 1))
    assert one.labels == [1.0, 10.0, 14.0, 16.0, 19.0]
    assert other.labels != one.labels
    assert one.name == "data (test)"


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 0.7, "b": 0.4}, "the shares of a, b add up to 1.1"),
        ({"a": 0.0, "b": 0.4}, "the share of 'a' is 0.0"),
        ({"a": float("nan")}, "the share of 'a' is nan"),
        ({}, "no parts"),
        ({"a": 0.9, "b": 0.1}, "data: 4 rows are too few, 'b' would get none"),
    ],
)
def test_impossible_shares_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(table(["a", "b", "c", "d"]), shares, seed=0)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(TEXTS, max_size=12), st.lists(TEXTS, max_size=12))
def test_without_drops_what_the_others_say(texts: list[Text], others: list[Text]) -> None:
    left, dropped = without(table(texts), [table(others[:6]), table(others[6:])])
    taken = keys(table(others))
    assert left.labels == [float(i) for i, text in enumerate(texts) if row_key(text) not in taken]
    assert dropped == len(texts) - len(left)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(TEXTS, max_size=12), st.lists(TEXTS, max_size=8))
def test_without_contained_equals_a_search_in_every_text(texts: list[Text], others: list[Text]) -> None:
    held_out = [part for text in others for part in ((text,) if isinstance(text, str) else text)]
    haystacks = [f" {' '.join(words(part))} " for part in held_out]

    def inside(part: str) -> bool:
        return any(f" {' '.join(words(part))} " in haystack for haystack in haystacks)

    kept = [i for i, t in enumerate(texts) if not all(map(inside, (t,) if isinstance(t, str) else t))]
    left, dropped = without_contained(table(texts), [table(others[:4]), table(others[4:])])
    assert left.labels == [float(i) for i in kept]
    assert dropped == len(texts) - len(kept)


def test_without_contained_looks_at_whole_words_in_one_text() -> None:
    phrases = table(["Charming Journey", "charm", "journey . it", "n't work", "it's", "", "journey it"])
    others = table(["It 's a charming journey .", "it doesn't work"])
    left, dropped = without_contained(phrases, [others])
    assert left.texts == ["charm", "journey . it", "", "journey it"]
    assert dropped == 3


def test_a_pair_is_known_as_the_document_it_makes_too() -> None:
    pair, document = ("Is it so?", "It is."), "Is it so?\nIt is."
    assert keys_of(pair) > {row_key(pair)}
    for known, asked in ((pair, document), (document, pair), (pair, pair)):
        table = Table("t", [asked, "another"], None, None, [])
        rest, dropped = without_keys(table, keys_of(known))
        assert (rest.texts, dropped) == (["another"], 1)
