"""Quality against speed-up when tokens leave: ACC beside random tokens and the first ones, on four tasks.

    LESSEN_DATA=/path/to/data python benchmarks/token_quality.py [--tasks imdb,sst2,mrpc,stsb] [--seeds 0,1,2]

Models stay in `.cache/tokens/`; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from results import CACHE, data_folder, write_results

from lessen.artefact import write_json
from lessen.builtin import model_folder
from lessen.data.reading import read
from lessen.data.splits import without, without_repeats
from lessen.data.table import Table
from lessen.loading import load
from lessen.measure.evaluation import evaluate
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.pipeline import compress, plan_for
from lessen.systems.token_stages import TokenPlan, give_profile, passes_of
from lessen.train.fine_tuning import Recipe, fine_tune

MODEL = "builtin:minilm-l6"
PARTS = ("train", "tune", "calibration", "test")
TESTED = 2000
"""Test rows at most."""

SCORES = ("mean", "random", "first_k")
SPEEDUPS = (1.0, 1.5, 2.0, 3.0, 4.0, 4.8)
STAGE = system_of("latency-adjustable").stages[-1]


@dataclass(frozen=True)
class Setting:
    """A task: epochs of each stage, longest text, and how many rows each part gets."""

    epochs: float
    max_tokens: int
    sizes: dict[str, int]


TASKS = {
    "imdb": Setting(2.0, 256, {"tune": 1000, "calibration": 3000, "test": 4000, "train": 10000}),
    "sst2": Setting(3.0, 64, {"calibration": 1000}),
    "mrpc": Setting(5.0, 128, {"calibration": 300}),
    "stsb": Setting(5.0, 64, {"calibration": 500}),
}


def prepare(task: str) -> dict[str, Path]:
    """Write the task's four files, cut to its longest text; once."""
    folder = CACHE / "tokens" / task / "data"
    files = {name: folder / f"{name}.jsonl" for name in PARTS}
    if all(path.exists() for path in files.values()):
        return files
    setting = TASKS[task]
    parts: dict[str, Table] = {}
    if task == "imdb":
        source = read("builtin:imdb-reviews")
    else:
        place = data_folder() / task
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


def _row(text: Any, label: Any) -> dict[str, Any]:
    texts = {"text": text} if isinstance(text, str) else {"text": text[0], "pair": text[1]}
    return texts | {"label": label}


def fine_tuned(task: str, seed: int) -> Path:
    """The model before any token leaves: all exits trained, for every selection the same."""
    out = CACHE / "tokens" / task / f"full-seed{seed}"
    if not (out / "training.json").exists():
        files = {name: str(path) for name, path in prepare(task).items()}
        system = system_of("early-exit")
        plan = plan_for(
            system,
            seed=seed,
            recipe={"epochs": TASKS[task].epochs, "max_tokens": TASKS[task].max_tokens},
            model=MODEL,
            data=files["train"],
            tune_data=files["tune"],
            calibration_data=files["calibration"],
            test_data=files["test"],
        )
        compress(plan, system, out)
    return out


def stage_of(task: str, seed: int) -> Recipe:
    """Training with tokens leaving, as `lessen compress` does it, at the task's epochs and longest text."""
    setting = TASKS[task]
    changes = {"seed": seed, "epochs": setting.epochs, "max_tokens": setting.max_tokens}
    return STAGE.model_copy(update=changes)


def taught(task: str, seed: int, score: str) -> Path:
    """The same model after as many epochs again with tokens leaving, chosen by this score."""
    out = CACHE / "tokens" / task / f"{score}-seed{seed}"
    if not (out / "training.json").exists():
        model = load(fine_tuned(task, seed), promises=False)
        recipe = stage_of(task, seed)
        train = read(str(prepare(task)["train"])).with_labels_of(model.label_names)
        work = out.with_name(out.name + ".work")
        give_profile(model, train, recipe, TokenPlan(score=score), work)
        torch.manual_seed(seed)
        record = fine_tune(model, train, recipe, work / "checkpoints", passes=passes_of(model, recipe))
        model.save_pretrained(out)
        write_json(out / "training.json", {"training": [record]})
        shutil.rmtree(work)
    return out


def curve(model: Any, task: str) -> dict[str, Any]:
    """Quality and MACs on the test rows at every speed-up; kept with the model once measured."""
    test = read(str(prepare(task)["test"])).with_labels_of(model.label_names)
    test = test.take(range(min(TESTED, len(test))))
    encoded = encode(model.tokenizer, test.texts, model.config.facts().max_tokens)
    found = {}
    for speedup in SPEEDUPS:
        point = model.dial(speedup=speedup).point
        result = evaluate(model, encoded, test.labels or [], point)
        found[f"{speedup:g}"] = {"value": result.value, "macs_ratio": result.macs_ratio}
    return found


def measured(task: str, seed: int) -> dict[str, Any]:
    """The curves of one seed: each selection trained and dialled, and ACC on the model that was not."""
    curves = {}
    for score in SCORES:
        folder = taught(task, seed, score)
        place = folder / "curve.json"
        if not place.exists():
            write_json(place, curve(load(folder), task))
        curves[score] = json.loads(place.read_text())
    full = load(fine_tuned(task, seed), promises=False)
    place = fine_tuned(task, seed) / "curve.json"
    if not place.exists():
        full.config.profile = json.loads((taught(task, seed, "mean") / "config.json").read_text())["profile"]
        write_json(place, curve(full, task))
    return curves | {"untrained": json.loads(place.read_text())}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task and selection: mean and standard deviation over seeds, and what was lost.

    The loss is against the fine-tuned model before any token left.
    """
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        of_task = [run["curves"] for run in runs if run["task"] == task]
        start = [curves["untrained"]["1"]["value"] for curves in of_task]
        for name in (*SCORES, "untrained"):
            for speedup in (f"{each:g}" for each in SPEEDUPS):
                values = [curves[name][speedup]["value"] for curves in of_task]
                lines.setdefault(task, {}).setdefault(name, {})[speedup] = {
                    "value": mean(values),
                    "sd": stdev(values) if len(values) > 1 else None,
                    "loss": mean(a - b for a, b in zip(start, values, strict=True)),
                    "macs_ratio": mean(curves[name][speedup]["macs_ratio"] for curves in of_task),
                    "seeds": len(values),
                }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    runs = []
    for seed in map(int, options.seeds.split(",")):
        for task in options.tasks.split(","):
            runs.append({"task": task, "seed": seed, "curves": measured(task, seed)})
            found = {"model": MODEL, "trained_at": STAGE.speedup, "runs": runs, "summary": summary(runs)}
            write_results("token_quality", found)


if __name__ == "__main__":
    main()
