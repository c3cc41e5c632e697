"""The one adapter to transformers: model shells, and their registration with the Auto classes.

After `import lessen`, `AutoModelForSequenceClassification.from_pretrained(folder)`, `Trainer` and
`pipeline("text-classification")` work on a lessen folder. The shells hold no weights of their own: everything
lives in `transformer`, whose form is given by the config's `architecture` and `shape`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from lessen.config import LessenConfig
from lessen.hf.classifier import LessenForSequenceClassification
from lessen.hf.encoder import LessenModel

__all__ = ["LessenForSequenceClassification", "LessenModel", "register"]


def register() -> None:
    """Make transformers' Auto classes know `model_type: "lessen"`."""
    AutoConfig.register("lessen", LessenConfig, exist_ok=True)
    AutoModel.register(LessenConfig, LessenModel, exist_ok=True)
    AutoModelForSequenceClassification.register(LessenConfig, LessenForSequenceClassification, exist_ok=True)
