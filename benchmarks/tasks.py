"""Tasks benchmarks train on: their parts as files, rows in two parts never the same."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import CACHE, data_folder

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
    """Write the task's four files, cut to its longest text; once."""
    folder = CACHE / "tokens" / task / "data"
    files = {name: folder / f"{name}.jsonl" for name in PARTS}
    if all(path.exists() for path in files.values()):
        return files
    setting = TASKS[task]
    parts: dict[str, Table] = {}
    if task in BUILTIN:
        source = read(BUILTIN[task])
        if task == "trec":
            parts = {"test": read("builtin:trec[test]")}
        if task == "boolq":  # its own test part has no labels
            parts = {"test": read("builtin:boolq[validation]")}
    else:
        place = data_folder() / task.removesuffix("-phrases")
        name = "train_sentences" if task == "sst2" else "train"
        source = read(str(place / f"{name}.jsonl"))
        parts = {"tune": read(str(place / "validation.jsonl")), "test": read(str(place / "test.jsonl"))}
    source, _ = without(without_repeats(source), parts.values())
    order = random.Random(0).sample(range(len(source)), len(source))
    for name, size in setting.sizes.items():
        parts[name], order = source.take(order[:size]), order[size:]
    parts.setdefault("train", source.take(order))
    folder.mkdir(parents=True, exist_ok=True)
    for name in PARTS:
        rows = zip(cut(parts[name].texts, setting.max_tokens), parts[name].labels or [], strict=True)
        files[name].write_text("".join(json.dumps(_row(text, label)) + "\n" for text, label in rows))
    return files


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
