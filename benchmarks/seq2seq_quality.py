"""A T5 from scratch that reads less: quality and time against the speed-up of its encoder.

The recipe is that of `examples/t5_from_scratch.py`. Tokens are chosen by attention (ACC), at random, and by
place; `plain` read all tokens where the others lost some in the end, and then loses them untrained, by
attention alone. Time
is that of writing the name of a class, up to the token that ends it, and of its first token: of `leaving`
on the longest prompts (`timed`), and of the shape of flan-t5-small (`shape`, random weights) after 512
tokens, in float32 and in int8. It wants a machine that does nothing else.

    python benchmarks/seq2seq_quality.py [--seeds 0,1,2] [--threads 1] [--again]
        [--ways "leaving,plain,timed,shape,shape in int8"]

Models stay in `.cache/seq2seq/`; what is there, or in the results already, is not made again, but times with
`--again`. Every run keeps what each row got, its mean over the ways to ask, so that losses have a standard
error over rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from keyed import key_of
from paired import mean_of, numbers, packed_numbers
from results import CACHE, add_run, kept
from transformers import T5Config, T5ForConditionalGeneration
from verdicts import points as in_points
from verdicts import verdict

from lessen.data.prompts import TEMPLATES, Template, prompted
from lessen.data.table import Table
from lessen.loading import load
from lessen.machine import processor
from lessen.measure.answering import written
from lessen.measure.generation_speed import theirs
from lessen.measure.latency import threads
from lessen.measure.prefill_speed import reading_rows
from lessen.measure.rivals.generator import generator_twin
from lessen.measure.rouge import rouge_l
from lessen.plan import Point, RetentionProfile
from lessen.reshaping import in_few_bits
from lessen.runtime.answers import answer_ids, score_answers
from lessen.runtime.asking import encode_prompts
from lessen.runtime.retention import ratio_at
from lessen.runtime.text import Encoded

sys.path.append(str(Path(__file__).parent.parent / "examples"))
import t5_from_scratch as recipe

NAME = "seq2seq_quality"
WAYS = ("leaving", "plain")
TIMED, NEW_TOKENS = 24, 2
"""Prompts timed, as long as they get; and tokens of an answer: a word, and what ends it."""

TIMES, SHAPE, SHAPE_INT8 = "timed", "shape", "shape in int8"
ALL = (*WAYS, TIMES, SHAPE, SHAPE_INT8)

FLAN_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "vocab_size": 32_128}
"""What flan-t5-small is like, encoder and decoder alike."""

SHAPE_TOKENS = 512

LOST_AT_2X = 0.0075
"""What may be lost at an encoder twice as fast as measured."""

TAUGHT = {
    "sizes": recipe.SIZES,
    "words": recipe.WORDS,
    "rows": recipe.ROWS,
    "epochs": recipe.EPOCHS,
    "often": recipe.OFTEN,
    "rate": recipe.RATE,
    "spread": recipe.SPREAD,
    "boldest": recipe.BOLDEST,
    "longest": recipe.LONGEST,
    "written": recipe.WRITTEN,
}
"""What a trained model depends on besides its way and seed."""

SETTINGS = TAUGHT | {
    "speedups": recipe.SPEEDUPS,
    "scores": recipe.SCORES,
    "test_rows": recipe.TESTED,
    "answer_tokens": NEW_TOKENS,
    "shape": FLAN_SMALL,
    "shape_tokens": SHAPE_TOKENS,
}
"""What all runs have in common."""


def taught(way: str, seed: int) -> Path:
    """A trained model's folder."""
    out = CACHE / "seq2seq" / key_of(TAUGHT) / f"{way}-seed{seed}"
    if not (out / "config.json").exists():
        work = out.with_name(f"seed{seed}.work")
        recipe.trained(seed, work, leaving=way == "leaving").save_pretrained(out)
    return out


def curve(model: Any, task: str, score: str, known: dict[str, Any]) -> dict[str, Any]:
    """At every speed-up the mean over rows and ways to ask, and of each row its mean over the ways.

    Args:
        model: To be asked.
        task: What.
        score: By which tokens leave.
        known: What it comes to at some speed-ups, which is not measured again.
    """
    table = recipe.part(task, "test", recipe.TESTED[task])
    asked = [encode_prompts(model.tokenizer, way, table.texts, recipe.LONGEST) for way in TEMPLATES[task]]
    found = dict(known)
    for speedup in recipe.SPEEDUPS:
        if f"{speedup:g}" in found:
            continue
        point = recipe.at(model, score, speedup)
        pairs = zip(TEMPLATES[task], asked, strict=True)
        rows = np.mean([right(model, table, way, encoded, point) for way, encoded in pairs], axis=0)
        lengths = [len(row.ids) for encoded in asked for row in encoded]
        found[f"{speedup:g}"] = {
            "value": float(rows.mean()),
            "macs_ratio": ratio_at(model.transformer, point, lengths),
            "rows": packed_numbers(rows),
        }
    return found


def right(model: Any, table: Table, way: Template, encoded: list[Encoded], point: Point) -> list[float]:
    """For each row 1 or 0, whether the right answer is likeliest; or ROUGE-L of what was written."""
    made, inner = prompted(table, way), model.transformer
    if way.writes == "first sentence":
        pairs = zip(written(model, encoded, way, point), made.targets or [], strict=True)
        return [rouge_l(*pair) for pair in pairs]
    answers = [answer_ids(model.tokenizer, answer, inner) for answer in made.answers]
    likeliest = score_answers(inner, [row.ids for row in encoded], answers, point).argmax(1).tolist()
    return [float(said == label) for said, label in zip(likeliest, made.labels or [], strict=True)]


def shaped() -> Any:
    """flan-t5-small with random weights, and retention that falls evenly: its attention says nothing."""
    torch.manual_seed(0)
    facts: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    config = T5Config(**FLAN_SMALL, **facts, decoder_start_token_id=0)
    with tempfile.TemporaryDirectory() as place:
        T5ForConditionalGeneration(config).save_pretrained(place)
        model = load(place)
    base = (0.5,) * model.transformer.depth
    profile = RetentionProfile(family="geometric", base=base, lengths=(SHAPE_TOKENS,))
    model.config.profile = profile.model_dump(mode="json")
    return model


def longest_prompts(model: Any) -> list[list[int]]:
    """Reviews that were cut, asked in every way."""
    table = recipe.part("sentiment", "test", TIMED)
    ways = TEMPLATES["sentiment"]
    encoded = [
        row for way in ways for row in encode_prompts(model.tokenizer, way, table.texts, recipe.LONGEST)
    ]
    return [row.ids for row in encoded if row.truncated][:TIMED]


def random_prompts() -> list[list[int]]:
    """Of the shape."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(FLAN_SMALL["vocab_size"], (TIMED, SHAPE_TOKENS), generator=draw)
    return ids.tolist()


def timed(
    model: Any, prompts: list[list[int]], count: int, seconds: float, twin: Any = None
) -> list[dict[str, Any]]:
    """Time to the first and to the last token at every speed-up, beside transformers.

    Args:
        model: To be timed.
        prompts: To be read.
        count: Threads.
        seconds: After so many no further prompt is begun.
        twin: The model transformers runs; the same if None.
    """
    dialled = {speedup: recipe.at(model, "mean", speedup) for speedup in recipe.SPEEDUPS}
    with threads(count):
        rivals = {"transformers": theirs(generator_twin(twin or model))}
        options: dict[str, Any] = {"new_tokens": NEW_TOKENS, "seconds": seconds, "rivals": rivals}
        lines = reading_rows(model, dialled, prompts, kind="lessen", **options)
    return [line.as_dict() | {"threads": count} for line in lines]


def run_of(way: str, seed: int, score: str, count: int, seconds: float) -> dict[str, Any]:
    """What is measured of one model and one score; time of ACC's only."""
    if way in (SHAPE, SHAPE_INT8):
        model = twin = shaped()
        if way == SHAPE_INT8:
            model = in_few_bits(twin, "int8")
        return {"time": timed(model, random_prompts(), count, seconds, twin)}
    if way == TIMES:
        model = load(taught("leaving", seed))
        return {"time": timed(model, longest_prompts(model), count, seconds)}
    model = load(taught(way, seed))
    whole = of(kept(NAME, SETTINGS), way, "mean", seed)  # with all tokens there is nothing to score
    known = {task: {"1": whole[0]["tasks"][task]["1"]} if whole else {} for task in recipe.TASKS}
    return {"tasks": {task: curve(model, task, score, known[task]) for task in recipe.TASKS}}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """By task and selection: mean over seeds, what was lost against 1x of `plain`, and the target."""
    lines: dict[str, Any] = {}
    for task, way, score in product(recipe.TASKS, WAYS, recipe.SCORES):
        own = of(runs, way, score)
        start = [run for run in of(runs, "plain", "mean") if run["seed"] in {each["seed"] for each in own}]
        own = [run for run in own if run["seed"] in {each["seed"] for each in start}]
        for speedup in (f"{each:g}" for each in recipe.SPEEDUPS if own):
            cells = [run["tasks"][task][speedup] for run in own]
            values = [cell["value"] for cell in cells]
            lines.setdefault(task, {}).setdefault(f"{way}, {score}", {})[speedup] = {
                "value": mean(values),
                "sd": stdev(values) if len(values) > 1 else None,
                "loss": lost([run["tasks"][task]["1"] for run in start], cells),
                "macs_ratio": mean(cell["macs_ratio"] for cell in cells),
                "seeds": len(values),
            }
    alike = timed_alike(runs)
    times = {way: faster(of(alike, way, "mean")) for way in (TIMES, SHAPE, SHAPE_INT8)}
    aim = target(times[TIMES], lines)
    return {
        "tasks": lines,
        "time": times,
        "target": aim,
        "timed_on": alike[-1]["processor"] if alike else None,
    }


def lost(before: list[dict[str, Any]], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """What rows lose on average, as `paired.mean_of`.

    Args:
        before: What each seed came to, as `curve` says.
        cells: The same with what may have lost by it, in the order of `before`.
    """
    pairs = list(zip(before, cells, strict=True))
    found = mean_of(np.array([numbers(one["rows"]) - numbers(other["rows"]) for one, other in pairs]))
    return found | {"mean": mean(one["value"] - other["value"] for one, other in pairs)}  # rows are rounded


def of(runs: list[dict[str, Any]], way: str, score: str, seed: int | None = None) -> list[dict[str, Any]]:
    """The runs of a training and a score, by seed; of each the latest.

    Args:
        runs: Of all kinds.
        way: Of training.
        score: By which tokens left.
        seed: Of this seed alone.
    """
    found = {run["seed"]: run for run in runs if (run["way"], run["score"]) == (way, score)}
    return [found[each] for each in sorted(found) if seed in (None, each)]


def timed_alike(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that were timed on the processor of the latest."""
    processors = [run["processor"] for run in runs if "processor" in run]
    return [run for run in runs if "processor" in run and run["processor"] == processors[-1]]


def faster(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How many times faster the first and the last token come than at 1x, mean over runs that were timed."""
    found: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        lines = run.get("time", [])
        for line in lines:
            whole = next(each for each in lines if each["speedup"] == 1)
            name = line["kind"] if line["speedup"] is None else f"{line['speedup']:g}"
            found.setdefault(name, []).append(
                {at: whole[at] / line[at] for at in ("first_token_ms", "total_ms")} | {"ms": line["total_ms"]}
            )
    return {
        name: {
            "first": mean(each["first_token_ms"] for each in lines),
            "total": mean(each["total_ms"] for each in lines),
            "ms": mean(each["ms"] for each in lines),
        }
        for name, lines in found.items()
    }


def target(times: dict[str, Any], lines: dict[str, Any]) -> str:
    """Whether reviews lose at most `LOST_AT_2X` where answers were first measured to come twice as fast."""
    cells = lines.get("sentiment", {}).get("leaving, mean")
    if cells is None or not times:
        return "not measured yet"
    quick = [speedup for speedup in cells if times.get(speedup, {}).get("total", 0) >= 2]
    if not quick:
        best = max((times[each]["total"] for each in cells if each in times), default=1.0)
        return f"missed: no speed-up here makes answers twice as fast, at most {best:.2f} times"
    loss = cells[quick[0]]["loss"]
    said = verdict(LOST_AT_2X - loss["mean"], loss["error"])
    points = in_points(loss["mean"], loss["error"])
    return f"{said}: {points} points lost at {quick[0]}x, {loss['seeds']} seeds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default=",".join(ALL))
    parser.add_argument("--scores", default=",".join(recipe.SCORES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--again", action="store_true", help="take times again")
    options = parser.parse_args()
    if unknown := set(options.ways.split(",")) - set(ALL):
        parser.error(f"--ways {', '.join(sorted(unknown))}: choose of {', '.join(ALL)}")
    wanted = product(*(each.split(",") for each in (options.seeds, options.ways, options.scores)))
    for seed, way, score in wanted:
        if (way != "leaving" and score != "mean") or (way in (SHAPE, SHAPE_INT8) and seed != "0"):
            continue
        run = {"way": way, "seed": int(seed), "score": score}
        run |= {} if way in WAYS else {"processor": processor(), "threads": options.threads}
        again = options.again and way not in WAYS
        if again or not any(run.items() <= each.items() for each in kept(NAME, SETTINGS)):
            found = run_of(way, int(seed), score, options.threads, options.seconds)
            add_run(NAME, SETTINGS, run | found, summary)
            print(run, flush=True)


if __name__ == "__main__":
    main()
