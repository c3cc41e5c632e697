"""Labels become numbers without losing which class they mean; keys ignore spelling and nothing else."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lessen.data.labels import code_labels
from lessen.data.table import Table, row_key, words
from lessen.errors import InputError


def where(row: int) -> str:
    return f"file, row {row + 1}"


TOKENS = st.lists(st.sampled_from(["it", "good", "naïve", "Film", ",", ".", "!", "(", "5"]), min_size=1)


def plain(tokens: list[str]) -> str:
    """As people write: no space beside punctuation."""
    text = ""
    for token in tokens:
        text += " " + token if text and text[-1].isalnum() and token.isalnum() else token
    return text


@settings(deadline=None)  # the machine may be busy
@given(TOKENS, st.sampled_from([" ", "  ", "\t", " \n"]))
def test_row_key_ignores_case_and_spacing(tokens: list[str], space: str) -> None:
    assert row_key(space.join(tokens).upper() + space) == row_key(plain(tokens))


@pytest.mark.parametrize(
    ("tokenized", "written"),
    [
        ("it 's good .", "it's good."),
        ("it is n't bad", "it isn't bad"),
        ("it is n't bad", "It isn\u2019t bad"),
        ("-lrb- a -rrb- rare film", "[A] rare film"),
        ("the `` conan '' of\\/for", 'the "Conan" of/for'),
        ("you can not", "you cannot"),
        ("wait ... -- what", "wait\u2026 \u2014 what"),
    ],
)
def test_row_key_ignores_treebank_spelling(tokenized: str, written: str) -> None:
    assert row_key(tokenized) == row_key(written)


@settings(deadline=None)  # the machine may be busy
@given(st.text(), st.text())
def test_row_key_tells_different_texts_apart(one: str, two: str) -> None:
    assert (row_key(one) == row_key(two)) == (words(one) == words(two))


@settings(deadline=None)  # the machine may be busy
@given(st.text(), st.text())
def test_row_key_of_a_pair_is_neither_the_joined_text_nor_the_swapped_pair(one: str, two: str) -> None:
    assert row_key((one, two)) != row_key(one + "\n" + two)
    assume(words(one) != words(two))
    assert row_key((one, two)) != row_key((two, one))


def test_row_key_never_changes() -> None:
    # Certificates store these hashes: another value here makes every stored one useless.
    assert row_key("it's good.") == "8c6ac21a10fe8428"
    assert row_key(("Is it?", "It is.")) == "d72c7877b1a30a03"
    assert len(row_key("\ud800")) == 16


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(-30, 30) | st.text(st.characters(codec="utf-8"), min_size=1), min_size=2))
def test_classes_keep_their_meaning(values: list[int | str]) -> None:
    spelled = [str(value).strip() for value in values]
    assume(len(set(spelled)) > 1 and all(spelled))
    kind, labels, names = code_labels(values, "file", where, "classification")
    assert kind == "single_label_classification"
    assert [names[label] for label in labels] == spelled
    assert names == sorted(set(names), key=int if all(isinstance(v, int) for v in values) else str)


@pytest.mark.parametrize(
    ("values", "kind", "labels", "names"),
    [
        ([10, 2, 2], "single_label_classification", [1, 0, 0], ["2", "10"]),
        (["10", "2", " 2"], "single_label_classification", [0, 1, 1], ["10", "2"]),
        ([True, False], "single_label_classification", [1, 0], ["False", "True"]),
        ([1.0, 0.0, 1], "single_label_classification", [1, 0, 1], ["0", "1"]),
        ([5.0, 5.0, 3.8], "regression", [5.0, 5.0, 3.8], []),
        ([5.0, 4.0, 3.0], "regression", [5.0, 4.0, 3.0], []),
        ([5, 4, 2.5], "regression", [5.0, 4.0, 2.5], []),
        ([["b"], ["a", "b"], []], "multi_label_classification", [[0, 1], [1, 1], [0, 0]], ["a", "b"]),
        ([[10], [2]], "multi_label_classification", [[0, 1], [1, 0]], ["2", "10"]),
        ([[0, 1, 1], [1, 0, 0]], "multi_label_classification", [[0, 1, 1], [1, 0, 0]], ["0", "1", "2"]),
    ],
)
def test_the_values_decide_the_task(values: list, kind: str, labels: list, names: list[str]) -> None:
    assert code_labels(values, "file", where) == (kind, labels, names)


@pytest.mark.parametrize(
    ("values", "task", "kind", "labels", "names"),
    [
        ([5.0, 3.8], "classification", "single_label_classification", [1, 0], ["3.8", "5"]),
        ([1, 2, 3], "regression", "regression", [1.0, 2.0, 3.0], []),
        (["1", "2.5"], "regression", "regression", [1.0, 2.5], []),
        (
            ["a; b", "a", "[]"],
            "multi-label",
            "multi_label_classification",
            [[1, 1], [1, 0], [0, 0]],
            ["a", "b"],
        ),
        ([3, 4], "multi_label_classification", "multi_label_classification", [[1, 0], [0, 1]], ["3", "4"]),
    ],
)
def test_the_user_decides_the_task(
    values: list, task: str, kind: str, labels: list, names: list[str]
) -> None:
    assert code_labels(values, "file", where, task) == (kind, labels, names)


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["a", None], None, "file, row 2: the label is missing"),
        (["a", " "], None, "file, row 2: the label is missing"),
        ([0.5, math.nan], None, "file, row 2: the label is missing"),
        ([0.5, 1.5, math.inf], None, "file, row 3: the target is inf"),
        ([1, 2, 10**400], "regression", "file, row 3: the target"),
        (["1", "x"], "regression", "file, row 2: the target 'x' is not a number"),
        ([["a"], "b"], None, "file, row 2: labels mix lists and single values"),
        ([["a"], ["b"]], "classification", "file, row 1: classification takes one label"),
        ([["a"], [None]], None, "file, row 2: 'None' cannot be one of a row's labels"),
        (["a", "[1"], "multi-label", "file, row 2: .* is not a JSON list"),
        ([[], []], None, "file: no row has a label"),
        ([{}, 1], None, "file, row 1: a label cannot be of type dict"),
        (["a", "b"], "ranking", "unknown task 'ranking'; choose classification, multi-label, regression"),
        (
            [f"sentence {i}" for i in range(60)],
            None,
            "file: the label column has 60 different values in 60 rows",
        ),
    ],
)
def test_an_unusable_label_is_named(values: list, task: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        code_labels(values, "file", where, task)
    assert "\n" not in str(error.value)


def test_declared_class_names_are_used_even_for_unseen_classes() -> None:
    assert code_labels([2, 0], "file", where, None, ["no", "maybe", "yes"])[1:] == (
        [2, 0],
        ["no", "maybe", "yes"],
    )
    assert code_labels([[2], []], "file", where, None, ["no", "maybe", "yes"])[1] == [[0, 0, 1], [0, 0, 0]]
    with pytest.raises(InputError, match="row 2: label 3 is none of the 3 declared classes"):
        code_labels([0, 3], "file", where, None, ["no", "maybe", "yes"])


@settings(deadline=None)  # the machine may be busy
@given(st.data())
def test_labels_of_a_model_keep_their_names(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1), min_size=2, unique=True))
    labels = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1))
    vectors = [[int(i == label) for i in range(len(names))] for label in labels]
    known = data.draw(st.permutations([*names, "".join(names) + "?"]))
    texts = ["text"] * len(labels)
    single = Table("file", texts, labels, "single_label_classification", names).with_labels_of(known)
    multi = Table("file", texts, vectors, "multi_label_classification", names).with_labels_of(known)
    assert single.label_names == multi.label_names == known
    assert [known[label] for label in single.labels or []] == [names[label] for label in labels]
    assert [vector.index(1) for vector in multi.labels or []] == single.labels
    assert {len(vector) for vector in multi.labels or []} == {len(known)}


def test_a_label_the_model_never_saw_is_named_with_its_first_row() -> None:
    table = Table("file", ["x"] * 3, [0, 1, 1], "single_label_classification", ["good", "odd"])
    with pytest.raises(
        InputError, match="file, row 2: the model was not trained on label 'odd'; it knows bad, good"
    ):
        table.with_labels_of(["bad", "good"])
    assert table.take([0]).with_labels_of(["bad", "good"]).labels == [1]  # no row has it: no error


def test_numbers_and_no_labels_stay_as_they_are() -> None:
    regression = Table("file", ["x"], [0.5], "regression", [])
    unlabelled = Table("file", ["x"], None, None, [])
    assert regression.with_labels_of(["LABEL_0"]) is regression
    assert unlabelled.with_labels_of(["a"]) is unlabelled
    assert unlabelled.take([0, 0]).texts == ["x", "x"]
    assert len(regression.take([])) == 0
