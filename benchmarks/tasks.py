"""Tasks benchmarks train on: their parts as files, rows in two parts never the same."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from keyed import key_of
from results import CACHE, alone, data_folder

from lessen.builtin import model_folder
from lessen.data.reading import read
from lessen.data.splits import without, without_repeats
from lessen.data.table import Table

PARTS = ("train", "tune", "calibration", "test")


@dataclass(frozen=True)
class Setting:
    """A task: epochs of each stage, longest text, and how many rows each part gets."""

    epochs: float
    max_tokens: int
    sizes: dict[str, int]


TASKS = {
    "imdb": Setting(2.0, 256, {"tune": 1000, "calibration": 3000, "test": 2000, "train": 6400}),
    "sst2": Setting(3.0, 64, {"calibration": 1000}),
    "mrpc": Setting(5.0, 128, {"calibration": 300}),
    "stsb": Setting(5.0, 64, {"calibration": 500}),
    "sst2-phrases": Setting(4.0, 64, {"calibration": 1000}),
    "trec": Setting(20.0, 32, {"tune": 500, "calibration": 500}),
    "movie-reviews": Setting(10.0, 64, {"tune": 1000, "calibration": 1000, "test": 1500}),
    "boolq": Setting(5.0, 128, {"tune": 1000, "calibration": 500}),
}

NEGATIONS = {"not", "no", "never", "nothing", "without", "hardly", "neither", "nor", "none", "cannot"}
"""Words that turn the meaning of others; those that end in n't do too."""


BUILTIN = {
    "imdb": "builtin:imdb-reviews",
    "trec": "builtin:trec",
    "movie-reviews": "builtin:movie-reviews",
    "boolq": "builtin:boolq[train]",
}
"""Where tasks come from that are not in the data folder."""


def prepare(task: str) -> dict[str, Path]:
    """Write the task's four files, cut to its longest text; once, by one process, and all or none."""
    folder = CACHE / "tokens" / task / f"data-{key_of(rows_of(task))}"
    with alone(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            for name, table in divided(task).items():
                texts = cut(table.texts, TASKS[task].max_tokens)
                rows = zip(texts, table.labels or [], strict=True)
                lines = (json.dumps(_row(text, label)) + "\n" for text, label in rows)
                (unfinished / f"{name}.jsonl").write_text("".join(lines))
            unfinished.rename(folder)
    return {name: folder / f"{name}.jsonl" for name in PARTS}


@cache
def rows_of(task: str) -> dict[str, Any]:
    """Everything that decides which rows a task's parts have."""
    setting = asdict(TASKS[task])
    del setting["epochs"]
    source = BUILTIN.get(task)
    files = {} if source else {path.name: sha256(path.read_bytes()).hexdigest() for path in _files(task)}
    return {"task": task, "source": source, "files": files} | setting


def divided(task: str) -> dict[str, Table]:
    """The task's parts, of which no two have a text in common."""
    parts: dict[str, Table] = {}
    if task in BUILTIN:
        source = read(BUILTIN[task])
        if task == "trec":
            parts = {"test": read("builtin:trec[test]")}
        if task == "boolq":  # its own test part has no labels
            parts = {"test": read("builtin:boolq[validation]")}
    else:
        source, parts["tune"], parts["test"] = (read(str(path)) for path in _files(task))
    source, _ = without(without_repeats(source), parts.values())
    order = random.Random(0).sample(range(len(source)), len(source))
    for name, size in TASKS[task].sizes.items():
        parts[name], order = source.take(order[:size]), order[size:]
    parts.setdefault("train", source.take(order))
    return {name: parts[name] for name in PARTS}


def _files(task: str) -> list[Path]:
    """Training, tuning and test rows in the data folder."""
    place = data_folder() / task.removesuffix("-phrases")
    train = "train_sentences" if task == "sst2" else "train"
    return [place / f"{name}.jsonl" for name in (train, "validation", "test")]


def cut(texts: list[Any], tokens: int) -> list[Any]:
    """Single texts cut so that they have at most so many tokens; pairs as they are."""
    from transformers import AutoTokenizer

    if not isinstance(texts[0], str):
        return texts
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    spans = tokenizer(texts, truncation=True, max_length=tokens, return_offsets_mapping=True)
    ends = [max(end for _, end in offsets) for offsets in spans["offset_mapping"]]
    return [text[:end] for text, end in zip(texts, ends, strict=True)]


def shuffled(texts: list[Any]) -> list[Any]:
    """The words of each text in another order, always the same: what a bag of words does not notice."""
    order = random.Random(0)

    def mixed(text: str) -> str:
        words = text.split()
        return " ".join(order.sample(words, len(words)))

    return [mixed(text) if isinstance(text, str) else tuple(map(mixed, text)) for text in texts]


def negated(texts: list[Any]) -> list[int]:
    """Which texts have a negation in them."""
    plain = (text if isinstance(text, str) else " ".join(text) for text in texts)
    return [
        place
        for place, text in enumerate(plain)
        if any(word in NEGATIONS or word.endswith("n't") for word in text.lower().split())
    ]


def _row(text: Any, label: Any) -> dict[str, Any]:
    texts = {"text": text} if isinstance(text, str) else {"text": text[0], "pair": text[1]}
    return texts | {"label": label}
