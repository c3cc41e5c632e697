"""Does time follow MACs when tokens leave, and does the dial's prediction come true?

First: BERT-base's shape with random weights, dense and with profiles of several families that make for the
same MACs, against our own dense form and Hugging Face's with fused attention. `first_k` shows what choosing
costs: it chooses without looking. Then: latencies fitted on some reviews, at the speed-ups that
`lessen bench --fit` takes, against those measured on others, at these speed-ups and between them.

    LESSEN_DATA=/path/to/data python benchmarks/token_speed.py [--threads 2,1] [--seconds 60] [--again]

A run is one number of threads; one that is in the results is made again with `--again` only, and then
the latest counts.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import torch
from results import add_run, kept
from tasks import prepare
from token_quality import taught
from transformers import BertConfig, BertForSequenceClassification
from verdicts import DENSE, FASTER, HUGGING_FACE, UNCHOSEN, judged_dial, judged_shapes, spread

from lessen.data.reading import read
from lessen.loading import load
from lessen.machine import processor
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
SHAPES = tuple(FASTER)
MACS_SPEEDUPS = {tokens: macs for (_, tokens), (macs, _) in FASTER.items()}
"""By tokens of a row."""

PROFILES: dict[str, dict[str, Any]] = {
    "geometric": {"family": "geometric"},
    "tilt": {"family": "tilt"},
    "even": {"family": "explicit", "base": [0.505 - 0.0009 * layer for layer in range(LAYERS)]},
    "compounding": {"family": "explicit", "base": [0.9 ** (n * (n + 1) / 2) for n in range(1, LAYERS + 1)]},
}
"""The page's two; nearly the same share everywhere (quite the same could only be dialled in steps of a token
in all layers, 4 % of MACs at 128 tokens); what measured shares come to where all layers need as much."""

SPEEDUPS = (1.0, 1.5, 1.75, 2.0, 2.7, 3.0, 3.5, 4.0, 4.5, 4.8)
"""Of the table of quality, and others that nothing is fitted at."""

FITTED_ON, PREDICTED = 88, 32
"""Reviews."""

NAME = "token_speed"


def settings() -> dict[str, Any]:
    """What all runs have in common, the machine too."""
    return {
        "processor": processor(),
        "precision": "float32",
        "shapes": SHAPES,
        "profiles": PROFILES,
        "macs": MACS_SPEEDUPS,
        "speedups": SPEEDUPS,
        "reviews": [FITTED_ON, PREDICTED],
    }


def bert_base() -> Any:
    """BERT-base's shape with random weights, loaded as any checkpoint is."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        BertForSequenceClassification(BertConfig(num_labels=2)).save_pretrained(place)
        return load(place)


def points(model: Any, tokens: int) -> dict[str, Point]:
    """Dense, and every profile at the speed-up in MACs asked for at this length."""
    found = {DENSE: FULL}
    for name, facts in PROFILES.items():
        profile = RetentionProfile.model_validate({"base": [0.5] * LAYERS, "lengths": [tokens]} | facts)
        point = point_for(model.transformer, profile, MACS_SPEEDUPS[tokens])
        found[name] = point.model_copy(update={"name": name})
    first = {"name": UNCHOSEN, "token_score": "first_k"}
    return found | {UNCHOSEN: found["geometric"].model_copy(update=first)}


def shapes(model: Any, count: int, seconds: float) -> list[dict[str, Any]]:
    """An entry for each batch and length and each way of computing it, beside its target."""
    hugging = build("torch", model, count)
    found: list[dict[str, Any]] = []
    for batch, tokens in SHAPES:
        generator = torch.Generator().manual_seed(tokens)
        ids = torch.randint(1000, 30000, (batch, tokens), generator=generator).tolist()
        rows = [Encoded(each, None, False) for each in ids]
        must_agree("torch", hugging(rows), run_all(model, rows, FULL, batch))
        chosen = points(model, tokens)
        candidates: dict[str, Any] = {
            name: partial(run_all, model, rows, point, batch) for name, point in chosen.items()
        }
        candidates[HUGGING_FACE] = partial(hugging, rows)
        timings = interleaved(candidates, seconds=seconds)
        lines = [
            {
                "batch": batch,
                "tokens": tokens,
                "profile": name,
                "ms": timings[name].as_dict(),
                "macs_ratio": macs_ratio(model.transformer, rows, [LAYERS] * batch, chosen.get(name, FULL)),
                "against dense": ratio(timings, DENSE, name).paired,
                "against hugging face": ratio(timings, HUGGING_FACE, name).paired,
            }
            for name in candidates
        ]
        found += judged_shapes(lines)
        print(*found[-len(lines) :], sep="\n", flush=True)
    return found


def dial(seconds: float) -> list[dict[str, Any]]:
    """Predicted and measured ms per row, on reviews that were not fitted to.

    What is fitted is timed in the same rounds, so that drift of the machine is not held against the fit.
    """
    model = load(taught("imdb", 0, "mean"))
    test = read(str(prepare("imdb")["test"]))
    order = random.Random(0).sample(range(len(test)), FITTED_ON + PREDICTED)
    encoded = encode(model.tokenizer, test.take(order).texts, model.config.facts().max_tokens)
    fitted_on, rows = encoded[:FITTED_ON], encoded[FITTED_ON:]
    fitted = model.speeds()
    measured = {speedup: model.dial(speedup=speedup).point for speedup in SPEEDUPS}
    lines = []
    for batch in (1, 8):
        probes = probes_of(model, fitted_on, batch, list(fitted.values()))
        candidates: dict[str, Any] = {f"probe {name}": probe.run for name, probe in probes.items()}
        for speedup, point in measured.items():
            candidates[f"{speedup:g}"] = partial(run_all, model, rows, point, batch)
        timings = interleaved(candidates, seconds=seconds)
        probed = {name: timings[f"probe {name}"] for name in probes}
        fit = fit_of(probes, probed, batch=batch, precision="float32")
        for speedup, point in measured.items():
            timing = timings[f"{speedup:g}"]
            ms = timing.median_ms / len(rows)
            predicted = predicted_ms(model.transformer, fit, [len(row.ids) for row in rows], point)
            line = {
                "batch": batch,
                "speedup": speedup,
                "fitted": speedup == 1.0 or speedup in fitted,
                "macs_ratio": macs_ratio(
                    model.transformer, rows, [model.transformer.depth] * len(rows), point
                ),
                "ms": ms,
                "predicted_ms": predicted,
                "error": predicted / ms - 1,
                "measured speedup": ratio(timings, "1", f"{speedup:g}").paired,
                "probes spread": median(spread(each.as_dict()) for each in probed.values()),
            }
            lines.append(judged_dial(line, timing.as_dict()))
            print(lines[-1], flush=True)
    return lines


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """By number of threads, of the latest run: targets met, and how far predictions were off at most."""
    found = {}
    for run in runs:
        shapes, dialled = run["shapes"], run["dial"]
        aimed = [line for line in shapes if line["target"] is not None]
        found[f"{run['threads']} threads"] = {
            "profiles": len(aimed),
            "profiles_met": sum(line["met"] for line in aimed),
            "off": {
                name: max(abs(line["error"]) for line in dialled if line["fitted"] == at)
                for name, at in (("fitted", True), ("between", False))
            },
            "predictions": len(dialled),
            "predictions_met": sum(line["met"] for line in dialled),
            "noisy": sum(line["noisy"] for line in (*shapes, *dialled)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--again", action="store_true", help="also what is in the results already")
    options = parser.parse_args()
    common = settings()
    for count in map(int, options.threads.split(",")):
        if options.again or not any(run["threads"] == count for run in kept(NAME, common)):
            with threads(count):
                run = {
                    "threads": count,
                    "seconds": options.seconds,
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "shapes": shapes(bert_base(), count, options.seconds),
                    "dial": dial(4 * options.seconds),
                }
                add_run(NAME, common, run, summary)


if __name__ == "__main__":
    main()
