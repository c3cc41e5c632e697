"""Prompt tokens that leave: time to the first token and loss of what follows, against speed-up of reading.

Time: GPT-2's shape with random weights, and SmolLM2, at 512 and 1,024 tokens; every score at the same
retention, beside the prediction of latencies fitted in the same rounds to whole prompts of this and other
lengths, and to prompts thinned at other speed-ups. Judged is each speed-up above 1x, by the worst of its
scores: they share one prediction. Loss: the tokens after a prompt scored one by one (no token of the prompt
itself is: latency-adjustable page, 1.9), of a model as it is and after training with prompt tokens leaving,
or with all of them (`plain`). Beside the scores: the prompt cut to its last tokens, so few that reading them
takes as many MACs (`cut`); and as it was before, a profile whose shares compound over layers (`compounding`).
Recall: the same of prompts that end with words out of themselves, scored on what followed there: who has lost
the passage cannot know. It is another place in each text, from its beginning to its end.

Of SmolLM2 on WikiText-2's test articles: half of what it learns from is film reviews, half WikiText-2's
validation articles, on which the retention profile is measured too; texts are spread over articles, one of
each while there are enough, and errors are over articles. Of a small GPT-2 trained from nothing on film
reviews (`examples/gpt2_from_scratch.py`), on other reviews.

    LESSEN_DATA=/path/to/data python benchmarks/prefill_tokens.py [--what time,loss,recall]
        [--models gpt2,smollm2] [--seeds 0,1,2] [--trainings none,leaving,plain] [--threads 2,1] [--again]

What is in the results already is not made again, but times with `--again`.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from keyed import key_of
from paired import numbers, packed_numbers
from results import CACHE, add_run, data_folder, kept
from transformers import GPT2Config, GPT2LMHeadModel
from verdicts import NOISY, spread

from lessen.artefact import write_json
from lessen.data.documents import documents
from lessen.loading import load
from lessen.machine import processor
from lessen.measure.latency import interleaved, ratio, threads
from lessen.measure.latency_fit import fit_of, probes_of
from lessen.plan import FULL, Point, RetentionProfile
from lessen.runtime.answers import score_own
from lessen.runtime.decoding import Decoding
from lessen.runtime.generation import generate
from lessen.runtime.latency_model import predicted_ms
from lessen.runtime.retention import alpha_for, macs_cost, point_for, ratio_at
from lessen.runtime.text import Encoded
from lessen.tokens.elimination import RECENT_SHARE, SPAN, SPANS
from lessen.tokens.passes import drawn
from lessen.tokens.usual import usual_elimination
from lessen.train.fine_tuning import Recipe
from lessen.train.lessons import Lesson, learn_to_answer

sys.path.append(str(Path(__file__).parent.parent / "examples"))
import gpt2_from_scratch as recipe

NAME = "prefill_tokens"
MODELS = ("gpt2", "smollm2")
SCORES = ("mean", "causal_norm", "last_query", "window", "random", "first_k")
CONTROL, CUT, COMPOUNDING = "last_k", "cut", "window, compounding"
"""Lines of the losses besides the scores."""

SPEEDUPS = (1.0, 1.5, 2.0, 3.0, 3.72)
FITTED_AT = (1.25, 1.75, 2.5, 4.0)
"""Speed-ups latencies are fitted at; none of them is predicted."""

LOSSES = ("loss", "recall")
"""What is scored: the text that follows, or one of the prompt's own passages."""

PRECISION = torch.bfloat16
"""Losses are taken in: faster than float32, and for every way alike."""

LENGTHS = (512, 1024)
NEW_TOKENS = 64
"""Scored after each prompt."""

OFF = 0.2
"""Share of the time measured that a prediction may be off by."""

TEXTS, PROFILED = 48, 24
"""Prompts of SmolLM2 scored, and prompts a profile is measured on; at most."""

RECALLED, CUE = 24, 16
"""Prompts of which a passage is asked for, at most, and tokens they ask with."""

REVIEWS = 300
"""Prompts of the small GPT-2 scored."""

TRAINING: dict[str, Any] = {
    "prompt_tokens": 448,
    "new_tokens": 64,
    "rows": 400,
    "learning_rate": 2e-5,
    "speedup": 3.72,
}
"""`rows`: half of them reviews."""

TRAININGS = ("none", "leaving", "plain")

KEEPS = {
    "recent": RECENT_SHARE,
    "span": [SPAN, SPANS],
    **usual_elimination(causal=True)._asdict(),
}
"""What elimination in a prompt goes by, unless it is told otherwise; it is in what was trained with it."""

FROM_SCRATCH = {
    name: getattr(recipe, name)
    for name in ("PROMPT", "FOLLOWS", "SIZES", "SHORTEST", "RATE", "BATCH", "AGAIN", "PROFILED", "BOLDEST")
}
"""What a small GPT-2 depends on besides its training and seed."""

SETTINGS = {
    "scores": SCORES,
    "speedups": SPEEDUPS,
    "fitted_at": FITTED_AT,
    "lengths": LENGTHS,
    "new_tokens": NEW_TOKENS,
    "texts": TEXTS,
    "training": TRAINING,
    "profiled": PROFILED,
    "reviews": REVIEWS,
    "recall": [RECALLED, CUE],
    "precision": str(PRECISION).removeprefix("torch."),
    "from_scratch": FROM_SCRATCH,
    "keeps": KEEPS,
}


def gpt2() -> Any:
    """GPT-2's shape with random weights, and retention that falls evenly: its attention says nothing."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        GPT2LMHeadModel(GPT2Config()).save_pretrained(place)
        model = load(place)
    depth = model.transformer.depth
    model.config.profile = RetentionProfile(
        family="geometric", base=(0.5,) * depth, lengths=LENGTHS
    ).model_dump(mode="json")
    return model


def smollm2(family: Any = None) -> Any:
    """SmolLM2 as it is, with a profile measured on WikiText's validation articles."""
    model = load("builtin:smollm2-135m")
    assert model.tokenizer is not None
    chosen = spread_out(pieces(model, "validation", LENGTHS[0]), PROFILED)
    texts = [model.tokenizer.decode(ids) for _, ids in chosen]
    return model.measure_profile(texts, family=family, max_tokens=LENGTHS[0])


def pieces(model: Any, part: str, length: int) -> list[tuple[int, list[int]]]:
    """WikiText-2's articles, cut into pieces of exactly so many tokens, each with its article's number."""
    table = documents(str(data_folder() / "wikitext2" / f"{part}.txt"))
    found = []
    for article, text in enumerate(table.texts):
        ids = model.tokenizer(text, verbose=False)["input_ids"]
        found += [(article, ids[at : at + length]) for at in range(0, len(ids) - length + 1, length)]
    return found


def spread_out(found: Sequence[tuple[int, list[int]]], count: int) -> list[tuple[int, list[int]]]:
    """At most so many pieces, of as many articles as there are: a second one of any when all have one.

    Of more articles than are wanted those are taken that lie evenly among them.
    """
    of: dict[int, list[tuple[int, list[int]]]] = {}
    for piece in found:
        of.setdefault(piece[0], []).append(piece)
    chosen: list[tuple[int, list[int]]] = []
    for turn in range(max(map(len, of.values()), default=0)):
        left = [own[turn] for own in of.values() if turn < len(own)]
        some = min(count - len(chosen), len(left))
        chosen += [left[place * len(left) // some] for place in range(some)]
    return chosen


def at(model: Any, speedup: float, score: str, tokens: int, profile: RetentionProfile | None = None) -> Point:
    """As many tokens leave as a speed-up takes at one length, those that stay chosen by a score."""
    profile = profile or model.config.retention_profile()
    profile = profile.model_copy(update={"lengths": (tokens,)})
    point = point_for(model.transformer, profile, speedup)
    if point.retention is None:
        return point
    return point.model_copy(update={"token_score": score, "name": f"{speedup:g}x {score}"})


def first_token(model: Any, ids: list[int], point: Point) -> None:
    next(generate(model.transformer, [ids], max_new_tokens=1, decoding=Decoding(prompts=point)))


def times(name: str, tokens: int, count: int, seconds: float) -> dict[str, Any]:
    """Time to the first token of every score at every speed-up, and what the fit says of it."""
    model = gpt2() if name == "gpt2" else smollm2()
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(100, 40_000, (tokens,), generator=generator).tolist()
    fitted_on = [Encoded(ids[: tokens * eighth // 8], None, False) for eighth in (2, 3, 4, 5, 6, 7, 8)]
    with threads(count):
        probes = probes_of(model, fitted_on, 1, [at(model, each, "mean", tokens) for each in FITTED_AT])
        candidates: dict[str, Any] = {f"probe {key}": probe.run for key, probe in probes.items()}
        asked = {(1.0, "all"): FULL} | {
            (speedup, score): at(model, speedup, score, tokens)
            for speedup, score in product(SPEEDUPS[1:], SCORES)
        }
        for (speedup, score), point in asked.items():
            candidates[f"{speedup:g} {score}"] = partial(first_token, model, ids, point)
        timings = interleaved(candidates, seconds=seconds)
        fit = fit_of(
            probes, {key: timings[f"probe {key}"] for key in probes}, batch=1, precision=model.precision
        )
    lines = []
    for (speedup, score), point in asked.items():
        timing = timings[f"{speedup:g} {score}"]
        predicted = predicted_ms(model.transformer, fit, [tokens], point)
        error = predicted / timing.median_ms - 1
        wide = spread(timing.as_dict())
        lines.append(
            {
                "speedup": speedup,
                "score": score,
                "ms": timing.as_dict(),
                "macs_ratio": ratio_at(model.transformer, point, [tokens]),
                "faster": ratio(timings, "1 all", f"{speedup:g} {score}").paired,
                "predicted_ms": predicted,
                "error": error,
                "noisy": wide > NOISY,
            }
        )
        print(name, tokens, count, lines[-1], flush=True)
    return {"lines": lines, "fit_error": fit.error}


def small_gpt2(training: str, seed: int) -> Any:
    """The small GPT-2 after it read its reviews, or more after that."""
    way = FROM_SCRATCH | (KEEPS if training == "leaving" else {})
    place = CACHE / "prefill" / f"gpt2-{key_of(way)}"
    out, work = place / f"{training}-seed{seed}", place / f"seed{seed}.work"
    if not (out / "config.json").exists():
        if training == "none":
            recipe.trained(seed, work).save_pretrained(out)
        else:
            start = small_gpt2("none", seed)
            recipe.again(start, seed, work, leaving=training == "leaving").save_pretrained(out)
    model = load(out)
    if training == "none":
        return recipe.profiled(model)
    model.config.profile = small_gpt2("none", seed).config.profile
    return model


def taught(training: str, seed: int) -> Any:
    """SmolLM2 after one of the trainings, with the profile it had before."""
    model = smollm2()
    if training == "none":
        return model
    way = TRAINING | ({"profiled": PROFILED} | KEEPS if training == "leaving" else {})
    out = CACHE / "prefill" / f"smollm2-{key_of(way)}" / f"{training}-seed{seed}"
    if not (out / "training.json").exists():
        learn_on(model, training, seed, out)
    after = load(out)
    after.config.profile = model.config.profile
    return after


def learn_on(model: Any, training: str, seed: int, out: Path) -> None:
    """Train SmolLM2 further, with prompt tokens leaving or not, and save it."""
    lessons = lessons_of(model)
    inner, profile = model.transformer, model.config.retention_profile()
    passes = None
    if training == "leaving":
        alpha = alpha_for(inner, profile, TRAINING["speedup"])
        passes = drawn(profile, alpha, inner.shape, inner.architecture)
    torch.manual_seed(seed)
    how = Recipe(epochs=1.0, batch_size=4, learning_rate=TRAINING["learning_rate"], seed=seed)
    work = out.with_name(f"{out.name}.work")
    record = learn_to_answer(model, lessons, how, work, passes=passes)
    model.save_pretrained(out)
    write_json(out / "training.json", {"training": [record]})
    shutil.rmtree(work, ignore_errors=True)


def lessons_of(model: Any) -> list[Lesson]:
    """Reviews and pieces of articles, as many of each."""
    ends, half = TRAINING["new_tokens"], TRAINING["rows"] // 2
    whole = TRAINING["prompt_tokens"] + ends
    long = [ids for _, ids in spread_out(pieces(model, "validation", whole), half)]
    articles = len(long)
    for text in documents("builtin:imdb-reviews").texts:
        if len(long) >= 2 * articles:
            break
        ids = model.tokenizer(text, verbose=False)["input_ids"][:whole]
        long += [ids] if len(ids) == whole else []
    return [Lesson(ids[:-ends], ids[-ends:]) for ids in long]


def losses(what: str, name: str, training: str, seed: int, tokens: int) -> dict[str, Any]:
    """Nats for each token after a prompt, of every text, at every speed-up, in every way tokens are lost.

    Of `recall` the prompt ends with a cue, words out of itself, and what is scored is what followed them; the
    first text is asked for its beginning, the last for its end, others for what lies between.
    """
    if name == "gpt2":
        model = small_gpt2(training, seed)
        chosen = list(enumerate(recipe.long_reviews(model, "test", REVIEWS)))
    else:
        model = taught(training, seed)
        count = RECALLED if what == "recall" else TEXTS
        chosen = spread_out(pieces(model, "test", tokens + NEW_TOKENS), count)
    model = model.to(PRECISION)
    articles, texts = [article for article, _ in chosen], [ids for _, ids in chosen]
    prompts, follow = [ids[:tokens] for ids in texts], [ids[tokens:] for ids in texts]
    if what == "recall":
        cues = np.linspace(0, tokens - 2 * CUE - NEW_TOKENS, len(texts)).astype(int).tolist()
        asked = list(zip(cues, texts, strict=True))
        prompts = [ids[: tokens - CUE] + ids[cue : cue + CUE] for cue, ids in asked]
        follow = [ids[cue + CUE : cue + CUE + NEW_TOKENS] for cue, ids in asked]
    before = smollm2("acc").config.retention_profile() if (name, training) == ("smollm2", "none") else None
    ways = [CUT, CONTROL, *SCORES, *([] if before is None else [COMPOUNDING])]
    found: dict[str, dict[str, Any]] = {}
    for way, speedup in [("all", 1.0), *product(ways, SPEEDUPS[1:])]:
        read, point = prompts, FULL
        if way == CUT:
            last = longest_within(model, tokens, speedup)
            read = [prompt[-last:] for prompt in prompts]
        elif way == COMPOUNDING:
            point = at(model, speedup, KEEPS["score"], tokens, before)
        elif way != "all":
            point = at(model, speedup, way, tokens)
        scored = score_own(model.transformer, read, follow, point, batch_size=4)
        each = [-float(row.double().mean()) for row in scored]
        loss = float(of_articles(each, articles).mean())
        found.setdefault(way, {})[f"{speedup:g}"] = {"loss": loss, "texts": packed_numbers(each)}
        print(what, name, training, seed, tokens, speedup, way, round(loss, 4), flush=True)
    return {"curve": found, "articles": articles}


def longest_within(model: Any, tokens: int, speedup: float) -> int:
    """The longest prompt that takes so many times fewer MACs to read than one of these tokens."""
    cost = macs_cost(model.transformer)
    return max(length for length in range(1, tokens) if cost(length, None) * speedup <= cost(tokens, None))


def of_articles(each: Any, articles: Sequence[int]) -> Any:
    """The mean over each article's texts, `[articles]`."""
    _, place, counts = np.unique(articles, return_inverse=True, return_counts=True)
    return np.bincount(place, weights=np.asarray(each, dtype=float)) / counts


def judged(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Whether predictions hold: at how many speed-ups above 1x, by the worst of their scores.

    What was measured at 1x is in the fit, and scores at one speed-up have one prediction.
    """
    errors: dict[float, list[float]] = {}
    for line in lines:
        if line["speedup"] > 1:
            errors.setdefault(line["speedup"], []).append(abs(line["error"]))
    worst = [max(each) for each in errors.values()]
    return {
        "met": sum(each <= OFF for each in worst),
        "of": len(worst),
        "off": max(worst, default=None),
        "noisy": sum(line["noisy"] for line in lines),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Times of the latest runs; losses and perplexities, mean over seeds, with errors over articles."""
    time = {
        f"{r['model']}, {r['tokens']} tokens, {r['threads']} threads": r for r in runs if r["what"] == "time"
    }
    told: dict[str, Any] = {what: {} for what in LOSSES}
    told["time"] = {name: judged(run["lines"]) for name, run in time.items()}
    each = product(LOSSES, MODELS, TRAININGS, (recipe.PROMPT, *LENGTHS))
    for what, name, training, tokens in each:
        of = {"what": what, "model": name, "training": training, "tokens": tokens}
        own = [run for run in runs if of.items() <= run.items()]
        if not own:
            continue
        cells: dict[str, dict[str, Any]] = {}
        ways = [way for way in own[0]["curve"] if way != "all"]
        for score, speedup in [("all", "1"), *product(ways, (f"{each:g}" for each in SPEEDUPS[1:]))]:
            values = [run["curve"][score][speedup]["loss"] for run in own]
            more = [
                numbers(run["curve"][score][speedup]["texts"]) - numbers(run["curve"]["all"]["1"]["texts"])
                for run in own
            ]
            over = of_articles(np.mean(more, axis=0), own[0]["articles"])
            cells.setdefault(score, {})[speedup] = {
                "loss": mean(values),
                "perplexity": math.exp(mean(values)),
                "sd": stdev(values) if len(values) > 1 else None,
                "over_whole": float(over.mean()),
                "over_whole_se": float(over.std(ddof=1) / math.sqrt(len(over))),
                "seeds": len(own),
                "articles": len(over),
            }
        told[what][f"{name}, {training}, {tokens} tokens"] = cells
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", default="time,loss,recall")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--trainings", default=",".join(TRAININGS))
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--again", action="store_true", help="times that are in the results already, too")
    options = parser.parse_args()
    lengths = [int(each) for each in options.lengths.split(",")]
    asked: list[dict[str, Any]] = []
    if "time" in options.what.split(","):
        each = product(options.models.split(","), lengths, map(int, options.threads.split(",")))
        here = {"what": "time", "processor": processor()}
        asked += [here | {"model": m, "tokens": n, "threads": count} for m, n, count in each]
    for what in (each for each in LOSSES if each in options.what.split(",")):
        seeds = list(map(int, options.seeds.split(",")))
        for model, training in product(options.models.split(","), options.trainings.split(",")):
            if what == "recall" and model == "gpt2":  # it writes no word again
                continue
            own = seeds[:1] if (model, training) == ("smollm2", "none") else seeds
            asked += [
                {"what": what, "model": model, "training": training, "tokens": tokens, "seed": seed}
                for tokens, seed in product((recipe.PROMPT,) if model == "gpt2" else lengths, own)
            ]
    for run in asked:
        known = any(run.items() <= each.items() for each in kept(NAME, SETTINGS))
        if known and not (options.again and run["what"] == "time"):
            continue
        if run["what"] == "time":
            found = times(run["model"], run["tokens"], run["threads"], options.seconds)
        else:
            found = losses(run["what"], run["model"], run["training"], run["seed"], run["tokens"])
        found["date"] = datetime.now(UTC).isoformat(timespec="seconds")
        add_run(NAME, SETTINGS, run | found, summary)


if __name__ == "__main__":
    main()
