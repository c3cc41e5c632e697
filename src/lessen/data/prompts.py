"""Tasks as text to text: a prompt made of a row, and what is to be written after it (T5, Flan).

An answer for each class; a number, as T5 writes those of STS-B (Raffel et al. 2020, 2.4); or a sentence. How
a task is put into words changes how well it is done, so each named task has several ways.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lessen.data.packaged import TREC_CLASSES
from lessen.data.table import Table, Text, listed
from lessen.errors import InputError

FIELDS = ("text", "pair")
"""What a prompt may name in braces."""


@dataclass(frozen=True)
class Template:
    """One way to ask.

    Attributes:
        prompt: With `{text}`, and `{pair}` for the second text of a pair.
        answers: One for each label; None: the labels' names, or numbers where labels are numbers.
        labels: Names of the labels that have these answers, in the same order; empty: the answers are their
            names.
        writes: What is to be written: an `answer`, the label as a `number` (`number_text`), or the
            `first sentence` of the text, as a summary; that one needs no labels.
    """

    prompt: str
    answers: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    writes: Literal["answer", "number", "first sentence"] = "answer"

    @property
    def names(self) -> list[str]:
        """What stands in braces, as often as it does."""
        return [field for _, field, _, _ in string.Formatter().parse(self.prompt) if field is not None]

    def filled(self, text: Text) -> str:
        """The prompt of one row."""
        first, second = (text, "") if isinstance(text, str) else text
        return self.prompt.format(text=first, pair=second)


SIGNS = ("negative", "positive")
TRUTH = ("False", "True")
SAMENESS = ("not_equivalent", "equivalent")
QUESTIONS = ("abbreviation", "description", "thing", "person", "place", "number")
CLASSES = tuple(TREC_CLASSES)

TEMPLATES: dict[str, tuple[Template, ...]] = {
    "sentiment": (
        Template("sentiment: {text}", SIGNS, SIGNS),
        Template("Is this review negative or positive? {text}", SIGNS, SIGNS),
        Template("{text} Did they like it?", ("no", "yes"), SIGNS),
    ),
    "question": (
        Template("question: {text}", QUESTIONS, CLASSES),
        Template("What does this ask for? {text}", QUESTIONS, CLASSES),
    ),
    "yes-no": (
        Template("question: {text} passage: {pair}", ("no", "yes"), TRUTH),
        Template("{pair} {text}", ("false", "true"), TRUTH),
    ),
    "paraphrase": (
        Template("first: {text} second: {pair}", ("different", "same"), SAMENESS),
        Template("{text} Does that mean: {pair}", ("no", "yes"), SAMENESS),
    ),
    "score": (
        Template("score: {text}", writes="number"),
        Template("{text} Which score has this?", writes="number"),
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
"""Ways to ask, by task; labels as in movie-reviews, trec, boolq (all built in) and MRPC. A `score` is any
number of one text, a `similarity` one of a pair, as in STS-B."""

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
        answers: Those there are.
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
        answers: Each as `LABEL=ANSWER`, or alone for labels 0, 1, and so on, or of its own name. Those of a
            named task are its own answers, or the labels it knows.

    Raises:
        InputError: When it is neither, or names another field or how to write one; or when answers are only
            in part for named labels, or not those of a named task.
    """
    labels, words = _answers_given(answers)
    if asked in TEMPLATES:
        ways = TEMPLATES[asked]
        return ways if words is None else tuple(_chosen(way, asked, labels, words) for way in ways)
    try:
        named = [part[1:] for part in string.Formatter().parse(asked) if part[1] is not None]
    except ValueError as error:
        raise InputError(f"prompt {asked!r}: {error}") from None
    for field, form, conversion in named:
        if field not in FIELDS:
            raise InputError(f"prompt {asked!r}: {{{field}}} is not known; it can name {{text}} and {{pair}}")
        if form or conversion:
            raise InputError(f"prompt {asked!r}: write {{{field}}} without ! or : before its closing brace")
    if "text" not in [field for field, _, _ in named]:
        raise InputError(f"prompt {asked!r} has no {{text}}, and is none of {', '.join(TEMPLATES)}")
    return (Template(asked, words, labels),)


def _answers_given(answers: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """The labels that were named, and their answers."""
    if answers is None:
        return (), None
    named = [each for each in answers if "=" in each]
    if not named:
        return (), tuple(each.strip() for each in answers)
    if len(named) < len(answers):
        raise InputError(f"answers {','.join(answers)}: write LABEL=ANSWER for all of them, or for none")
    pairs = [each.rpartition("=") for each in answers]
    return tuple(label.strip() for label, _, _ in pairs), tuple(answer.strip() for _, _, answer in pairs)


def _chosen(way: Template, task: str, labels: tuple[str, ...], words: tuple[str, ...]) -> Template:
    """A way of a named task whose answers are for labels it does not know, or in another order."""
    own = TEMPLATES[task][0]
    if own.answers is None or way.answers is None:
        raise InputError(f"prompt {task!r} has no answers to choose from; leave them away")
    known = {name.casefold(): place for each in (own.labels, own.answers) for place, name in enumerate(each)}
    if unknown := [word for word in words if word.casefold() not in known]:
        raise InputError(
            f"prompt {task!r} has answers of its own: {', '.join(own.answers)}, not {unknown[0]}; give a "
            "text with {text} to use others"
        )
    places = [known[word.casefold()] for word in words]
    return replace(way, answers=tuple(way.answers[place] for place in places), labels=labels or words)


def for_rows(ways: Sequence[Template], table: Table) -> tuple[Template, ...]:
    """The ways as these rows need them: without answers, labels that are numbers are written as such."""
    if table.kind != "regression":
        return tuple(ways)
    return tuple(
        replace(way, writes="number") if way.writes == "answer" and way.answers is None else way
        for way in ways
    )


def task_of(ways: Sequence[Template]) -> str | None:
    """What kind of labels these ways need, as `reading.read` calls it; None: what is there."""
    if ways[0].writes == "answer":
        return None if ways[0].answers is None else "classification"
    return {"number": "regression"}.get(ways[0].writes)


def needs_labels(ways: Sequence[Template]) -> bool:
    """Whether what is to be written stands in the labels, not in the text."""
    return ways[0].writes != "first sentence"


def number_text(value: float) -> str:
    """A number as it is to be written: rounded to a multiple of `STEP`."""
    return f"{round(value / STEP) * STEP:.1f}"


def number_of(text: str) -> float | None:
    """The number a text says and nothing else; None where it says none, or more than one.

    A comma before three digits, as in 1,000, may part thousands or what is whole: nobody can tell.
    """
    found = NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, whole, parts = found.groups()
    if "," in text and len(parts) == 3:
        return None
    return float(f"{sign}{whole}.{parts or 0}")


def first_sentence(text: str) -> str:
    """A text up to the first full stop, exclamation or question mark before a space; all of it without."""
    found = SENTENCE.match(text)
    return " ".join((found[1] if found else text).split())


def prompted(table: Table, template: Template) -> Prompted:
    """Put the rows of a table into words.

    Raises:
        InputError: When the table's labels are not what is to be written, it is not clear which answer a
            label has, two are the same, or texts are no pairs where the prompt needs them.
    """
    pairs = any(not isinstance(text, str) for text in table.texts)
    if pairs != ("pair" in template.names):
        has = "has pairs" if pairs else "has single texts"
        raise InputError(f"{table.name} {has}; the prompt {template.prompt!r} does not")
    prompts = [template.filled(text) for text in table.texts]
    if template.writes == "first sentence":
        parts = (text if isinstance(text, str) else text[0] for text in table.texts)
        return Prompted(prompts, [], None, [first_sentence(text) for text in parts])
    if template.writes == "number":
        if table.kind not in (None, "regression"):
            raise InputError(f"{table.name}: numbers are for rows with one number each, not for {table.kind}")
        targets = None if table.labels is None else [number_text(label) for label in table.labels]
        return Prompted(prompts, [], table.labels, targets)
    answers = _answers(table, template)
    if table.labels is None:
        return Prompted(prompts, answers, None, None)
    places = answers_of_labels(table, template)
    labels = [places[label] for label in table.labels]
    return Prompted(prompts, answers, labels, [answers[place] for place in labels])


def _answers(table: Table, template: Template) -> list[str]:
    """The answers there are."""
    if table.kind not in (None, "single_label_classification"):
        raise InputError(f"{table.name}: answers are for rows with one class each, not for {table.kind}")
    answers = list(template.answers or table.label_names)
    if len(set(answers)) < max(2, len(answers)):
        raise InputError(f"answers {', '.join(answers)}: there must be at least two, all different")
    return answers


def answers_of_labels(table: Table, template: Template) -> list[int]:
    """For each label of a table with classes, which of the answers is its.

    By name where the template knows the names, whatever their case; by number where labels are 0, 1, and so
    on. Anything else is refused: the order of names in a file says nothing.

    Raises:
        InputError: When it is not clear.
    """
    names, answers = table.label_names, template.answers
    if answers is None:
        return list(range(len(names)))
    place = {name.casefold(): number for number, name in enumerate(template.labels or answers)}
    folded = [name.casefold() for name in names]
    if len(set(folded)) == len(folded) and set(folded) <= place.keys():
        return [place[name] for name in folded]
    if names != [str(number) for number in range(len(names))]:
        asked = ",".join(f"{name}=..." for name in names[:2]) + (",..." if len(names) > 2 else "")
        raise InputError(
            f"{table.name} has labels {listed(names)}: say which has which of the answers "
            f"{', '.join(answers)} with --answers '{asked}'"
        )
    if len(answers) != len(names):
        raise InputError(
            f"{table.name} has labels {listed(names)}; {len(answers)} answers are given: {', '.join(answers)}"
        )
    return list(range(len(names)))


def labels_in_words(table: Table, ways: Sequence[Template]) -> list[str]:
    """Which label is answered how, a line for each set of answers; none where answers are no classes."""
    lines: list[str] = []
    for way in ways:
        if way.writes == "answer" and table.labels is not None:
            answers, places = _answers(table, way), answers_of_labels(table, way)
            pairs = zip(table.label_names, places, strict=True)
            line = "labels and their answers: " + ", ".join(f"{name} -> {answers[at]}" for name, at in pairs)
            lines += [line] if line not in lines else []
    return lines
