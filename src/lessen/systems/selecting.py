"""The best step of a training, on rows kept aside for that (COST-EFF page, 1.9 and property test 16)."""

from __future__ import annotations

from typing import Any

import numpy as np

from lessen.data.table import Table
from lessen.measure.evaluation import answers_of_every_exit
from lessen.measure.metrics import quality
from lessen.runtime.text import encode
from lessen.systems.binarizing import Binarizing
from lessen.systems.pretraining import Pretraining
from lessen.systems.rounds import Rounds
from lessen.train.fine_tuning import Recipe
from lessen.train.trainer import Judge


def selects(stage: Recipe) -> bool:
    """Whether a stage's steps can be told apart by what its exits answer.

    Not where it learns features alone; nor where the model is another at every step, because parts or tokens
    leave it or its weights turn binary.
    """
    changing = isinstance(stage, (Rounds, Binarizing, Pretraining)) or stage.speedup > 1
    return not changing and stage.objective != "features"


def judge_of(stage: Recipe, rows: Table) -> Judge:
    """The main metric on labelled rows, its mean over the exits that the stage trains.

    A correlation is 0 where an exit says the same of every row.
    """
    trained = slice(-1, None) if stage.objective == "last" else slice(None)

    def judge(model: Any) -> float:
        encoded = encode(model.tokenizer, rows.texts, model.config.facts().max_tokens)
        logits = answers_of_every_exit(model, encoded)[trained]
        found = [quality(each, rows.labels or [], model.problem_type) for each in logits]
        return float(np.mean(np.nan_to_num(found)))

    return judge
