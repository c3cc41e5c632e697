"""What a slender model is measured by: its form, every exit's answers, and what leaving early costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from certifying import DELTA, answers, by_any, certified
from paired import packed, packed_steps

from lessen.data.reading import read
from lessen.depth.criteria import criteria_for
from lessen.loading import load
from lessen.measure.metrics import quality
from lessen.model.macs import row_macs
from lessen.model.transformer import parameter_counts
from lessen.promise.outputs import Outputs, Task
from lessen.promise.paths import path_of

__all__ = ["BOUNDS", "DELTA", "answers_of_last", "f1_of_most_frequent", "facts_of"]

BOUNDS = (0.01, 0.02)

PARTS = ("tune", "test")

NO_SWEEP: dict[str, Any] = {"sweep": [], "sweep_answers": ""}


def facts_of(folder: Path, task: str) -> dict[str, Any]:
    """Size, quality at every exit, what is certified, and what is reached when rows leave early."""
    found, about = answers(folder, task)
    model = load(folder, promises=False)
    facts = form_of(model) | answered(model, found, range(len(about.layers)))
    return facts | {"certified": certified(found, about, by_any, BOUNDS)} | sweep(found, about)


def answers_of_last(folder: Path, task: str) -> dict[str, Any]:
    """The same of a model whose last exit alone was trained: the others say nothing."""
    found, about = answers(folder, task)
    model = load(folder, promises=False)
    last = len(about.layers) - 1
    return form_of(model) | answered(model, found, (last,)) | {"certified": []} | NO_SWEEP


def form_of(model: Any) -> dict[str, Any]:
    """Parameters, and what is left in each layer."""
    form = model.config.form()
    return {
        "parameters": parameter_counts(model.transformer),
        "heads": [len(layer.heads) for layer in form.layers],
        "neurons": [layer.intermediate_size for layer in form.layers],
        "products": any(any(layer.rank.model_dump().values()) for layer in form.layers),
        "embedding_rank": form.embedding_rank,
    }


def answered(model: Any, found: dict[str, Outputs], exits: Any) -> dict[str, Any]:
    """Quality of some exits on test rows; of tuning rows too, MACs of a row at full depth, and answers."""
    kind, facts = model.problem_type, {}
    for part in PARTS:
        outputs = found[part]
        labels = [] if outputs.labels is None else outputs.labels.astype(int).tolist()
        facts[part] = {
            "rows": len(outputs),
            "macs": macs_of(model, outputs),
            "answers": [packed(outputs.logits[exit], labels, kind) for exit in exits],
        }
    values = [quality(outputs.logits[exit], labels, kind) for exit in exits]
    return facts | {"exits": values, "f1": f1(outputs.logits[-1].argmax(-1), np.array(labels))}


def f1(said: Any, labels: Any) -> float | None:
    """Of label 1, where there are two labels: what COST-EFF's page has for MRPC."""
    if labels.max() > 1:
        return None
    hits = int(((said == 1) & (labels == 1)).sum())
    return 2 * hits / max(1, int((said == 1).sum() + (labels == 1).sum()))


def f1_of_most_frequent(files: Mapping[str, Path]) -> float | None:
    """Of saying the most frequent training label of everything: where that is label 1, F1 flatters."""
    train = read(str(files["train"]))
    test = read(str(files["test"])).with_labels_of(train.label_names)
    frequent = max(set(train.labels or []), key=(train.labels or []).count)
    return f1(np.full(len(test), frequent), np.array(test.labels))


def macs_of(model: Any, outputs: Outputs) -> float:
    """Of one row at full depth, mean over the rows."""
    assert outputs.tokens is not None
    facts, shape, labels = model.config.facts(), model.config.form(), model.config.num_labels
    return mean(row_macs(facts, shape, labels, int(tokens)) for tokens in outputs.tokens)


def sweep(found: dict[str, Outputs], about: Task) -> dict[str, Any]:
    """Steps of all criteria that no other beats on tuning rows both in MACs and in accuracy, boldest first.

    Nothing is promised of them. On test rows they are what they are: which are shown, tuning rows say.
    """
    tune, test = found["tune"], found["test"]
    steps = [step for name in criteria_for(about.problem_type) for step in path_of(tune, about, name)]
    if not steps:
        return NO_SWEEP
    (right, macs), (test_right, test_macs) = (
        taken_by(outputs, about, outputs.answers_taken(steps, about)) for outputs in (tune, test)
    )
    best, lines, answers_of = -1.0, [], []
    accuracy, work = right.mean(0), macs.mean(0)
    for place in np.lexsort((-accuracy, work)):
        if accuracy[place] > best:
            best = float(accuracy[place])
            lines.append(
                {
                    "tune": best,
                    "tune_macs": float(work[place]),
                    "test": float(test_right[:, place].mean()),
                    "macs": float(test_macs[:, place].mean()),
                }
            )
            answers_of.append(test_right[:, place] > 0)
    return {"sweep": lines, "sweep_answers": packed_steps(answers_of)}


def taken_by(outputs: Outputs, about: Task, taken: Any) -> tuple[Any, Any]:
    """Scores and MACs of the answers taken, both `[rows, steps]`."""
    _, scores = outputs.scores(about)
    assert outputs.macs is not None
    return np.take_along_axis(scores, taken, 1), np.take_along_axis(outputs.macs.T, taken, 1)
