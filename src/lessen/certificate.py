"""`certificate.json`: what was certified, on which rows, for which weights; and when it does not apply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lessen.errors import ArtefactError
from lessen.plan import Point, Strict, parse

FILE = "certificate.json"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model")

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class CertifiedPoint(Strict):
    """One bound and the step of the path it allows."""

    name: str
    epsilon: Share
    delta: Annotated[float, Field(gt=0.0, lt=1.0)]
    step: Annotated[int, Field(ge=0)]
    risk: float
    pvalue: Share
    mean_layers: Annotated[float, Field(gt=0.0)]
    early: Share


class Certificate(Strict):
    """Everything needed to check a promise: path, rows, tests, and the weights it is about.

    Attributes:
        loss: `drop`, `disagreement` or `selective`.
        reference: What losses are measured against: `full depth`, or the name of another model.
        delta: Probability that any of the statements is wrong.
        rows: Calibration rows used.
        dropped: Rows left out because training or the making of the path saw their text.
        keys: Hashes of the rows' texts.
        path: Frozen before the rows were looked at, most careful step first.
        path_digest: SHA-256 of the path.
        points: What was certified.
        test: Of the p-values.
        seed: Of the order of rows.
        weights: SHA-256 of `model.safetensors`.
        tokenizer: SHA-256 of the tokenizer's files.
        precision: Type of the weights the rows were run with.
        backend: What ran them.
        versions: Of the libraries.
    """

    version: Literal[1] = 1
    loss: Literal["drop", "disagreement", "selective"]
    reference: str
    delta: Annotated[float, Field(gt=0.0, lt=1.0)]
    rows: Annotated[int, Field(ge=1)]
    dropped: Annotated[int, Field(ge=0)]
    keys: tuple[str, ...]
    path: Annotated[tuple[Point, ...], Field(min_length=1)]
    path_digest: str
    points: tuple[CertifiedPoint, ...]
    test: str
    seed: int
    weights: str
    tokenizer: str
    precision: str
    backend: str
    versions: dict[str, str]

    @property
    def identity(self) -> str:
        """Short hash of the whole certificate, by which Points name it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def sentence(self, point: CertifiedPoint) -> str:
        """What is promised at a Point, in words."""
        against = "its own full depth" if self.reference == "full depth" else self.reference
        bound = f"{100 * point.epsilon:g}%"
        what = {
            "drop": f"on average it loses at most {bound} against {against}",
            "disagreement": f"on average at most {bound} of its answers differ from those of {against}",
            "selective": f"of its early answers, on average at most {bound} differ from those of {against}",
        }[self.loss]
        return (
            f"With {100 * (1 - self.delta):g}% confidence over the draw of {self.rows:,} calibration rows, "
            f"on texts like them, point {point.name!r} keeps this: {what}."
        )


def check_promises(folder: Path, points: Iterable[Point]) -> Certificate | None:
    """The certificate the Points of a folder claim, or None if none of them does.

    Raises:
        ArtefactError: When it is not there, or is about something else.
    """
    claimed = {point.promise.certificate: point for point in points if is_certified(point) and point.promise}
    if not claimed:
        return None
    certificate = read_certificate(folder)
    for identity, point in claimed.items():
        if certificate is None or identity != certificate.identity:
            found = "there is none" if certificate is None else "it is another one"
            raise ArtefactError(
                f"{folder}: point {point.name!r} claims a certificate, but in {FILE} {found}; calibrate again"
            )
    return certificate


def is_certified(point: Point) -> bool:
    """Whether a Point carries a certificate."""
    return point.promise is not None and point.promise.kind == "certified"


def without_certificate(point: Point) -> Point:
    """The same Point, where its certificate does not apply: other weights, another precision."""
    if not is_certified(point) or point.promise is None:
        return point
    promise = point.promise.model_copy(update={"kind": "uncertified", "delta": None, "certificate": None})
    return point.model_copy(update={"promise": promise})


def path_digest(path: Sequence[Point]) -> str:
    """SHA-256 of a path: it may not change once calibration rows have been looked at."""
    content = [point.model_dump(mode="json", exclude_none=True) for point in path]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(*paths: Path) -> str:
    """SHA-256 of the files that exist, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of a model folder's tokenizer files."""
    return file_digest(*(folder / name for name in TOKENIZER_FILES))


def read_certificate(folder: Path) -> Certificate | None:
    """The certificate of a model folder, or None if it has none.

    Raises:
        ArtefactError: When it is damaged, or about other weights, another tokenizer or another path.
    """
    place = folder / FILE
    if not place.exists():
        return None
    try:
        raw = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{place}: cannot be read ({error}); delete it or calibrate again") from None
    certificate = parse(Certificate, raw, str(place))
    for what, found, stated in (
        ("weights", file_digest(folder / "model.safetensors"), certificate.weights),
        ("tokenizer", tokenizer_digest(folder), certificate.tokenizer),
        ("path", path_digest(certificate.path), certificate.path_digest),
    ):
        if found != stated:
            raise ArtefactError(
                f"{place}: it was made for another {what}; calibrate this model again, or delete the file"
            )
    return certificate
