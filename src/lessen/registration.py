"""transformers' Auto classes know lessen as soon as both are imported, whichever comes first.

`import lessen` alone imports neither transformers nor torch: that takes seconds, which `lessen --help` or a
mistyped option need not cost.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from lessen.errors import LessenWarning


def _config_known() -> None:
    from transformers import AutoConfig

    from lessen.config import LessenConfig

    AutoConfig.register(LessenConfig.model_type, LessenConfig, exist_ok=True)


def _models_known() -> None:
    import lessen.hf  # which registers them at its end

    if hasattr(lessen.hf, "register"):
        lessen.hf.register()


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
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader)
        return spec


class _Then(Loader):
    """Loads a module as another loader would, and does what follows.

    Where that fails, transformers works all the same; lessen itself says why when it is used.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the other loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The same, and what follows."""
        self._loader.exec_module(module)
        try:
            AFTER[module.__name__]()
        except ImportError as error:
            message = f"transformers' Auto classes do not know lessen: {error}"
            warnings.warn(message, LessenWarning, stacklevel=2)


def keep_registered() -> None:
    """Register with the Auto classes that are imported, and with the others when they are."""
    if not any(isinstance(each, _Following) for each in sys.meta_path):
        sys.meta_path.insert(0, _Following())
    for name, follow in AFTER.items():
        if name in sys.modules:
            follow()
