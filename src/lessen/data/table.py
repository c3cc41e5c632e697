"""The one form data has after reading: texts, labels as numbers, and what the numbers mean."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lessen.errors import InputError

Text = str | tuple[str, str]
"""One input: a text, or a pair of texts."""

Kind = Literal["single_label_classification", "multi_label_classification", "regression"]

KINDS: dict[str, Kind] = {
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
"""The words a user writes for a task, and the names transformers gives them."""


@dataclass(frozen=True)
class Table:
    """Texts with their labels.

    Attributes:
        name: What the user called the data.
        texts: Texts, or pairs of texts.
        labels: For each text a class index into `label_names`, a 0/1 vector over them (multi-label) or a
            float (regression); None when the data has no labels.
        kind: The task the labels are for; None when there are none.
        label_names: The classes in order; empty for regression and without labels.
    """

    name: str
    texts: list[Text]
    labels: list[Any] | None
    kind: Kind | None
    label_names: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def label_range(self) -> float:
        """Regression: the spread of the labels, of which errors are shares; else 1."""
        if self.kind != "regression" or not self.labels:
            return 1.0
        return float(max(self.labels) - min(self.labels)) or 1.0

    def digest(self) -> str:
        """SHA-256 of texts and labels, in their order."""
        content = hashlib.sha256(json.dumps([self.texts, self.label_names], ensure_ascii=False).encode())
        content.update(repr(self.labels).encode())
        return content.hexdigest()

    def take(self, indices: Sequence[int]) -> Table:
        """The rows at `indices` (0-based), in that order."""
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        return replace(self, texts=[self.texts[i] for i in indices], labels=labels)

    def with_labels_of(self, names: Sequence[str]) -> Table:
        """The same rows with labels numbered as a trained model numbers them; regression stays as it is.

        Raises:
            InputError: When a row has a label that is not among `names`.
        """
        if self.labels is None or self.kind == "regression":
            return self
        place = {name: index for index, name in enumerate(names)}
        labels: list[Any] = []
        for row, label in enumerate(self.labels):
            multi = isinstance(label, list)
            on = [i for i, bit in enumerate(label) if bit] if multi else [label]
            used = [self.label_names[i] for i in on]
            for name in used:
                if name not in place:
                    raise InputError(
                        f"{self.name}, row {row + 1}: the model was not trained on label {name!r}; "
                        f"it knows {listed(names)}"
                    )
            here = {place[name] for name in used}
            labels.append([int(i in here) for i in range(len(names))] if multi else here.pop())
        return replace(self, labels=labels, label_names=list(names))


_ONE_SIGN: dict[int, str | None] = {ord(sign): "'" for sign in '"`\u00b4\u2018\u2019\u201c\u201d'}
_ONE_SIGN |= {ord("["): "(", ord("{"): "(", ord("]"): ")", ord("}"): ")", ord("\\"): None}
_ONE_SIGN |= dict.fromkeys((0x2013, 0x2014, 0x96, 0x97), "--") | {0x2026: "...", 0x85: "..."}
_PENN = {"-lrb-": "(", "-rrb-": ")", "n't": " n't", "cannot": "can not"}
_QUOTES, _SIGN = re.compile("''+"), re.compile(r"[^\w\s]")


def words(text: str) -> list[str]:
    """The words and punctuation signs of a text, equal for tokenized and plain spelling.

    Case and spacing do not count; Penn Treebank spellings (``does n't``, ``-lrb-``, quotes of two signs) and
    the many quotes, brackets and dashes are brought to one form, since public data sets mix them.
    """
    text = unicodedata.normalize("NFKC", text.translate(_ONE_SIGN)).lower()
    text = _QUOTES.sub("'", text)
    for written, one_form in _PENN.items():
        text = text.replace(written, one_form)
    return _SIGN.sub(r" \g<0> ", text).split()


def row_key(text: Text) -> str:
    """A stable 64-bit hash (16 hex digits) of what a text or pair says; see `words` for what is ignored.

    The same on every machine and in every run: hashes in a certificate can be compared with those of other
    data.
    """
    parts = (text,) if isinstance(text, str) else text
    said = "\n".join(" ".join(words(part)) for part in parts)
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def keys_of(text: Text) -> set[str]:
    """All hashes one text is known by: a pair's own, and that of the document its two texts make together."""
    return {row_key(text)} if isinstance(text, str) else {row_key(text), row_key("\n".join(text))}


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for an error message, the rest counted when there are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
