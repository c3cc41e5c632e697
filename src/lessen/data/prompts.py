"""Tasks as text to text: a prompt made of a row, and what is to be written after it (T5, Flan).

An answer for each class; a number, as T5 writes those of STS-B (Raffel et al. 2020, 2.4); or a sentence. How
a task is put into words changes how well it is done, so each named task has several ways.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lessen.data.table import Table
from lessen.errors import InputError

FIELDS = ("text", "pair")
"""What a prompt may name in braces."""


@dataclass(frozen=True)
class Template:
    """One way to ask.

    Attributes:
        prompt: With `{text}`, and `{pair}` for the second text of a pair.
        answers: For each label, in their order; None: the labels' names.
        writes: What is to be written: an `answer`, the label as a `number` (`number_text`), or the
            `first sentence` of the text, as a summary; that one needs no labels.
    """

    prompt: str
    answers: tuple[str, ...] | None = None
    writes: Literal["answer", "number", "first sentence"] = "answer"


SIGNS = ("negative", "positive")
QUESTIONS = ("abbreviation", "description", "thing", "person", "place", "number")

TEMPLATES: dict[str, tuple[Template, ...]] = {
    "sentiment": (
        Template("sentiment: {text}", SIGNS),
        Template("Is this review negative or positive? {text}", SIGNS),
        Template("{text} Did they like it?", ("no", "yes")),
    ),
    "question": (
        Template("question: {text}", QUESTIONS),
        Template("What does this ask for? {text}", QUESTIONS),
    ),
    "yes-no": (
        Template("question: {text} passage: {pair}", ("no", "yes")),
        Template("{pair} {text}", ("false", "true")),
    ),
    "paraphrase": (
        Template("first: {text} second: {pair}", ("different", "same")),
        Template("{text} Does that mean: {pair}", ("no", "yes")),
    ),
    "similarity": (
        Template("first: {text} second: {pair}", writes="number"),
        Template("How near is {text} to {pair} from 0 to 5?", writes="number"),
    ),
    "first-sentence": (
        Template("summarize: {text}", writes="first sentence"),
        Template("{text} In one sentence:", writes="first sentence"),
    ),
}
"""Ways to ask, by task; labels in the order of movie-reviews, trec, boolq (all built in), MRPC and STS-B."""

STEP = 0.2
"""Numbers are written as multiples of it, as T5 does."""

NUMBER = re.compile(r"\s*(-?)\s*(\d+)(?:\s*[.,]\s*(\d+))?\s*")
"""A number, as tokenizers may space it."""

SENTENCE = re.compile(r"\s*(.+?[.!?]+)(?=[\s\"')]|$)", re.DOTALL)


@dataclass(frozen=True)
class Prompted:
    """Rows as texts in and texts out.

    Attributes:
        prompts: One for each row.
        answers: One for each label.
        labels: For each row the place of its answer, or its number; None without labels.
        targets: For each row what is to be written; None without labels.
    """

    prompts: list[str]
    answers: list[str]
    labels: list[Any] | None
    targets: list[str] | None


def templates_of(asked: str, answers: Sequence[str] | None = None) -> tuple[Template, ...]:
    """Named ways to ask, or one given as a text.

    Args:
        asked: A name from `TEMPLATES`, or a prompt with `{text}`.
        answers: For each label, for a prompt; the labels' names if None.

    Raises:
        InputError: When it is neither, names another field, or answers are given to a named task.
    """
    if asked in TEMPLATES:
        if answers is not None:
            raise InputError(
                f"prompt {asked!r} has answers of its own; give a text with {{text}} to use others"
            )
        return TEMPLATES[asked]
    try:
        named = [field for _, field, _, _ in string.Formatter().parse(asked) if field is not None]
    except ValueError as error:
        raise InputError(f"prompt {asked!r}: {error}") from None
    if unknown := [field for field in named if field not in FIELDS]:
        raise InputError(
            f"prompt {asked!r}: {{{unknown[0]}}} is not known; it can name {{text}} and {{pair}}"
        )
    if "text" not in named:
        raise InputError(f"prompt {asked!r} has no {{text}}, and is none of {', '.join(TEMPLATES)}")
    return (Template(asked, None if answers is None else tuple(answers)),)


def task_of(ways: Sequence[Template]) -> str | None:
    """What kind of labels these ways need, as `reading.read` calls it; None: none."""
    return {"answer": "classification", "number": "regression"}.get(ways[0].writes)


def number_text(value: float) -> str:
    """A number as it is to be written: rounded to a multiple of `STEP`."""
    return f"{round(value / STEP) * STEP:.1f}"


def number_of(text: str) -> float | None:
    """The number a text says and nothing else; None where it says none, or more than one."""
    found = NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, whole, parts = found.groups()
    return float(f"{sign}{whole}.{parts or 0}")


def first_sentence(text: str) -> str:
    """A text up to the first full stop, exclamation or question mark before a space; all of it without."""
    found = SENTENCE.match(text)
    return " ".join((found[1] if found else text).split())


def prompted(table: Table, template: Template) -> Prompted:
    """Put the rows of a table into words.

    Raises:
        InputError: When the table's labels are not what is to be written, as many answers as labels are not
            there, two are the same, or texts are no pairs where the prompt needs them.
    """
    pairs = any(not isinstance(text, str) for text in table.texts)
    if pairs != ("{pair}" in template.prompt):
        has = "has pairs" if pairs else "has single texts"
        raise InputError(f"{table.name} {has}; the prompt {template.prompt!r} does not")
    parts = [(text, "") if isinstance(text, str) else text for text in table.texts]
    prompts = [template.prompt.format(text=text, pair=pair) for text, pair in parts]
    if template.writes == "first sentence":
        return Prompted(prompts, [], None, [first_sentence(text) for text, _ in parts])
    if template.writes == "number":
        if table.kind not in (None, "regression"):
            raise InputError(f"{table.name}: numbers are for rows with one number each, not for {table.kind}")
        targets = None if table.labels is None else [number_text(label) for label in table.labels]
        return Prompted(prompts, [], table.labels, targets)
    answers = _answers(table, template)
    targets = None if table.labels is None else [answers[label] for label in table.labels]
    return Prompted(prompts, answers, table.labels, targets)


def _answers(table: Table, template: Template) -> list[str]:
    """The answer of each label, checked against the table."""
    if table.kind not in (None, "single_label_classification"):
        raise InputError(f"{table.name}: answers are for rows with one class each, not for {table.kind}")
    answers = list(template.answers or table.label_names)
    if len(set(answers)) < max(2, len(answers)):
        raise InputError(f"answers {', '.join(answers)}: there must be at least two, all different")
    if table.kind is not None and len(answers) != len(table.label_names):
        raise InputError(
            f"{table.name} has labels {', '.join(table.label_names)}; "
            f"{len(answers)} answers are given: {', '.join(answers)}"
        )
    return answers
