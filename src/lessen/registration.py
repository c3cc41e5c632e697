"""transformers' Auto classes know lessen as soon as both are imported, whichever comes first.

`import lessen` alone imports neither transformers nor torch: that takes seconds, which `lessen --help` or a
mistyped option need not cost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def _config_known() -> None:
    from transformers import AutoConfig

    from lessen.config import LessenConfig

    AutoConfig.register(LessenConfig.model_type, LessenConfig, exist_ok=True)


def _models_known() -> None:
    import lessen.hf  # noqa: F401 - registers them


AFTER: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _config_known,
    "transformers.models.auto.modeling_auto": _models_known,
}
"""What is done once a module has been imported."""


class _Following(MetaPathFinder):
    """Finds the modules of `AFTER` as others would, and does what follows their import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in AFTER or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)  # or it would be asked again
        try:
            spec = find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def then(module: ModuleType) -> None:
            execute(module)
            AFTER[fullname]()

        loader: Any = spec.loader
        loader.exec_module = then
        return spec


def keep_registered() -> None:
    """Register with the Auto classes that are imported, and with the others when they are."""
    sys.meta_path.insert(0, _Following())
    for name, follow in AFTER.items():
        if name in sys.modules:
            follow()
