"""lessen: pre-trained Transformers that do less work wherever less is enough.

What it exports is imported when it is first asked for (`registration.py` says why).
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from threading import RLock
from typing import TYPE_CHECKING, Any

from lessen.registration import keep_registered

if TYPE_CHECKING:
    from lessen.config import LessenConfig
    from lessen.errors import LessenError
    from lessen.hf import (
        LessenForCausalLM,
        LessenForSeq2SeqLM,
        LessenForSequenceClassification,
        LessenModel,
        register,
    )
    from lessen.loading import load
    from lessen.plan import ExitRule, ExitShape, Point, Shape
    from lessen.reshaping import with_exits

__version__ = version("lessen")

__all__ = [
    "ExitRule",
    "ExitShape",
    "LessenConfig",
    "LessenError",
    "LessenForCausalLM",
    "LessenForSeq2SeqLM",
    "LessenForSequenceClassification",
    "LessenModel",
    "Point",
    "Shape",
    "load",
    "register",
    "with_exits",
]

_HOMES = {
    "config": ["LessenConfig"],
    "errors": ["LessenError"],
    "hf": [
        "LessenForCausalLM",
        "LessenForSeq2SeqLM",
        "LessenForSequenceClassification",
        "LessenModel",
        "register",
    ],
    "loading": ["load"],
    "plan": ["ExitRule", "ExitShape", "Point", "Shape"],
    "reshaping": ["with_exits"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


_importing = RLock()
"""transformers cannot be imported by two threads at once."""

if not TYPE_CHECKING:  # or names that do not exist would pass for Any

    def __getattr__(name: str) -> Any:
        """What is exported, and modules."""
        home = _HOME_OF.get(name, name)
        if name.startswith("_") or find_spec(f"lessen.{home}") is None:
            raise AttributeError(f"module 'lessen' has no attribute {name!r}")
        with _importing:
            module = import_module(f"lessen.{home}")
            found = getattr(module, name) if name in _HOME_OF else module
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


keep_registered()
