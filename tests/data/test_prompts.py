"""Rows put into words: every named task has several ways, and what does not fit is refused by name."""

import pytest

from lessen.data.prompts import TEMPLATES, Template, prompted, templates_of
from lessen.data.table import Table
from lessen.errors import InputError

SINGLE = Table("reviews", ["a {fine} film", "dull"], [1, 0], "single_label_classification", ["0", "1"])
PAIRS = Table("pairs", [("a", "b"), ("c", "d")], [0, 1], "single_label_classification", ["0", "1"])


@pytest.mark.parametrize("task", sorted(TEMPLATES))
def test_each_task_has_ways_that_differ(task: str) -> None:
    ways = templates_of(task)
    assert len({way.prompt for way in ways}) == len(ways) >= 2
    for way in ways:
        assert way.answers is not None
        assert len(set(way.answers)) == len(way.answers)
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
