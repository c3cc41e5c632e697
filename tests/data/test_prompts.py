"""Rows put into words: every named task has several ways, and what does not fit is refused by name."""

import pytest

from lessen.data.prompts import (
    TEMPLATES,
    Template,
    first_sentence,
    number_of,
    number_text,
    prompted,
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
        assert len(set(way.answers or ())) == len(way.answers or ())
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
    assert [number_of(text) for text in ("3", "3.", "three", "", "3.8 4", "- 1 . 5", "2,4")] == [
        3.0, None, None, None, None, -1.5, 2.4,
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
