"""How a generator with exits decodes: its own loop, early tokens, self-speculation, and rivals.

    python benchmarks/generator_decode.py [--folder FOLDER] [--prompts 200] [--smoke]

FOLDER was made by benchmarks/generator_exits.py (its `tied` heads if none is given). Prompts are beginnings
of the reviews its plan kept for tests; nothing was chosen on them. The parts, each kept once it is finished:

* `spec`: whether 200 texts of 64 tokens are those of full depth, ties apart; drafts kept, weights read.
* `fixed`: drafts by one exit for every token, a fixed number at a time (as LayerSkip does, with our heads);
  exit and number are those that read the fewest weights on tuning prompts.
* `direct`: passes, MACs and layers at the Point, with exact keys and values and with propagated ones; where
  tokens are named, and which of them full depth would not have named, given the text so far.
* `boolq`: yes or no, as the next token after passage and question, at full depth and at the Point.
* `speed`: tokens/s of every mode in every precision, in turn with what else runs such weights: transformers
  in float32 and bfloat16, llama.cpp and OpenVINO GenAI where weights have few bits.

Of a part that was stopped, finished batches of texts are kept in `.cache/generator-decode/`. `--smoke` runs
all of it on a tiny random model in a minute and keeps nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from math import exp, log
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import results
import torch
from generator_verdicts import FEW_BITS
from results import CACHE, add_run, kept

from lessen.artefact import read_json, write_json
from lessen.certificate import one_digest
from lessen.cli.bench_generator import _of_gguf
from lessen.data.reading import read
from lessen.errors import InputError
from lessen.hf import LessenForCausalLM
from lessen.loading import load
from lessen.measure.decoded import Decoded, continued, decoded, rightness
from lessen.measure.generation_speed import compare, is_greedy, modes_of, ours, row, theirs, tie_at
from lessen.measure.rivals.generator import generator_twin
from lessen.plan import ExitRule, Precision, parse
from lessen.promise.generators import Prompting, prompts_of
from lessen.runtime.decoding import OFF, Decoding
from lessen.runtime.tally import Costs, Tally, TextTally
from lessen.systems.generator import LanguagePlan, read_documents

NAME = "generator_decode"
AT_ONCE = 8
TIE = 1e-5
"""Of the largest logit: two tokens nearer than that are equally likely in float32."""
LENGTHS = (2, 4, 8)
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", *FEW_BITS)

Prompts = Sequence[Sequence[int]]


class Batches:
    """Texts of finished batches, and what they took, in files: a stopped run goes on from them.

    Args:
        model: Whose.
        folder: For them.
        tokens: New ones of each text at most.
    """

    def __init__(self, model: LessenForCausalLM, folder: Path, tokens: int) -> None:
        self.model, self.folder, self.tokens = model, folder, tokens

    def continued(self, prompts: Prompts, decoding: Decoding) -> tuple[list[list[int]], Tally]:
        """Texts, ended by their stop tokens, and what they took."""
        asked = json.dumps([prompts, repr(decoding), self.tokens])
        folder = self.folder / hashlib.sha256(asked.encode()).hexdigest()[:16]
        texts: list[list[int]] = []
        tallies = []
        for number, start in enumerate(range(0, len(prompts), AT_ONCE)):
            place = folder / f"{number:04}.json"
            if not place.exists():
                found, tally = continued(self.model, prompts[start : start + AT_ONCE], decoding, self.tokens)
                took = [asdict(text) for text in tally.texts]
                content = {"texts": found, "took": took, "steps": tally.steps, "reads": tally.layer_reads}
                write_json(place, content)
            content = json.loads(place.read_text())
            texts += content["texts"]
            tallies.append(self._tally(content))
        return texts, Tally.together(tallies)

    def _tally(self, content: dict[str, Any]) -> Tally:
        tally = Tally()
        tally.costs = Costs(self.model.transformer)
        tally.texts = [TextTally(**text) for text in content["took"]]
        tally.steps, tally.layer_reads = content["steps"], content["reads"]
        return tally


def saved(per_text: Sequence[float], per_token: float, tally: Tally) -> dict[str, float]:
    """Share of something saved against full depth, and its standard error over texts.

    Args:
        per_text: What each text took.
        per_token: What a token takes at full depth, on average.
        tally: How many tokens each text has.
    """
    counts = [len(text.layers) for text in tally.texts]
    ratio = sum(per_text) / sum(counts)
    off = sum((took - ratio * count) ** 2 for took, count in zip(per_text, counts, strict=True)) ** 0.5
    return {"mean": 1 - ratio / per_token, "se": off / sum(counts) / per_token}


def counted(line: Decoded, tally: Tally, whole: Tally) -> dict[str, Any]:
    """The figures of a way of decoding, and what it saves against full depth."""
    return line.as_dict() | {
        "weights_per_token": tally.weights_per_token,
        "passes_saved": saved([t.layer_weights / whole.costs.all_layers for t in tally.texts], 1.0, tally),
        "macs_saved": saved([t.macs for t in tally.texts], whole.macs_per_token, tally),
    }


def identity(model: LessenForCausalLM, prompts: Prompts, off: Any, found: Any) -> dict[str, Any]:
    """How many texts are those of full depth; of the others, which differ by a tie."""
    gaps = [
        tie_at(model, prompt, own, other)
        for prompt, own, other in zip(prompts, off, found, strict=True)
        if own != other
    ]
    ties = sum(gap <= TIE for gap in gaps)
    return {"texts": len(prompts), "identical": len(prompts) - len(gaps), "ties": ties, "gaps": gaps}


def spec(batches: Batches, prompts: Prompts) -> dict[str, Any]:
    return drafted(batches, prompts, batches.model.decoding("spec"))


def drafted(batches: Batches, prompts: Prompts, decoding: Decoding) -> dict[str, Any]:
    model = batches.model
    off, whole = batches.continued(prompts, OFF)
    found, tally = batches.continued(prompts, decoding)
    right = rightness(model, prompts, found, off)
    line = decoded("spec", None, found, tally, right, off)
    return {**counted(line, tally, whole), **identity(model, prompts, off, found)}


def fixed(batches: Batches, tuning: Prompts, prompts: Prompts) -> dict[str, Any]:
    tried = []
    for layer in batches.model.config.form().exit_layers:
        for most in LENGTHS:
            _, tally = batches.continued(tuning, always(layer, most))
            named = ("weights_per_token", "weight_passes", "acceptance", "draft_length")
            tried.append({"layer": layer, "most": most} | {name: getattr(tally, name) for name in named})
    best = min(tried, key=lambda each: each["weights_per_token"])
    layer, most = best["layer"], best["most"]
    return {"tried": tried, "layer": layer, "most": most, **drafted(batches, prompts, always(layer, most))}


def always(layer: int, most: int) -> Decoding:
    """Drafts by one exit for every token, so many at a time."""
    return Decoding("spec", ExitRule(criterion="entropy", thresholds={layer: 1e6}), most=most)


def direct(batches: Batches, prompts: Prompts) -> dict[str, Any]:
    model, lines = batches.model, {}
    off, whole = batches.continued(prompts, OFF)
    for kv in ("exact", "propagate"):
        found, tally = batches.continued(prompts, model.decoding("direct", None, kv))
        right = rightness(model, prompts, found, off)
        line = decoded(f"direct {kv}", model.point.name, found, tally, right, off)
        lines[line.mode] = counted(line, tally, whole)
    promise = model.point.promise
    certified = {"epsilon": promise.epsilon, "delta": promise.delta} if promise and promise.delta else None
    return {
        "point": model.point.name,
        "certified": certified,
        "loss": promise and promise.loss,
        "lines": lines,
    }


def boolq(model: LessenForCausalLM, count: int) -> dict[str, Any]:
    table, tokenizer = read("builtin:boolq"), model.tokenizer
    assert tokenizer is not None
    assert table.labels is not None
    positive = next(i for i, name in enumerate(table.label_names) if name.lower() in ("1", "true", "yes"))
    rows = []
    for text, label in zip(table.texts, table.labels, strict=True):
        first, second = text if isinstance(text, tuple) else (text, "")
        passage, question = sorted((first, second), key=len, reverse=True)
        ids = tokenizer(f"{passage}\nQuestion: {question}?\nAnswer yes or no:")["input_ids"]
        if len(ids) < model.config.facts().max_tokens:
            rows.append((ids, label == positive))
        if len(rows) == count:
            break
    share = sum(yes for _, yes in rows) / len(rows)
    lines: dict[str, Any] = {"most frequent": {"accuracy": max(share, 1 - share)}}
    rights = {}
    ways = {"off": OFF, "direct exact": model.decoding("direct")}
    for name, decoding in ways.items():
        found, layers = [], []
        for start in range(0, len(rows), AT_ONCE):
            some, tally = continued(model, [ids for ids, _ in rows[start : start + AT_ONCE]], decoding, 1)
            found += some
            layers += [text.layers[0] for text in tally.texts]
        said = [tokenizer.decode(text).strip().lower() for text in found]
        right = [word == ("yes" if yes else "no") for word, (_, yes) in zip(said, rows, strict=True)]
        rights[name] = right
        lines[name] = {
            "accuracy": sum(right) / len(right),
            "answered": sum(word in ("yes", "no") for word in said) / len(said),
            "mean_layers": sum(layers) / len(layers),
        }
    change = [
        float(one) - float(other) for one, other in zip(rights["direct exact"], rights["off"], strict=True)
    ]
    return {"rows": len(rows), "lines": lines, "change": {"mean": mean(change), "se": error_of(change)}}


def speed(
    folder: str, precision: Any, prompts: Prompts, tokens: int, seconds: float, best: Decoding | None
) -> dict[str, Any]:
    model = load(folder, precision=precision)
    assert isinstance(model, LessenForCausalLM)
    candidates = {mode: ours(model, decoding) for mode, decoding in modes_of(model).items()}
    if best is not None:
        candidates["fixed draft"] = ours(model, best)
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
        lines.append(line | {"rates": [round(run.rate, 3) for run in found]})
    return {"precision": precision, "lines": lines, "missing": sorted(missing(folder, precision, others))}


def missing(folder: str, precision: str, others: Any) -> set[str]:
    """Rivals that should have run beside weights of few bits and did not."""
    return {"llama.cpp", "openvino-genai"} - set(others) if precision in FEW_BITS else set()


def times_as_fast(rates: dict[str, list[float]], one: str, other: str) -> dict[str, float] | None:
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
    *((mode, rival) for mode in ("off", "spec") for rival in ("llama.cpp", "openvino-genai")),
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
            }
        elif run["part"] in ("spec", "fixed"):
            names = (
                "texts",
                "identical",
                "ties",
                "acceptance",
                "draft_length",
                "weight_passes",
                "layer",
                "most",
            )
            found[run["part"]] = {name: run[name] for name in names if name in run}
        elif run["part"] == "direct":
            names = ("passes_saved", "macs_saved", "agreement", "same_text", "mean_layers", "named_after")
            names = (*names, "wrong_after", "wrong_at", "tokens")
            lines = {mode: {name: line[name] for name in names} for mode, line in run["lines"].items()}
            found["direct"] = {key: run[key] for key in ("point", "certified", "loss")} | {"lines": lines}
        else:
            found["boolq"] = {key: run[key] for key in ("rows", "lines", "change")}
    return found


def main() -> None:

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=180, help="of timing, for each precision")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.smoke:
        with tempfile.TemporaryDirectory() as place:
            results.RESULTS = results.CACHE = Path(place)
            folder, prompts = tiny(Path(place) / "tiny")
            measure(folder, prompts[:2], prompts[2:], 2, 6, 1.0)
        return
    default = CACHE / "generator-exits" / "smollm2-135m-tied-even-15m-0"
    folder = options.folder or str(default)
    if not (Path(folder) / "plan.json").exists():
        sys.exit(f"{folder} has no plan: make it with benchmarks/generator_exits.py, or give --folder")
    plan = parse(LanguagePlan, read_json(Path(folder) / "plan.json", "make it again"), "plan")
    model, parts = load(folder), read_documents(plan)
    assert isinstance(model, LessenForCausalLM)
    tuning = prompts_of(model, parts["tune"], plan.prompting)[:20]
    prompts = prompts_of(model, parts["test"], plan.prompting)[: options.prompts]
    measure(folder, tuning, prompts, 300, options.new_tokens, options.seconds)


def measure(
    folder: str, tuning: Prompts, prompts: Prompts, questions: int, tokens: int, seconds: float
) -> None:
    """Every part that is not kept yet."""
    model = load(folder)
    assert isinstance(model, LessenForCausalLM)
    if model.point.exits is None:
        raise InputError(f"{folder}: no token leaves at its Point; certify one first")
    settings = {
        "folder": Path(folder).name,
        "point": model.point.model_dump(mode="json"),
        "prompts": len(prompts),
        "new_tokens": tokens,
        "threads": torch.get_num_threads(),
    }
    done = {(run["part"], run.get("precision")) for run in kept(NAME, settings)}
    asked = json.dumps([settings, one_digest(Path(folder))])
    place = results.CACHE / "generator-decode" / hashlib.sha256(asked.encode()).hexdigest()[:16]
    batches = Batches(model, place, tokens)
    parts: dict[tuple[str, str | None], Any] = {
        ("spec", None): lambda: spec(batches, prompts),
        ("fixed", None): lambda: fixed(batches, tuning, prompts),
        ("direct", None): lambda: direct(batches, prompts),
        ("boolq", None): lambda: boolq(model, questions),
    }
    for precision in PRECISIONS:
        parts["speed", precision] = lambda precision=precision: speed(
            folder, precision, prompts, tokens, seconds, best_draft(settings)
        )
    for part, made in parts.items():
        if part not in done:
            run = {"part": part[0], **made()}
            add_run(NAME, settings, run, summary)
            print(part[0], json.dumps(summary([run])), flush=True)


def best_draft(settings: dict[str, Any]) -> Decoding | None:
    """The fixed draft that was found to read the fewest weights."""
    found = [run for run in kept(NAME, settings) if run["part"] == "fixed"]
    return always(found[0]["layer"], found[0]["most"]) if found else None


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

    base = load(plain(folder))
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
