"""How a generator with exits decodes: its own loop, early tokens, self-speculation, and rivals.

    python benchmarks/generator_decode.py [--folder FOLDER] [--prompts 200] [--smoke]

FOLDER was made by benchmarks/generator_exits.py (its `tied` heads if none is given). Prompts are beginnings
of the reviews its plan kept for tests; nothing was chosen on them. The parts, each kept once it is finished:

* `spec`: whether 200 texts of 64 tokens are those of full depth, ties apart; drafts kept, weights read.
* `fixed`: drafts by one exit for every token, a fixed number at a time (as LayerSkip does, with our heads);
  exit and number are those that read the fewest weights on tuning prompts.
* `direct`: passes, MACs and layers at the Point, with exact keys and values and with propagated ones, and how
  often an early token is the model's own, given the text so far.
* `boolq`: yes or no, as the next token after passage and question, at full depth and at the Point.
* `speed`: tokens/s of every mode in every precision, beside transformers, llama.cpp and OpenVINO GenAI.

`--smoke` runs all of it on a tiny random model in a minute and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import results
import torch
from results import CACHE, add_run, kept

from lessen.artefact import read_json
from lessen.cli.bench_generator import _of_gguf
from lessen.data.reading import read
from lessen.errors import InputError
from lessen.hf import LessenForCausalLM
from lessen.loading import load
from lessen.measure.generation_speed import compare, is_greedy, modes_of, ours, row, theirs, tie_at
from lessen.measure.rivals.generator import generator_twin
from lessen.model.rows import pack
from lessen.plan import ExitRule, parse
from lessen.promise.generators import Prompting, prompts_of
from lessen.runtime.decoding import OFF, Decoding
from lessen.runtime.generation import generate
from lessen.runtime.tally import Tally
from lessen.systems.generator import LanguagePlan, read_documents

NAME = "generator_decode"
AT_ONCE = 8
TIE = 1e-5
"""Of the largest logit: two tokens nearer than that are equally likely in float32."""
LENGTHS = (2, 4, 8)
PRECISIONS = ("float32", "bfloat16", "int8", "int8-weights", "int4")

Prompts = Sequence[Sequence[int]]


def continued(
    model: LessenForCausalLM, prompts: Prompts, tokens: int, decoding: Decoding
) -> tuple[list[list[int]], Tally]:
    """Texts, ended by their stop tokens, and what they took."""
    found: list[list[int]] = []
    tallies = []
    for start in range(0, len(prompts), AT_ONCE):
        batch = prompts[start : start + AT_ONCE]
        texts: list[list[int]] = [[] for _ in batch]
        tallies.append(Tally())
        options: dict[str, Any] = {"stop": model.stop_tokens, "decoding": decoding, "tally": tallies[-1]}
        for step in generate(model.transformer, batch, max_new_tokens=tokens, **options):
            for place, token in step.items():
                texts[place].append(token)
        found += texts
    return found, Tally.together(tallies)


def counted(tally: Tally) -> dict[str, Any]:
    """The figures of a tally, and how many tokens were named after each layer."""
    names = ("tokens", "weight_passes", "weights_per_token", "macs_per_token", "mean_layers")
    figures = {name: getattr(tally, name) for name in (*names, "acceptance", "draft_length")}
    layers = Counter(layer for text in tally.texts for layer in text.layers)
    return figures | {"named_after": {str(layer): layers[layer] for layer in sorted(layers)}}


def identity(model: LessenForCausalLM, prompts: Prompts, off: Any, found: Any) -> dict[str, Any]:
    """How many texts are those of full depth; of the others, which differ by a tie."""
    gaps = [
        tie_at(model, prompt, own, other)
        for prompt, own, other in zip(prompts, off, found, strict=True)
        if own != other
    ]
    ties = sum(gap <= TIE for gap in gaps)
    return {"texts": len(prompts), "identical": len(prompts) - len(gaps), "ties": ties, "gaps": gaps}


def spec(model: LessenForCausalLM, prompts: Prompts, tokens: int) -> dict[str, Any]:
    off, whole = continued(model, prompts, tokens, OFF)
    found, tally = continued(model, prompts, tokens, model.decoding("spec"))
    return {"off": counted(whole), **counted(tally), **identity(model, prompts, off, found)}


def fixed(model: LessenForCausalLM, tuning: Prompts, prompts: Prompts, tokens: int) -> dict[str, Any]:
    tried = []
    for layer in model.config.form().exit_layers:
        rule = ExitRule(criterion="entropy", thresholds={layer: 1e6})
        for most in LENGTHS:
            _, tally = continued(model, tuning, tokens, Decoding("spec", rule, most=most))
            tried.append({"layer": layer, "most": most, **counted(tally)})
    best = min(tried, key=lambda each: each["weights_per_token"])
    rule = ExitRule(criterion="entropy", thresholds={best["layer"]: 1e6})
    off, _ = continued(model, prompts, tokens, OFF)
    found, tally = continued(model, prompts, tokens, Decoding("spec", rule, most=best["most"]))
    return {
        "tried": tried,
        "layer": best["layer"],
        "most": best["most"],
        **counted(tally),
        **identity(model, prompts, off, found),
    }


@torch.no_grad()
def own_tokens(model: LessenForCausalLM, prompt: Sequence[int], text: Sequence[int]) -> list[bool]:
    """Which tokens of a text full depth would have named, given what stands before them."""
    hidden, _ = model.transformer(*pack([torch.tensor([*prompt, *text[:-1]])]))
    named = model.transformer.next_token(hidden[len(prompt) - 1 :]).argmax(-1).tolist()
    return [one == other for one, other in zip(named, text, strict=True)]


def direct(model: LessenForCausalLM, prompts: Prompts, tokens: int) -> dict[str, Any]:
    off, whole = continued(model, prompts, tokens, OFF)
    lines: dict[str, Any] = {"off": counted(whole)}
    for kv in ("exact", "propagate"):
        found, tally = continued(model, prompts, tokens, model.decoding("direct", None, kv))
        right = [own_tokens(model, prompt, text) for prompt, text in zip(prompts, found, strict=True)]
        wrong: Counter[int] = Counter()
        for text, agrees in zip(tally.texts, right, strict=True):
            wrong.update(layer for layer, is_own in zip(text.layers, agrees, strict=True) if not is_own)
        lines[f"direct {kv}"] = {
            **counted(tally),
            "agreement": sum(sum(each) / len(each) for each in right) / len(right),
            "wrong_after": {str(layer): wrong[layer] for layer in sorted(wrong)},
            "same_text": sum(own == other for own, other in zip(off, found, strict=True)) / len(off),
        }
    return {"point": model.point.name, "lines": lines}


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
    lines = {"most frequent": {"accuracy": max(share, 1 - share)}}
    for name, decoding in (("off", OFF), ("direct exact", model.decoding("direct"))):
        found, tally = continued(model, [ids for ids, _ in rows], 1, decoding)
        said = [tokenizer.decode(text).strip().lower() for text in found]
        right = [word == ("yes" if yes else "no") for word, (_, yes) in zip(said, rows, strict=True)]
        answered = sum(word in ("yes", "no") for word in said) / len(said)
        lines[name] = {
            "accuracy": sum(right) / len(right),
            "answered": answered,
            "mean_layers": tally.mean_layers,
        }
    return {"rows": len(rows), "lines": lines}


def speed(folder: str, precision: Any, prompts: Prompts, tokens: int, seconds: float) -> dict[str, Any]:
    model = load(folder, precision=precision)
    assert isinstance(model, LessenForCausalLM)
    candidates = {mode: ours(model, decoding) for mode, decoding in modes_of(model).items()}
    others: dict[str, Any] = {}
    if not precision.startswith("int"):
        candidates["transformers"] = theirs(generator_twin(model))
    if precision == "float32":
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
        lines.append(row(model, mode, mode, found, prompts, identical=same, dtype=dtype).as_dict())
    return {"precision": precision, "lines": lines}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the issue's table."""
    found: dict[str, Any] = {}
    for run in runs:
        if run["part"] == "speed":
            rates = {line["mode"]: line["tokens_per_s"] for line in run["lines"]}
            found.setdefault("tokens_per_s", {})[run["precision"]] = rates
        elif run["part"] in ("spec", "fixed"):
            names = ("texts", "identical", "ties", "acceptance", "draft_length", "weight_passes")
            found[run["part"]] = {name: run[name] for name in names}
        elif run["part"] == "direct":
            off = run["lines"]["off"]
            found["direct"] = {
                mode: {
                    "passes_saved": 1 - line["weight_passes"] / off["weight_passes"],
                    "macs_saved": 1 - line["macs_per_token"] / off["macs_per_token"],
                    "agreement": line["agreement"],
                }
                for mode, line in run["lines"].items()
                if mode != "off"
            }
        else:
            found["boolq"] = run["lines"]
    return found


def main() -> None:

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300, help="of timing, for each precision")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.smoke:
        with tempfile.TemporaryDirectory() as place:
            results.RESULTS = Path(place)
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
    parts: dict[tuple[str, str | None], Any] = {
        ("spec", None): lambda: spec(model, prompts, tokens),
        ("fixed", None): lambda: fixed(model, tuning, prompts, tokens),
        ("direct", None): lambda: direct(model, prompts, tokens),
        ("boolq", None): lambda: boolq(model, questions),
    }
    for precision in PRECISIONS:
        parts["speed", precision] = lambda precision=precision: speed(
            folder, precision, prompts, tokens, seconds
        )
    for part, made in parts.items():
        if part not in done:
            run = {"part": part[0], **made()}
            add_run(NAME, settings, run, summary)
            print(part[0], json.dumps(summary([run])), flush=True)


def tiny(folder: Path) -> tuple[str, list[list[int]]]:
    """A random model of a few words with two exits and a Point, and prompts; for `--smoke`."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lessen.builtin import model_folder
    from lessen.data.documents import documents
    from lessen.plan import LanguageExitShape, Point
    from lessen.reshaping import with_language_exits

    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=None, bos_token_id=None, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    base = load(str(folder))
    assert isinstance(base, LessenForCausalLM)
    model = with_language_exits(base, [LanguageExitShape(layer=n, kind="tied", rank=4) for n in (1, 2)])
    rule = ExitRule(criterion="entropy", thresholds={2: 99.0})
    model.config.points = [Point(name="smoke", exits=rule).model_dump(mode="json")]
    model.config.point = "smoke"
    model.tokenizer = tokenizer
    model.save_pretrained(folder)
    prompts = prompts_of(model, documents("builtin:movie-reviews").take(range(6)), Prompting(prompt_tokens=8))
    return str(folder), prompts


if __name__ == "__main__":
    main()
