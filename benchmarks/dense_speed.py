"""Exits off: our running form against Hugging Face with SDPA on the same MiniLM weights, and the price of
unused exits.

Batch 1 x 24 tokens and batch 32 of mixed lengths, from real reviews. Hugging Face gets length-sorted, tightly
padded batches in the number of chunks that is fastest for it; naive padding stands beside it.

    python benchmarks/dense_speed.py [--threads 2,1] [--seconds 120]
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import numpy as np
import torch
from results import write_results

from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.latency import Timing, interleaved, ratio, threads
from lessen.measure.rivals import build
from lessen.measure.side_by_side import must_agree, run_all
from lessen.plan import FULL, ExitRule, ExitShape, Point
from lessen.reshaping import with_exits
from lessen.runtime.text import Encoded, encode

NEVER = Point(name="never", exits=ExitRule(criterion="entropy", threshold=-1.0))
"""Every exit is asked, and no row can ever leave."""


def rows_of(tokenizer: Any) -> dict[str, list[list[Encoded]]]:
    """Batches of real reviews: single rows of 24 tokens, and 32 rows of mixed lengths."""
    texts = read("builtin:movie-reviews").texts
    encoded = encode(tokenizer, random.Random(0).sample(texts, 2000), 512)
    single = [row for row in encoded if len(row.ids) == 24][:8]
    return {"batch 1 x 24 tokens": [[row] for row in single], "batch 32, mixed lengths": [encoded[:32]]}


def measure(seconds: float, count: int) -> dict[str, Any]:
    """Medians in ms per batch and ratios, for each kind of batch."""
    base = load("builtin:minilm-l6")
    labels = ["negative", "positive"]
    bare = with_exits(base, labels=labels, exits=[ExitShape(layer=6, pool="mean")])
    full = with_exits(base, labels=labels)
    half = with_exits(base, labels=labels).to(torch.bfloat16)
    hugging = {kind: build(kind, full, count) for kind in ("torch", "torch-bf16")}
    found: dict[str, Any] = {}
    for name, batches in rows_of(base.tokenizer).items():
        for rows in batches:
            must_agree("torch", hugging["torch"](rows), run_all(full, rows, FULL, len(rows)))
        candidates: dict[str, Any] = {
            "lessen": lambda b=batches: [run_all(full, rows, FULL, len(rows)) for rows in b],
            "lessen, exits asked in vain": lambda b=batches: [
                run_all(full, rows, NEVER, len(rows)) for rows in b
            ],
            "lessen, no heads": lambda b=batches: [run_all(bare, rows, FULL, len(rows)) for rows in b],
            "lessen bf16": lambda b=batches: [run_all(half, rows, FULL, len(rows)) for rows in b],
            "hugging face": lambda b=batches: [hugging["torch"](rows) for rows in b],
            "hugging face bf16": lambda b=batches: [hugging["torch-bf16"](rows) for rows in b],
            "hugging face, naive padding": lambda b=batches: [
                hugging["torch"](rows, naive=True) for rows in b
            ],
            "hugging face bf16, naive padding": lambda b=batches: [
                hugging["torch-bf16"](rows, naive=True) for rows in b
            ],
        }
        timings = interleaved(candidates, seconds=seconds)
        pairs = {
            "fp32 against tight padding": ("hugging face", "lessen"),
            "fp32 against naive padding": ("hugging face, naive padding", "lessen"),
            "bf16 against tight padding": ("hugging face bf16", "lessen bf16"),
            "bf16 against naive padding": ("hugging face bf16, naive padding", "lessen bf16"),
            "unused exits cost (1 is nothing)": ("lessen", "lessen, no heads"),
            "exits asked in vain cost (1 is nothing)": (
                "lessen, exits asked in vain",
                "lessen, no heads",
            ),
        }
        found[name] = {
            "tokens": [len(row.ids) for rows in batches for row in rows],
            "ms_per_batch": {k: round(t.median_ms / len(batches), 4) for k, t in timings.items()},
            "ratios": {k: round(ratio(timings, slow, fast).paired, 4) for k, (slow, fast) in pairs.items()},
            "middle_half": {k: quartiles(timings, slow, fast) for k, (slow, fast) in pairs.items()},
            "rounds": next(iter(timings.values())).runs,
        }
    return found


def quartiles(timings: dict[str, Timing], slow: str, fast: str) -> list[float]:
    """Between which values the middle half of the rounds' ratios lie."""
    pairs = zip(timings[slow].samples_ms, timings[fast].samples_ms, strict=True)
    return [round(float(q), 4) for q in np.quantile([a / b for a, b in pairs], (0.25, 0.75))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    results = {}
    for count in map(int, options.threads.split(",")):
        with threads(count):
            results[f"{count} threads"] = measure(options.seconds, count)
    for setting, found in results.items():
        for name, entry in found.items():
            print(setting, name, entry["ms_per_batch"], entry["ratios"], sep="\n  ")
    write_results("dense_speed", {"model": "builtin:minilm-l6", "results": results})


if __name__ == "__main__":
    main()
