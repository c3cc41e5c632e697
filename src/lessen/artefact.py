"""The model folder on disk: written beside and renamed, checked before anything in it is used."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lessen.errors import ArtefactError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
EXITS = "exits.safetensors"
"""In its place where exits are saved without their model, so that nobody takes it for a whole one."""

KEPT = "calibration.safetensors"
"""What calibrations are made from: answers, or traces, and hashes of texts."""

LEARNED = "learned.safetensors"
"""Hashes of the texts a model has learned from, in a folder that keeps no answers."""

AUDITED = "audit.safetensors"
"""Losses on newer rows."""

CARD = "README.md"
"""The model card."""

DESCRIBING = (
    "plan.json",
    "training.json",
    "certificate.json",
    "calibrations.json",
    KEPT,
    LEARNED,
    AUDITED,
    "latency.json",
    "report.html",
    "report.json",
    "report.png",
    CARD,
)
"""Files that speak of one set of weights; they go where it goes, and do not outlive it."""

PRIVATE = ("plan.json", "training.json", "calibration*", LEARNED, AUDITED, "latency.json", "report.*")
"""Those of `DESCRIBING` that tell of the user's data or folders, and are not uploaded."""

VOCABULARIES = (
    *("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model"),
    "sentencepiece.bpe.model",
)
"""One of these makes a tokenizer; without any, transformers invents one that knows no words."""

TOKENIZER = (
    *VOCABULARIES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    "chat_template.jinja",
)
"""Files of a tokenizer; another tokenizer's do not stay beside them."""

REAL = ("F64", "F32", "F16", "BF16")
WHOLE = {
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}
"""Names safetensors has for kinds of numbers; of whole ones beside torch's."""


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place if the block succeeds.

    Files of the old folder that the block did not write are moved over, unless they are the old model's. On
    any error the old folder is untouched and the temporary one removed. Files that cannot be moved over, once
    the new folder is in place, stay where the old one is then, which the error names.

    Raises:
        ArtefactError: When the place cannot be written (no permission, disk full, a file in the way), or as
            `check_place` says.
    """
    target = target.resolve()
    check_place(target)
    fresh, made = None, None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield fresh
        for place in fresh.iterdir():
            if place.is_file():  # safetensors lets nobody else read what it writes
                place.chmod(0o666 & ~_umask())
        fresh.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o777 & ~_umask())
        made = fresh.stat().st_ino
        _swap(fresh, target)
    except (OSError, SafetensorError) as error:
        kept = "; what was there before is unchanged" if target.exists() else ""
        raise ArtefactError(f"cannot write {target}: {reason_of(error)}{kept}") from error
    finally:
        if fresh is not None and fresh.exists():
            if made not in (None, fresh.stat().st_ino):  # the old folder: both have changed places
                _move_over(fresh, target)
            shutil.rmtree(fresh, ignore_errors=True)


def check_place(target: Path) -> None:
    """Refuse a place for a model's folder where something is that would be lost.

    Raises:
        ArtefactError: When it is a file, or a folder with files named like those of a model, and none is.
    """
    if target.exists() and not target.is_dir():
        raise ArtefactError(f"{target} is a file where a folder would go; move it, or name another place")
    if is_ours(target):
        return
    for name in (CONFIG, WEIGHTS, EXITS, *DESCRIBING):
        if name != CARD and (target / name).exists():
            raise ArtefactError(f"{target} holds {name}, which is not a lessen model's; name another folder")


def is_ours(folder: Path) -> bool:
    """Whether a folder is a model's that lessen saved."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "lessen"


def write_text(path: Path, text: str) -> None:
    """Write a small file beside its place and rename it there.

    Raises:
        ArtefactError: When it cannot be written; the old file stays.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """The same for any content."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(content)
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise ArtefactError(f"cannot write {path}: {reason_of(error)}") from error


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """The decoded `config.json` of a folder.

    Raises:
        ArtefactError: When it is missing, unreadable or not a JSON object.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = sorted(place.parent.name for place in folder.glob(f"*/{CONFIG}"))
        instead = f"name one of those in it: {', '.join(inside)}" if inside else "it is not a model folder"
        raise ArtefactError(f"{folder} has no {CONFIG}; {instead}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"cannot read {path}: {error}") from None
    except json.JSONDecodeError as error:
        raise ArtefactError(f"{path}: not valid JSON (line {error.lineno}: {error.msg})") from None
    if not isinstance(config, dict):
        raise ArtefactError(f"{path}: expected a JSON object")
    return config


def read_json(place: Path, otherwise: str) -> Any:
    """A decoded JSON file.

    Args:
        place: Of the file.
        otherwise: What to do when it cannot be read.

    Raises:
        ArtefactError: When it cannot be read.
    """
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{place}: cannot be read ({error}); {otherwise}") from None


def weights_of_folder(folder: Path) -> Path:
    """The weights file of a model folder: of the whole model, or of its exits alone."""
    return folder / (WEIGHTS if (folder / WEIGHTS).exists() or not (folder / EXITS).exists() else EXITS)


def check_files(folder: Path) -> None:
    """Refuse a folder without weights, or whose weights end before their own header says.

    Raises:
        ArtefactError: Naming the file.
    """
    path = weights_of_folder(folder)
    if not path.exists():
        raise ArtefactError(f"{folder} has no {WEIGHTS}")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{path} is truncated or not a safetensors file ({error}); fetch it again"
        ) from None


def check_weights(folder: Path, expected: Mapping[str, Tensor]) -> None:
    """Refuse a weights file that is truncated or belongs to another model, before it is loaded.

    Args:
        folder: The model folder.
        expected: Each tensor the config says exists, as it is to be in shape and kind of numbers; real ones
            may be of another precision.

    Raises:
        ArtefactError: Naming the file and the first tensor that does not fit.
    """
    path = weights_of_folder(folder)
    check_files(folder)
    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        found = {name: tuple(each.get_shape()) for name, each in slices.items()}
        kinds = {name: each.get_dtype() for name, each in slices.items()}
    for name, tensor in expected.items():
        shape = tuple(tensor.shape)
        if name not in found:
            raise ArtefactError(f"{path}: no tensor {name}; the file belongs to another model than {CONFIG}")
        if found[name] != shape:
            raise ArtefactError(
                f"{path}: tensor {name} has shape {list(found[name])}, {CONFIG} says {list(shape)}; "
                "the file belongs to another model"
            )
        fit = REAL if tensor.dtype.is_floating_point else (WHOLE.get(str(tensor.dtype), str(tensor.dtype)),)
        if kinds[name] not in fit:
            raise ArtefactError(
                f"{path}: tensor {name} holds {kinds[name]}, {CONFIG} says {' or '.join(fit)}; "
                "the file belongs to another model"
            )
    if extra := sorted(found.keys() - expected.keys()):
        raise ArtefactError(
            f"{path}: unknown tensor {extra[0]}; the file belongs to another model than {CONFIG}"
        )


def reason_of(error: BaseException) -> str:
    """The short cause of an input/output error, without the path the caller already names."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _umask() -> int:
    """What new files are not allowed here; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _swap(fresh: Path, target: Path) -> None:
    """Put `fresh` in the place of `target`, and what was there in its own."""
    if not target.exists():
        os.rename(fresh, target)
        return
    if not is_ours(target) and (target / CARD).is_file():
        shutil.copyfile(target / CARD, fresh / CARD)  # somebody else's, about the folder
    if not _exchange(fresh, target):
        retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        os.rename(target, retired / "old")
        try:
            os.rename(fresh, target)
        except OSError:
            os.rename(retired / "old", target)
            raise
        os.rename(retired / "old", fresh)
        retired.rmdir()


def _move_over(old: Path, target: Path) -> None:
    """Move to a new folder what the old one had besides a model.

    Raises:
        ArtefactError: When some of it cannot be moved; nothing of it is lost.
    """
    gone = {WEIGHTS, EXITS, *DESCRIBING}
    if any((target / name).exists() for name in TOKENIZER):
        gone |= set(TOKENIZER)
    stuck: dict[str, OSError] = {}
    for entry in sorted(old.iterdir()):
        if entry.name not in gone and not os.path.lexists(target / entry.name):
            try:
                os.rename(entry, target / entry.name)
            except OSError as failed:
                stuck[entry.name] = failed
    if stuck:
        name, error = next(iter(stuck.items()))
        raise ArtefactError(
            f"{target} is written, but {name} of the folder that was there cannot be moved into it "
            f"({reason_of(error)}); it is in {old}"
        )


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that a kill leaves one of them in place; False where Linux cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
