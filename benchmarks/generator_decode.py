"""How a generator with exits decodes: its own loop, early tokens, self-speculation, and rivals.

    python benchmarks/generator_decode.py [--folder FOLDER] [--prompts 200] [--without-rivals] [--smoke]

FOLDER was made by benchmarks/generator_exits.py; if none is given it is the one whose heads that script chose
and trained longest. Prompts are beginnings of the reviews its plan kept for tests; nothing was chosen on
them. The parts, each kept once it is finished:

* `spec`: whether 200 texts of 64 tokens are those of full depth, ties apart; drafts kept, weights read.
  Drafts are made as `lessen compress` chose it from its traces of tuning prompts.
* `fixed`: drafts by one exit for every token, a fixed number at a time (as LayerSkip does, with our heads);
  exit and number are those that read the fewest weights on tuning prompts.
* `direct`: weights, passes, MACs and layers at the certified Point, with exact keys and values and with
  propagated ones; where tokens are named, and which of them full depth would not have named, given the text
  so far.
* `boolq`: yes or no after passage and question, at full depth and at the Point.
* `speed`: tokens/s of every mode in every precision, in turn with what else runs such weights: transformers
  in float32 and bfloat16, llama.cpp and OpenVINO GenAI where weights have few bits. Without one of these the
  run is not finished, and is made again when it is there.

Where nothing was certified there is no early token to look at; the rest runs. Of a part that was stopped,
finished batches of texts are kept in `.cache/generator-decode/`. `--smoke` runs all of it on a tiny random
model in a minute and keeps nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from math import exp, log
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import results
import torch
from generator_drafts import decoding_of, early_point, fixed, spec
from generator_questions import boolq
from generator_texts import Batches, Prompts, counted
from generator_verdicts import FEW_BITS
from results import CACHE, add_run, kept

from lessen.artefact import read_json
from lessen.certificate import one_digest
from lessen.cli.bench_generator import _of_gguf
from lessen.hf import LessenForCausalLM
from lessen.loading import load
from lessen.measure.decoded import decoded, rightness
from lessen.measure.generation_speed import LOSSY, Run, compare, is_greedy, modes_of, ours, row, theirs
from lessen.measure.rivals.generator import generator_twin
from lessen.measure.rivals.gguf_runtimes import llama_cpp_build
from lessen.plan import ExitRule, Point, Precision
from lessen.promise.prompts import Prompting, prompts_of
from lessen.records import parse
from lessen.runtime.decoding import OFF, Decoding
from lessen.systems.generator import LanguagePlan, read_documents

NAME = "generator_decode"
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", *FEW_BITS)

RIVALS = {"llama_cpp": "llama-cpp-python", "openvino_genai": "openvino-genai"}
"""Modules of runtimes of GGUF files, and what brings them."""


def direct(batches: Batches, prompts: Prompts) -> dict[str, Any]:
    """Early tokens at the certified Point; without one, that there is none."""
    model, lines = batches.model, {}
    point = early_point(model)
    if point is None:
        print("direct missed: nothing certified", file=sys.stderr)
        return {"point": None, "certified": None, "loss": None, "lines": {}}
    off, whole = batches.continued(prompts, OFF)
    for kv in ("exact", "propagate"):
        found, tally = batches.continued(prompts, model.decoding("direct", point, kv))
        right = rightness(model, prompts, found, off)
        line = decoded(f"direct {kv}", point.name, found, tally, right, off)
        lines[line.mode] = counted(line, tally, whole)
    promise = point.promise
    certified = {"epsilon": promise.epsilon, "delta": promise.delta} if promise and promise.delta else None
    return {
        "point": point.name,
        "certified": certified,
        "loss": promise and promise.loss,
        "lines": lines,
    }


def speed(
    folder: str,
    precision: Any,
    prompts: Prompts,
    tokens: int,
    seconds: float,
    point: Point | None,
    drafts: dict[str, Decoding],
) -> dict[str, Any]:
    """Every mode and every rival, in turn; `drafts` are those that were chosen on tuning prompts."""
    model = load(folder, precision=precision)
    assert isinstance(model, LessenForCausalLM)
    ways = {"off": OFF} if point is None else modes_of(model, point)
    candidates = {mode: ours(model, decoding) for mode, decoding in (ways | drafts).items()}
    others: dict[str, Any] = {}
    if precision in ("float32", "bfloat16"):
        candidates["transformers"] = theirs(generator_twin(model))
    else:
        longest = max(map(len, prompts)) + tokens
        others = _of_gguf(folder, ("llama.cpp", "openvino-genai"), longest, named=False)
    runs = compare(candidates | others, prompts, new_tokens=tokens, seconds=seconds)
    own = [run.tokens for run in runs["off"]]
    lines = []
    for mode, found in runs.items():
        same = [run.tokens for run in found] == own
        if mode == "off":
            same = all(is_greedy(model, p, t) for p, t in zip(prompts, own, strict=False))
        dtype = "gguf" if mode in others else None
        line = row(model, mode, mode, found, prompts, identical=same, dtype=dtype).as_dict()
        line["agreement"] = agreement(model, prompts, found, own) if mode in LOSSY else None
        line["total_ms"] = 1e3 * median(run.seconds[-1] for run in found)
        lines.append(line | {"rates": [round(run.rate, 3) for run in found]})
    return {
        "precision": precision,
        "lines": lines,
        "missing": sorted(missing(folder, precision, others)),
        "builds": {"llama.cpp": llama_cpp_build()} if "llama.cpp" in others else {},
    }


def agreement(
    model: LessenForCausalLM, prompts: Prompts, found: Sequence[Run], own: Sequence[tuple[int, ...]]
) -> dict[str, float | None]:
    """Share of the tokens full depth of these weights would have named, mean over texts, and its error."""
    texts, whole = [list(run.tokens) for run in found], [list(tokens) for tokens in own]
    shares = [mean(right) for right in rightness(model, prompts[: len(texts)], texts, whole)]
    return {"mean": mean(shares), "se": error_of(shares) if len(shares) > 1 else None}


def missing(folder: str, precision: str, others: Any) -> set[str]:
    """Rivals that should have run beside weights of few bits and did not."""
    return {"llama.cpp", "openvino-genai"} - set(others) if precision in FEW_BITS else set()


def times_as_fast(rates: dict[str, list[float]], one: str, other: str) -> dict[str, float | None] | None:
    """How many times as fast one mode is as another, prompt by prompt: geometric mean, standard error."""
    if one not in rates or other not in rates:
        return None
    logs = [log(a / b) for a, b in zip(rates[one], rates[other], strict=True)]
    ratio = exp(mean(logs))
    return {"ratio": ratio, "se": ratio * error_of(logs)} if len(logs) > 1 else {"ratio": ratio, "se": None}


def error_of(values: Sequence[float]) -> float:
    """Standard error of a mean."""
    return stdev(values) / len(values) ** 0.5


PAIRS = (
    ("off", "transformers"),
    ("spec", "off"),
    ("spec", "fixed draft"),
    ("direct exact", "off"),
    ("direct propagate", "off"),
    *((mode, rival) for mode in ("off", "spec", "direct exact") for rival in ("llama.cpp", "openvino-genai")),
)
"""Compared in one run, prompt by prompt."""


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the issue's table."""
    found: dict[str, Any] = {}
    for run in runs:
        if run["part"] == "speed":
            rates = {line["mode"]: line["rates"] for line in run["lines"]}
            found.setdefault("speed", {})[run["precision"]] = {
                "tokens_per_s": {
                    line["mode"]: {
                        "rate": line["tokens_per_s"],
                        "se": error_of(line["rates"]) if line["runs"] > 1 else None,
                        "first_token_ms": line["first_token_ms"],
                        "weight_passes": line["weight_passes"],
                        "total_ms": line["total_ms"],
                        "agreement": line["agreement"],
                        "identical": line["identical"],
                        "dtype": line["dtype"],
                        "runs": line["runs"],
                    }
                    for line in run["lines"]
                },
                "times_as_fast": {
                    f"{one} / {other}": ratio
                    for one, other in PAIRS
                    if (ratio := times_as_fast(rates, one, other)) is not None
                },
                "missing": run["missing"],
                "builds": run["builds"],
            }
        elif run["part"] in ("spec", "fixed"):
            names = (
                "texts",
                "tokens",
                "identical",
                "ties",
                "gaps",
                "acceptance",
                "draft_length",
                "weight_passes",
                "weights_saved",
                "passes_saved",
                "layer",
                "rule",
                "most",
                "foretold",
            )
            found[run["part"]] = {name: run[name] for name in names if name in run}
        elif run["part"] == "direct":
            fields = (
                "weights_saved",
                "passes_saved",
                "macs_saved",
                "agreement",
                "same_text",
                "mean_layers",
                "named_after",
                "wrong_after",
                "wrong_at",
                "tokens",
            )
            lines = {mode: {name: line[name] for name in fields} for mode, line in run["lines"].items()}
            found["direct"] = {key: run[key] for key in ("point", "certified", "loss")} | {"lines": lines}
        else:
            found["boolq"] = {key: run[key] for key in ("rows", "wording", "tried", "lines", "change")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180, help="of timing, for each precision")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without-rivals", action="store_true", help="time beside those there are")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.smoke:
        with tempfile.TemporaryDirectory() as place:
            results.RESULTS = results.CACHE = Path(place)
            folder, prompts = tiny(Path(place) / "tiny")
            measure(folder, prompts[:2], prompts[2:], 2, 6, 1.0)
        return
    if not options.without_rivals:
        check_rivals()
    folder = options.folder or str(chosen_folder())
    if not (Path(folder) / "plan.json").exists():
        sys.exit(f"{folder} has no plan: make it with benchmarks/generator_exits.py, or give --folder")
    plan = parse(LanguagePlan, read_json(Path(folder) / "plan.json", "make it again"), "plan")
    model, parts = load(folder), read_documents(plan)
    assert isinstance(model, LessenForCausalLM)
    tuning = prompts_of(model, parts["tune"], plan.prompting)[:20]
    prompts = prompts_of(model, parts["test"], plan.prompting)[: options.prompts]
    measure(folder, tuning, prompts, 300, options.new_tokens, options.seconds)


def check_rivals() -> None:
    """Stop where a runtime that is to be timed is not installed."""
    absent = [package for module, package in RIVALS.items() if find_spec(module) is None]
    if absent:
        sys.exit(
            f"pip install {' '.join(absent)} first: rivals of weights of few bits; or give --without-rivals"
        )


def chosen_folder() -> Path:
    """Of the heads that benchmarks/generator_exits.py chose and trained longest."""
    place = results.RESULTS / "generator_exits.json"
    runs = json.loads(place.read_text())["runs"] if place.exists() else []
    found = [run["folder"] for run in runs if run.get("chosen")]
    if not found:
        sys.exit("no heads were chosen yet: run benchmarks/generator_exits.py, or give --folder")
    return CACHE / "generator-exits" / found[-1]


def measure(
    folder: str, tuning: Prompts, prompts: Prompts, questions: int, tokens: int, seconds: float
) -> None:
    """Every part that is not kept yet."""
    model = load(folder)
    assert isinstance(model, LessenForCausalLM)
    point = early_point(model)
    settings = {
        "folder": Path(folder).name,
        "point": None if point is None else point.model_dump(mode="json"),
        "drafts": model.config.drafts,
        "prompts": len(prompts),
        "new_tokens": tokens,
        "threads": torch.get_num_threads(),
    }
    done = finished(kept(NAME, settings))
    asked = json.dumps([settings, one_digest(Path(folder))])
    place = results.CACHE / "generator-decode" / hashlib.sha256(asked.encode()).hexdigest()[:16]
    batches = Batches(model, place, tokens)
    parts: dict[tuple[str, str | None], Callable[[], dict[str, Any]]] = {
        ("spec", None): lambda: spec(batches, prompts),
        ("fixed", None): lambda: fixed(batches, tuning, prompts),
        ("direct", None): lambda: direct(batches, prompts),
        ("boolq", None): lambda: boolq(model, point, questions),
    }

    def timed(precision: Precision) -> dict[str, Any]:
        return speed(folder, precision, prompts, tokens, seconds, point, drafts(settings))

    for precision in PRECISIONS:
        parts["speed", precision] = partial(timed, precision)
    for part, made in parts.items():
        if part not in done:
            run = {"part": part[0], **made()}
            add_run(NAME, settings, run, summary)
            print(part[0], json.dumps(summary([run])), flush=True)


def finished(runs: Sequence[dict[str, Any]]) -> set[tuple[str, str | None]]:
    """Parts that need not be run again: a timing without one of its rivals does."""
    return {(run["part"], run.get("precision")) for run in runs if not run.get("missing")}


def drafts(settings: dict[str, Any]) -> dict[str, Decoding]:
    """The two ways to draft, as they are timed."""
    names = {"spec": "spec", "fixed": "fixed draft"}
    runs = [run for run in kept(NAME, settings) if run["part"] in names]
    return {names[run["part"]]: decoding_of(run) for run in runs}


def plain(folder: Path) -> str:
    """A random model of a few words without exits."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lessen.builtin import model_folder

    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=None, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tiny(folder: Path) -> tuple[str, list[list[int]]]:
    """A random model of a few words with two exits and a Point, and prompts; for `--smoke`."""
    from lessen.data.documents import documents
    from lessen.plan import LanguageExitShape, Point
    from lessen.reshaping import with_language_exits

    base = load(plain(folder / "base"))
    assert isinstance(base, LessenForCausalLM)
    model = with_language_exits(base, [LanguageExitShape(layer=n, kind="tied", rank=4) for n in (1, 2)])
    rule = ExitRule(criterion="entropy", thresholds={2: 99.0})
    model.config.points = [Point(name="smoke", exits=rule).model_dump(mode="json")]
    model.config.point = "smoke"
    model.tokenizer = base.tokenizer
    model.save_pretrained(folder)
    prompts = prompts_of(model, documents("builtin:movie-reviews").take(range(6)), Prompting(prompt_tokens=8))
    return str(folder), prompts


if __name__ == "__main__":
    main()
