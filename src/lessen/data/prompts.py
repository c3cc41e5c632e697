"""Classification as text to text: a prompt made of a row, and an answer for each label (T5, Flan).

How a task is put into words changes how well it is done, so each named task has several ways.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

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
    """

    prompt: str
    answers: tuple[str, ...] | None = None


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
}
"""Ways to ask, by task; labels in the order of movie-reviews, trec, boolq (all built in) and MRPC."""


@dataclass(frozen=True)
class Prompted:
    """Rows as texts in and texts out.

    Attributes:
        prompts: One for each row.
        answers: One for each label.
        labels: For each row the place of its answer; None without labels.
    """

    prompts: list[str]
    answers: list[str]
    labels: list[int] | None


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


def prompted(table: Table, template: Template) -> Prompted:
    """Put the rows of a table into words.

    Raises:
        InputError: When the table has no classes, as many answers as labels are not there, two are the same,
            or texts are no pairs where the prompt needs them.
    """
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
    pairs = any(not isinstance(text, str) for text in table.texts)
    if pairs != ("{pair}" in template.prompt):
        has = "has pairs" if pairs else "has single texts"
        raise InputError(f"{table.name} {has}; the prompt {template.prompt!r} does not")
    parts = [(text, "") if isinstance(text, str) else text for text in table.texts]
    prompts = [template.prompt.format(text=text, pair=pair) for text, pair in parts]
    return Prompted(prompts, answers, table.labels)
