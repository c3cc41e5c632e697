"""`certificate.json`: what was certified, on which rows, for which weights; and when it does not apply."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lessen.artefact import KEPT, read_config, read_json, weights_of_folder, write_text
from lessen.errors import ArtefactError, InputError
from lessen.plan import Point, Precision
from lessen.records import Strict, parse

FILE = "certificate.json"

TOKENIZER_NAMES = ("token", "vocab", "merges", "spiece", "sentencepiece", "spm")
"""A file with one of these in its name belongs to the tokenizer."""

SAID = {
    "weights": "weights have",
    "tokenizer": "tokenizer has",
    "form": "configuration has",
    "path": "path of Points has",
}
"""What of a folder a certificate is about, as messages say it."""

FORM = ("architecture", "shape", "id2label", "problem_type")
"""Fields of `config.json` that answers depend on; `base` is one more, where exits are saved alone."""

SCORES = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "accuracy per label",
    "regression": "closeness (1 minus the error as a share of the label range, at least 0)",
}
"""What a drop is a drop of."""

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
    pvalues: tuple[Share, ...] = ()


class Generation(Strict):
    """What a certificate of a generator is about: prompts, and how they were continued.

    Attributes:
        unit: What was drawn independently: a prompt, with its continuation.
        prompt_tokens: Of a prompt at most: the beginning of a document.
        new_tokens: Of a continuation at most (T).
        block: Tokens that all had to be right, for the loss `block`.
        cache: How later layers get keys and values of tokens that left: `exact`.
        decoding: `greedy`: each token is the likeliest.
        processors: Of logits, between model and choice.
        template: Around the prompt; None: none.
        never_early: Tokens that are not named early, those that end a text.
        most_early: Tokens in a row that were named early, before one went through all layers.
        heads: SHA-256 of the exits' weights.
        base: SHA-256 of the other weights.
    """

    unit: Literal["prompt"] = "prompt"
    prompt_tokens: Annotated[int, Field(ge=1)]
    new_tokens: Annotated[int, Field(ge=1)]
    block: Annotated[int, Field(ge=1)]
    cache: Literal["exact"] = "exact"
    decoding: Literal["greedy"] = "greedy"
    processors: tuple[str, ...] = ()
    template: str | None = None
    never_early: tuple[int, ...] = ()
    most_early: Annotated[int, Field(ge=1)] | None = None
    heads: str
    base: str


class Certificate(Strict):
    """Everything needed to check a promise: path, rows, tests, and the weights it is about.

    Attributes:
        loss: `drop`, `disagreement` or `selective`; of a generator also `block`.
        score: What a drop is a drop of.
        label_range: Regression: spread of the training labels, of which errors are shares.
        reference: What losses are measured against: `full depth`, or the name of another model.
        reference_weights: SHA-256 of the other model's folder contents, if it is one.
        delta: Probability that any of the statements is wrong.
        attempt: 1 for the first calibration on these rows, 2 for the second, ...
        rows: Calibration rows used.
        dropped: Rows left out because training or the making of the path saw their text.
        keys: Hashes of the rows' texts.
        path: Frozen before the rows were looked at, most careful step first.
        path_digest: SHA-256 of the path.
        points: What was certified.
        test: Of the p-values; rows go into it in the order of their hashes.
        weights: SHA-256 of `model.safetensors`.
        tokenizer: SHA-256 of the tokenizer's files.
        form: SHA-256 of the fields of `config.json` that answers depend on.
        answers: SHA-256 of the calibration rows' answers.
        precision: Type of the weights the rows were run with.
        backend: What ran them.
        versions: Of the libraries.
        generation: Of a generator: what is counted, and how it decodes; else None.
    """

    version: Literal[1] = 1
    loss: Literal["drop", "disagreement", "selective", "block"]
    score: str
    label_range: Annotated[float, Field(gt=0.0)] = 1.0
    reference: str
    reference_weights: str | None = None
    delta: Annotated[float, Field(gt=0.0, lt=1.0)]
    attempt: Annotated[int, Field(ge=1)] = 1
    rows: Annotated[int, Field(ge=1)]
    dropped: Annotated[int, Field(ge=0)]
    keys: tuple[str, ...]
    path: Annotated[tuple[Point, ...], Field(min_length=1)]
    path_digest: str
    points: tuple[CertifiedPoint, ...]
    test: str
    weights: str
    tokenizer: str
    form: str
    answers: str
    precision: Precision
    backend: str
    versions: dict[str, str]
    generation: Generation | None = None

    @property
    def identity(self) -> str:
        """Short hash of the whole certificate, by which Points name it."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:16]

    def sentence(self, point: CertifiedPoint) -> str:
        """What is promised at a Point, in words."""
        if self.generation is not None:
            return self._of_prompts(point, self.generation)
        against = "its own full depth" if self.reference == "full depth" else self.reference
        bound = f"{100 * point.epsilon:g}%"
        points = (
            "1 percentage point" if point.epsilon == 0.01 else f"{100 * point.epsilon:g} percentage points"
        )
        what = {
            "drop": f"on average it loses at most {points} of {self.score} against {against}",
            "disagreement": f"on average at most {bound} of its answers differ from those of {against}",
            "selective": f"of its early answers, on average at most {bound} differ from those of {against}",
        }[self.loss]
        confidence = f"{100 * (1 - self.delta):.10g}%"
        numbers = "" if self.precision == "float32" else f" in {self.precision}"
        return (
            f"With {confidence} confidence over the draw of {self.rows:,} calibration texts, "
            f"on texts like them, each counted once, point {point.name!r}{numbers} keeps this: {what}."
        )

    def _of_prompts(self, point: CertifiedPoint, how: Generation) -> str:
        """The wording of the self-supervised exits page, 6.5."""
        what = {
            "disagreement": "share of tokens that leave early and are not the full model's own",
            "selective": "share, among tokens that leave early, of those that are not the full model's own",
            "block": f"share of continuations not the full model's own in each of their first {how.block}",
        }[self.loss]
        if self.loss == "selective":
            what += " (expected number over expected number)"
        return (
            f"Point {point.name!r}: with probability >= {100 * (1 - self.delta):.10g}% over the calibration "
            f"draw of {self.rows:,} prompts, the expected {what}, in greedy continuations of up to "
            f"{how.new_tokens} tokens with an {how.cache} cache in {self.precision}, on prompts exchangeable "
            f"with the calibration set is <= {100 * point.epsilon:g}%."
        )


def repeated(attempt: int) -> str | None:
    """A warning for a calibration that is not the first on its rows; None for the first."""
    if attempt == 1:
        return None
    return (
        f"This is calibration {attempt} on these rows. The confidence is that of a single one decided on "
        "beforehand: trying until something passes voids it."
    )


def check_promises(folder: Path, points: Iterable[Point]) -> Certificate | None:
    """The certificate the Points of a folder claim, or None if none of them does.

    Raises:
        ArtefactError: When it is not there, or is about something else.
    """
    claiming = [point for point in points if is_certified(point)]
    if not claiming:
        return None
    certificate = read_certificate(folder)
    for point in claiming:
        claimed = point.promise.certificate if point.promise else None
        if certificate is None or claimed != certificate.identity:
            found = "there is none" if certificate is None else "it is another one"
            raise ArtefactError(
                f"{folder}: point {point.name!r} claims a certificate, but in {FILE} {found}; calibrate again"
            )
        if not _is_the_one_certified(point, certificate):
            raise ArtefactError(
                f"{folder}: point {point.name!r} is not the one in {FILE}: it was changed; calibrate again"
            )
    return certificate


def _is_the_one_certified(point: Point, certificate: Certificate) -> bool:
    """Whether a Point does what was tested, and promises what was found."""
    promise = point.promise
    for entry in certificate.points:
        if entry.name == point.name and promise is not None and entry.step < len(certificate.path):
            step = certificate.path[entry.step]
            promised = (promise.epsilon, promise.delta, promise.loss)
            does = (point.exits, point.retention, point.token_score, point.precision)
            return promised == (entry.epsilon, entry.delta, certificate.loss) and does == (
                step.exits,
                step.retention,
                step.token_score,
                step.precision,
            )
    return False


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


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of what a folder's answers depend on: `weights`, `tokenizer` and `form`.

    Raises:
        ArtefactError: When it is no model folder.
    """
    config, weights = read_config(folder), [weights_of_folder(folder)]
    tokenizer = sorted(
        path
        for path in folder.iterdir()
        if any(part in path.name for part in TOKENIZER_NAMES) and path.is_file()
    )
    if not weights[0].exists():  # of transformers, in several files
        weights = sorted(path for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind))
    said = {field: config.get(field) for field in FORM}
    if "base" in config:
        said["base"] = config["base"]
    form = json.dumps(said, sort_keys=True)
    return {
        "weights": _digest(weights),
        "tokenizer": _digest(tokenizer),
        "form": hashlib.sha256(form.encode()).hexdigest(),
    }


def one_digest(folder: Path) -> str:
    """The same in one hash."""
    return hashlib.sha256(json.dumps(digests_of(folder), sort_keys=True).encode()).hexdigest()


def check_kept(folder: Path, subject: str) -> None:
    """Refuse a folder whose kept answers are another model's.

    Args:
        folder: Of the model.
        subject: What `one_digest` was when the answers were kept.

    Raises:
        InputError: When it is something else now.
    """
    if one_digest(folder) != subject:
        raise InputError(
            f"{folder / KEPT}: it belongs to other weights, or another tokenizer or form; compress again"
        )


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_certificate(folder: Path, certificate: Certificate) -> None:
    """Write `certificate.json`."""
    write_text(folder / FILE, certificate.model_dump_json(indent=1, exclude_none=True) + "\n")


def read_certificate(folder: Path) -> Certificate | None:
    """The certificate of a model folder, or None if it has none.

    Raises:
        ArtefactError: When it is damaged, or about other weights, another tokenizer or another path.
    """
    place = folder / FILE
    if not place.exists():
        return None
    raw = read_json(place, "delete it or calibrate again")
    certificate = parse(Certificate, raw, str(place))
    found = digests_of(folder) | {"path": path_digest(certificate.path)}
    stated = {
        "weights": certificate.weights,
        "tokenizer": certificate.tokenizer,
        "form": certificate.form,
        "path": certificate.path_digest,
    }
    for what, digest in stated.items():
        if found[what] != digest:
            raise ArtefactError(
                f"{place}: the folder's {SAID[what]} changed since; put back what it was made for, or "
                "calibrate the model as it is"
            )
    return certificate


def keys_of(folder: Path) -> frozenset[str]:
    """Hashes of the rows of a folder's certificate, whatever it is about; none if it cannot be read."""
    try:
        return frozenset(json.loads((folder / FILE).read_text(encoding="utf-8"))["keys"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
