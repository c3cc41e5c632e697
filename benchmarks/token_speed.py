"""Does time follow MACs when tokens leave, and does the dial's prediction come true?

First: BERT-base's shape with random weights, dense and with profiles of several families that make for the
same MACs, against our own dense form and Hugging Face's with fused attention. `first_k` shows what choosing
costs: it chooses without looking. Then: latencies fitted on some reviews, against those measured on others.

    LESSEN_DATA=/path/to/data python benchmarks/token_speed.py [--threads 2,1] [--seconds 60]
"""

from __future__ import annotations

import argparse
import random
import tempfile
from functools import partial
from typing import Any

import torch
from results import write_results
from tasks import prepare
from token_quality import taught
from transformers import BertConfig, BertForSequenceClassification

from lessen.data.reading import read
from lessen.loading import load
from lessen.measure.evaluation import macs_ratio
from lessen.measure.latency import interleaved, ratio, threads
from lessen.measure.latency_fit import fit_of, probes_of
from lessen.measure.rivals import build
from lessen.measure.side_by_side import must_agree, run_all
from lessen.plan import FULL, Point, RetentionProfile
from lessen.runtime.latency_model import predicted_ms
from lessen.runtime.retention import point_for
from lessen.runtime.text import Encoded, encode

LAYERS = 12
MACS_SPEEDUPS = {128: 4.8, 512: 3.6}
"""By tokens of a row."""

PROFILES: dict[str, dict[str, Any]] = {
    "geometric": {"family": "geometric"},
    "tilt": {"family": "tilt"},
    "even": {"family": "explicit"},
    "compounding": {"family": "explicit", "base": [0.9 ** (n * (n + 1) / 2) for n in range(1, LAYERS + 1)]},
}
"""The page's two; the same share everywhere; what measured shares come to where all layers need as much."""

SHAPES = ((1, 128), (8, 128), (1, 512))
SPEEDUPS = (1.5, 2.0, 3.0, 4.0, 4.8)


def bert_base() -> Any:
    """BERT-base's shape with random weights, loaded as any checkpoint is."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        BertForSequenceClassification(BertConfig(num_labels=2)).save_pretrained(place)
        return load(place)


def points(model: Any, tokens: int) -> dict[str, Point]:
    """Dense, and every profile at the speed-up in MACs asked for at this length."""
    found = {"dense": FULL}
    for name, facts in PROFILES.items():
        profile = RetentionProfile.model_validate({"base": [0.5] * LAYERS, "lengths": [tokens]} | facts)
        point = point_for(model.transformer, profile, MACS_SPEEDUPS[tokens])
        found[name] = point.model_copy(update={"name": name})
    first = {"name": "geometric, first_k", "token_score": "first_k"}
    return found | {"geometric, first_k": found["geometric"].model_copy(update=first)}


def shapes(model: Any, count: int, seconds: float) -> list[dict[str, Any]]:
    """One entry for each batch and length."""
    hugging = build("torch", model, count)
    lines = []
    for batch, tokens in SHAPES:
        generator = torch.Generator().manual_seed(tokens)
        ids = torch.randint(1000, 30000, (batch, tokens), generator=generator).tolist()
        rows = [Encoded(each, None, False) for each in ids]
        must_agree("torch", hugging(rows), run_all(model, rows, FULL, batch))
        chosen = points(model, tokens)
        candidates: dict[str, Any] = {
            name: partial(run_all, model, rows, point, batch) for name, point in chosen.items()
        }
        candidates["hugging face"] = partial(hugging, rows)
        timings = interleaved(candidates, seconds=seconds)
        for name, point in chosen.items():
            lines.append(
                {
                    "batch": batch,
                    "tokens": tokens,
                    "profile": name,
                    "ms": timings[name].as_dict(),
                    "macs_ratio": macs_ratio(model.transformer, rows, [LAYERS] * batch, point),
                    "against dense": ratio(timings, "dense", name).paired,
                    "against hugging face": ratio(timings, "hugging face", name).paired,
                }
            )
            print(lines[-1], flush=True)
    return lines


def dial(count: int, seconds: float) -> list[dict[str, Any]]:
    """Predicted and measured ms per row on reviews that were not fitted to, timed in the same rounds."""
    model = load(taught("imdb", 0, "mean"))
    test = read(str(prepare("imdb")["test"]))
    order = random.Random(0).sample(range(len(test)), 120)
    encoded = encode(model.tokenizer, test.take(order).texts, 512)
    fitted_on, rows = encoded[:88], encoded[88:]
    dialled = {speedup: model.dial(speedup=speedup).point for speedup in SPEEDUPS}
    lines = []
    for batch in (1, 8):
        probes = probes_of(model, fitted_on, batch, list(dialled.values()))
        candidates = {f"probe {name}": probe.run for name, probe in probes.items()}
        measured = {1.0: FULL, **dialled}
        for speedup, point in measured.items():
            candidates[f"{speedup:g}"] = partial(run_all, model, rows, point, batch)
        timings = interleaved(candidates, seconds=seconds)
        fit = fit_of(
            probes, {name: timings[f"probe {name}"] for name in probes}, batch=batch, precision="float32"
        )
        for speedup, point in measured.items():
            ms = timings[f"{speedup:g}"].median_ms / len(rows)
            predicted = predicted_ms(model.transformer, fit, [len(row.ids) for row in rows], point)
            lines.append(
                {
                    "batch": batch,
                    "speedup": speedup,
                    "macs_ratio": macs_ratio(model.transformer, rows, [6] * len(rows), point),
                    "ms": ms,
                    "predicted_ms": predicted,
                    "error": predicted / ms - 1,
                    "measured speedup": ratio(timings, "1", f"{speedup:g}").paired,
                }
            )
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    model = bert_base()
    found: dict[str, Any] = {}
    for count in map(int, options.threads.split(",")):
        with threads(count):
            found[f"{count} threads"] = {
                "shapes": shapes(model, count, options.seconds),
                "dial": dial(count, 4 * options.seconds),
            }
    write_results("token_speed", {"results": found})


if __name__ == "__main__":
    main()
