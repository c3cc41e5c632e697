"""lessen: pre-trained Transformers that do less work wherever less is enough."""

from lessen.errors import LessenError
from lessen.hf import LessenConfig, LessenForSequenceClassification, LessenModel, register
from lessen.loading import load, with_exits
from lessen.plan import ExitRule, ExitShape, Point, Shape

__version__ = "0.1.0"

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
