"""lessen: pre-trained Transformers that do less work wherever less is enough."""

from importlib.metadata import version

from lessen.config import LessenConfig
from lessen.errors import LessenError
from lessen.hf import LessenForSequenceClassification, LessenModel, register
from lessen.loading import load, with_exits
from lessen.plan import ExitRule, ExitShape, Point, Shape

__version__ = version("lessen")

__all__ = [
    "ExitRule",
    "ExitShape",
    "LessenConfig",
    "LessenError",
    "LessenForSequenceClassification",
    "LessenModel",
    "Point",
    "Shape",
    "load",
    "register",
    "with_exits",
]

register()
