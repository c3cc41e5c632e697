"""Write a model's folder, and upload it: config, weights, tokenizer, card, and what speaks of them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lessen.artefact import (
    AUDITED,
    CONFIG,
    DESCRIBING,
    EXITS,
    KEPT,
    LEARNED,
    PRIVATE,
    read_config,
    replacing_folder,
    weights_of_folder,
    write_json,
)
from lessen.bits.conversion import with_precision
from lessen.card import write_card
from lessen.certificate import FILE as CERTIFICATE
from lessen.certificate import (
    FORM,
    check_promises,
    digests_of,
    one_digest,
    read_certificate,
    without_certificate,
    write_certificate,
)
from lessen.errors import LessenError
from lessen.history import learned_by, remember
from lessen.model.digests import base_digest
from lessen.plan import FEW_BITS, FULL, Base, Point

OF_THE_MAKING = ("plan.json", "training.json", CERTIFICATE, "calibrations.json", KEPT, LEARNED, AUDITED)
"""Files that speak of a model in few bits too, whose report and latencies are its own."""

NOT_OF_A_TOKENIZER = (
    *("is_local", "local_files_only", "name_or_path"),
    *("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"),
)
"""Fields in which transformers notes how a tokenizer was loaded and called; they would change with both."""


def save(model: Any, target: Path, write: Callable[[Path], None]) -> None:
    """Write a model's folder; an old one is replaced when all is written.

    If the weights are still those the model was loaded with, the certificate and the other files about them
    go along; else Points are written uncertified. So too if it was loaded from exits that were saved alone:
    together with their model they are the same weights in another file. Loaded in few bits, a model is what
    the folder's weights become in that precision: a certificate made in it goes along, and what the next is
    made from.

    Args:
        model: With `config`, `tokenizer` and `folder`.
        target: Where to.
        write: Writes config and weights into a folder.

    Raises:
        ArtefactError: When the folder cannot be written; what was there before stays.
    """
    with replacing_folder(target) as fresh:
        write(fresh)
        if model.tokenizer is not None:
            _save_tokenizer(model.tokenizer, fresh)
        if not _bring_certificate(model, fresh):
            plain = [without_certificate(p) for p in model.config.choices().values() if p != FULL]
            points = [p.model_dump(mode="json", exclude_none=True) for p in plain]
            write_json(fresh / CONFIG, model.config.to_diff_dict() | {"points": points})
        write_card(fresh, target.name)


def save_exits(model: Any, target: Path, base: str) -> None:
    """Write the language exits of a generator and its Points, uncertified, without the model they belong to.

    Args:
        model: A generator with language exits, its backbone in the precision `base` is loaded in.
        target: Where to; an old folder is replaced when all is written.
        base: Name of the model; `lessen.load(target)` looks for it there, and knows it by its weights.

    Raises:
        ArtefactError: When the folder cannot be written; what was there before stays.
    """
    place = Path(base).expanduser()
    name = str(place.resolve()) if place.is_dir() else base
    of = Base(model=name, weights=base_digest(model.transformer))
    state = {
        key: value.contiguous() for key, value in model.state_dict().items() if ".language_exits." in key
    }
    plain = [without_certificate(p) for p in model.config.choices().values() if p != FULL]
    points = [p.model_dump(mode="json", exclude_none=True) for p in plain]
    with replacing_folder(target) as fresh:
        save_file(state, fresh / EXITS, metadata={"base": of.weights})
        content = {"base": of.model_dump(), "architectures": [type(model).__name__], "points": points}
        write_json(fresh / CONFIG, model.config.to_diff_dict() | content)
        if model.tokenizer is not None:
            _save_tokenizer(model.tokenizer, fresh)
        write_card(fresh, target.name)


def push(
    model: Any,
    repo_id: str,
    *,
    private: bool | None,
    token: bool | str | None,
    revision: str | None,
    **upload: Any,
) -> str:
    """Upload what `save` writes, but for files that tell of the user's data or folders.

    Args:
        model: As in `save`, with `save_pretrained`.
        repo_id: Made if it is not there.
        private: Of a new repository.
        token: Of the hub.
        revision: Branch to upload to, made if it is not there.
        upload: Passed on to `HfApi.upload_folder`.

    Returns:
        The page of the upload.
    """
    hub = HfApi(token=token)
    repo = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None:
        hub.create_branch(repo, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, repo.split("/")[-1])
        model.save_pretrained(folder)
        return hub.upload_folder(
            repo_id=repo, folder_path=folder, revision=revision, ignore_patterns=list(PRIVATE), **upload
        )


def _bring_certificate(model: Any, fresh: Path) -> bool:
    """Copy what speaks of these weights, if they are unchanged; whether Points may keep their certificate."""
    source = model.folder
    if source is None or not ((source / CONFIG).is_file() and weights_of_folder(source).is_file()):
        _carry_memory(model.origin, fresh)
        return False
    speaking: Sequence[str] = DESCRIBING
    elsewhere = True
    if "base" in read_config(source):
        same = _are_those(model, source, fresh)
    elif digests_of(source) == digests_of(fresh):
        same, elsewhere = True, False
    else:
        same, speaking = _are_rounded(model, source, fresh), OF_THE_MAKING
    if not same:
        _carry_memory(source, fresh)
        return False
    for name in speaking:
        if (source / name).is_file():
            shutil.copyfile(source / name, fresh / name)
    try:
        points = _readdressed(model, source, fresh) if elsewhere else model.config.choices().values()
        holds = check_promises(fresh, points) is not None
    except LessenError:
        holds = False
    if not holds:
        (fresh / CERTIFICATE).unlink(missing_ok=True)
    return holds


def _carry_memory(source: Path | None, fresh: Path) -> None:
    """What a model had learned from before its weights were changed, it has still learned from."""
    if source is not None and (learned := learned_by(source)):
        remember(fresh, learned, learned)


def _are_those(model: Any, source: Path, fresh: Path) -> bool:
    """Whether a whole model is the one exits saved alone name, with those exits and the same tokenizer."""
    config, said = read_config(source), read_config(fresh)
    if config["base"]["weights"] != base_digest(model.transformer):
        return False
    if any(config.get(field) != said.get(field) for field in FORM):
        return False
    state, found = model.state_dict(), load_file(source / EXITS)
    if any(
        state[key].dtype != value.dtype or not torch.equal(state[key], value) for key, value in found.items()
    ):
        return False
    return digests_of(source)["tokenizer"] == digests_of(fresh)["tokenizer"]


def _are_rounded(model: Any, source: Path, fresh: Path) -> bool:
    """Whether a model of few bits is what its folder's weights become in its precision, of the same form."""
    if model.precision not in FEW_BITS:
        return False
    before, after = read_config(source), read_config(fresh)
    if any(before.get(field) != after.get(field) for field in FORM if field != "shape"):
        return False
    if digests_of(source)["tokenizer"] != digests_of(fresh)["tokenizer"]:
        return False
    float_model = type(model).from_pretrained(source).float()
    inner, generates = float_model.transformer, model.config.facts().language_head is not None
    state, shape = with_precision(inner.state_dict(), inner.shape, model.precision, generates=generates)
    found = model.transformer.state_dict()
    return shape == model.config.form() and all(torch.equal(found[key], state[key]) for key in state)


def _readdressed(model: Any, source: Path, fresh: Path) -> list[Point]:
    """Make what speaks of a model speak of the same in another file: whole, or in few bits.

    Returns:
        Points that name the certificate by its new hash, as they now stand in `config.json`.

    Raises:
        ArtefactError: When the certificate does not hold.
    """
    _say_elsewhere(fresh / KEPT, "subject", one_digest(fresh))
    certificate, identity = read_certificate(source), {}
    if certificate is not None and certificate.precision == model.precision:
        moved = certificate.model_copy(update=digests_of(fresh))
        write_certificate(fresh, moved)
        identity = {certificate.identity: moved.identity}
        _say_elsewhere(fresh / AUDITED, "certificate", moved.identity)
    else:
        (fresh / AUDITED).unlink(missing_ok=True)
    points = []
    for point in model.config.choices().values():
        promise = point.promise
        if promise is not None and promise.certificate in identity:
            promise = promise.model_copy(update={"certificate": identity[promise.certificate]})
        points.append(point.model_copy(update={"promise": promise}))
    written = [p.model_dump(mode="json", exclude_none=True) for p in points if p != FULL]
    write_json(fresh / CONFIG, read_config(fresh) | {"points": written})
    return points


def _say_elsewhere(place: Path, field: str, value: str) -> None:
    """Change what a file of tensors, if there is one, says it belongs to."""
    if place.is_file():
        with safe_open(place, "pt") as file:
            about = (file.metadata() or {}) | {field: value}
        save_file(load_file(place), place, metadata=about)


@contextmanager
def _not_called(backend: Any) -> Iterator[None]:
    """A fast tokenizer's inner one, or None, as it is when nothing is cut or padded."""
    if backend is None:
        yield
        return
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer's files, and nothing of how it was called last.

    A fast tokenizer keeps the length it cut texts to and writes it into its file; loaded again, it would note
    that in another one, and a certificate would no longer know the tokenizer.
    """
    with _not_called(getattr(tokenizer, "backend_tokenizer", None)):
        tokenizer.save_pretrained(folder)
    place = folder / "tokenizer_config.json"
    if place.exists():
        content = json.loads(place.read_text(encoding="utf-8"))
        write_json(place, {key: value for key, value in content.items() if key not in NOT_OF_A_TOKENIZER})
