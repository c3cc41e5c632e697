"""The one adapter to transformers: model shells, and their registration with the Auto classes.

Where lessen is imported, `AutoModelForSequenceClassification.from_pretrained(folder)`, `Trainer`, `generate`,
`pipeline("text-classification")` and `pipeline("text-generation")` work on a lessen folder. The shells hold
no weights of their own: everything lives in `transformer`, whose form is given by the config's `architecture`
and `shape`.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from lessen.config import LessenConfig
from lessen.hf.classifier import LessenForSequenceClassification
from lessen.hf.encoder import LessenModel
from lessen.hf.generator import LessenForCausalLM, LessenGenerator
from lessen.hf.seq2seq import LessenForSeq2SeqLM

__all__ = [
    "LessenForCausalLM",
    "LessenForSeq2SeqLM",
    "LessenForSequenceClassification",
    "LessenGenerator",
    "LessenModel",
    "register",
]


def register() -> None:
    """Make transformers' Auto classes know `model_type: "lessen"`."""
    AutoConfig.register("lessen", LessenConfig, exist_ok=True)
    AutoModel.register(LessenConfig, LessenModel, exist_ok=True)
    AutoModelForCausalLM.register(LessenConfig, LessenForCausalLM, exist_ok=True)
    AutoModelForSeq2SeqLM.register(LessenConfig, LessenForSeq2SeqLM, exist_ok=True)
    AutoModelForSequenceClassification.register(LessenConfig, LessenForSequenceClassification, exist_ok=True)


register()
