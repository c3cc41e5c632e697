"""lessen: pre-trained Transformers that do less work wherever less is enough."""

from importlib.metadata import version

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

register()
