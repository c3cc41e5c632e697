"""lessen: pre-trained Transformers that do less work wherever less is enough.

What it exports is imported when it is first asked for (`registration.py` says why).
"""

from importlib import import_module
from importlib.metadata import version
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


def __getattr__(name: str) -> Any:
    """What is exported, and the modules it lives in."""
    if name not in _HOME_OF and name not in _HOMES:
        raise AttributeError(f"module 'lessen' has no attribute {name!r}")
    module = import_module(f"lessen.{_HOME_OF.get(name, name)}")
    found = getattr(module, name) if name in _HOME_OF else module
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


keep_registered()
