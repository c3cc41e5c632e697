"""Rows put into words: every named task has several ways, and what does not fit is refused by name."""

import pytest

from lessen.data.prompts import (
    TEMPLATES,
    Template,
    first_sentence,
    for_rows,
    labels_in_words,
    number_of,
    number_text,
    prompted,
    task_of,
    templates_of,
)
from lessen.data.table import Table
from lessen.errors import InputError

SINGLE = Table("reviews", ["a {fine} film", "dull"], [1, 0], "single_label_classification", ["0", "1"])
PAIRS = Table("pairs", [("a", "b"), ("c", "d")], [0, 1], "single_label_classification", ["0", "1"])


@pytest.mark.parametrize("task", sorted(TEMPLATES))
def test_each_task_has_ways_that_differ(task: str) -> None:
    ways = templates_of(task)
    assert len({way.prompt for way in ways}) == len(ways) >= 2
    for way in ways:
        assert (way.answers is None) == (way.writes != "answer")
        assert len(set(way.answers or ())) == len(way.answers or ()) == len(way.labels)
        assert "{text}" in way.prompt


def test_rows_become_prompts() -> None:
    """Braces in a text are letters."""
    (way, *_) = templates_of("sentiment")
    made = prompted(SINGLE, way)
    assert made.prompts == ["sentiment: a {fine} film", "sentiment: dull"]
    assert (made.answers, made.labels) == (["negative", "positive"], [1, 0])
    (own,) = templates_of("{pair}: {text}?")
    made = prompted(PAIRS, own)
    assert (made.prompts, made.answers) == (["b: a?", "d: c?"], ["0", "1"])


@pytest.mark.parametrize(
    ("asked", "answers", "named"),
    [
        ("mood", None, r"no \{text\}, and is none of sentiment"),
        ("{text} {mood}", None, r"\{mood\} is not known"),
        ("{text} {", None, "prompt"),
        ("{text!z}", None, r"write \{text\} without !"),
        ("{text:>10d}", None, r"write \{text\} without !"),
        ("{text} {pair:5}", None, r"write \{pair\} without !"),
        ("{text:{pair}}", None, r"write \{text\} without !"),
        ("{text}", ["neg=no", "yes"], "LABEL=ANSWER for all"),
        ("score", ["a", "b"], "no answers to choose from"),
        ("sentiment", ["a", "b"], "answers of its own"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(asked, answers, named) -> None:
    with pytest.raises(InputError, match=named):
        templates_of(asked, answers)


@pytest.mark.parametrize(
    ("table", "template", "named"),
    [
        (SINGLE, Template("{text} {pair}"), "has single texts"),
        (PAIRS, Template("{text}"), "has pairs"),
        (SINGLE, Template("{text}", ("a", "b", "c")), "labels 0, 1; 3 answers"),
        (SINGLE, Template("{text}", ("a", "a")), "all different"),
        (Table("scores", ["a"], [0.5], "regression", []), Template("{text}", ("a", "b")), "regression"),
    ],
)
def test_rows_that_do_not_fit_are_refused(table, template, named) -> None:
    with pytest.raises(InputError, match=named):
        prompted(table, template)


def test_numbers_are_written_in_steps_and_read_back() -> None:
    """Every STS-B label comes back within half a step, however a tokenizer spaces it."""
    for tenth in range(51):
        text = number_text(tenth / 10)
        assert abs(number_of(text) - tenth / 10) <= 0.1 + 1e-9
        assert number_of(text.replace(".", " . ")) == number_of(text) == number_of(f" {text} ")
    assert [number_of(text) for text in ("3", "3.", "three", "", "3.8 4", "- 1 . 5", "2,4", "1,000")] == [
        3.0, None, None, None, None, -1.5, 2.4, None,
    ]  # fmt: skip


def test_labels_become_what_is_to_be_written() -> None:
    stsb = Table("stsb", [("a", "b"), ("c", "d")], [5.0, 3.75], "regression", [])
    for way in templates_of("similarity"):
        made = prompted(stsb, way)
        assert (made.targets, made.labels) == (["5.0", "3.8"], [5.0, 3.75])
        with pytest.raises(InputError, match="numbers are for rows with one number each"):
            prompted(PAIRS, way)
    reviews = Table("reviews", ["Fine film. I saw it\ntwice!", "no end"], None, None, [])
    for way in templates_of("first-sentence"):
        assert prompted(reviews, way).targets == ["Fine film.", "no end"]
    assert prompted(SINGLE, templates_of("sentiment")[0]).targets == ["positive", "negative"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("What?! No.", "What?!"),
        ("At 3.5 million. Cheap.", "At 3.5 million."),
        ("  a\n b. c", "a b."),
    ],
)
def test_a_sentence_ends_before_a_space(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def classes(*names: str) -> Table:
    rows = list(range(len(names)))
    return Table("rows", [f"text {row}" for row in rows], rows, "single_label_classification", list(names))


@pytest.mark.parametrize(
    ("names", "answers", "written"),
    [
        (("0", "1"), None, (["negative", "positive"], ["no", "yes"])),
        (("negative", "positive"), None, (["negative", "positive"], ["no", "yes"])),
        (("Positive", "negative"), None, (["positive", "negative"], ["yes", "no"])),
        (
            ("fresh", "rotten"),
            ["fresh=positive", "rotten=negative"],
            (["positive", "negative"], ["yes", "no"]),
        ),
        (("1", "2"), ["2=Positive", "1=negative"], (["negative", "positive"], ["no", "yes"])),
        (("0", "1"), ["positive", "negative"], (["positive", "negative"], ["yes", "no"])),
    ],
)
def test_labels_have_their_answers_by_name_not_by_place(names, answers, written) -> None:
    first, *_, last = templates_of("sentiment", answers)
    assert (prompted(classes(*names), first).targets, prompted(classes(*names), last).targets) == written


@pytest.mark.parametrize("names", [("fresh", "rotten"), ("1", "2"), ("neg", "pos"), ("Yes", "yes")], ids=str)
@pytest.mark.parametrize("asked", ["sentiment", "{text}"])
def test_labels_nobody_knows_are_refused_and_it_is_said_how_to_name_their_answers(asked, names) -> None:
    (way, *_) = templates_of(asked, None if asked == "sentiment" else ["no", "yes"])
    with pytest.raises(InputError, match=f"labels {names[0]}, {names[1]}: .* --answers '{names[0]}=...,"):
        prompted(classes(*names), way)


def test_built_in_labels_and_some_of_them_are_known() -> None:
    (way, *_) = templates_of("question")
    made = prompted(classes("ABBR", "HUM", "NUM"), way)
    assert made.targets == ["abbreviation", "person", "number"]
    assert made.labels == [0, 3, 5]
    for names in (("False", "True"), ("false", "true")):
        table = Table("pairs", [("a", "b"), ("c", "d")], [0, 1], "single_label_classification", list(names))
        assert [prompted(table, way).targets for way in templates_of("yes-no")] == [
            ["no", "yes"],
            ["false", "true"],
        ]


def test_labels_and_answers_are_told_once_for_each_set() -> None:
    assert labels_in_words(classes("positive", "negative"), templates_of("sentiment")) == [
        "labels and their answers: positive -> positive, negative -> negative",
        "labels and their answers: positive -> yes, negative -> no",
    ]
    assert labels_in_words(Table("texts", ["a"], None, None, []), templates_of("first-sentence")) == []


def test_numbers_are_written_where_labels_are_numbers() -> None:
    """Under a prompt of one's own; with answers they are classes, as the reader of the rows is told."""
    scores = Table("scores", ["a", "b"], [-1.5, 3.9], "regression", [])
    own = templates_of("{text}")
    assert task_of(own) is None
    assert prompted(scores, for_rows(own, scores)[0]).targets == ["-1.6", "4.0"]
    assert for_rows(own, SINGLE) == own
    assert task_of(templates_of("{text}", ["no", "yes"])) == "classification"
    for way in templates_of("score"):
        assert prompted(scores, way).targets == ["-1.6", "4.0"]
