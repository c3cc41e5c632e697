"""What a report says about a generator with exits, as plain numbers: its JSON, and all its page is made from.

Points, path and exits are described along the model's own continuations of prompts, as they are certified;
modes as they really run (`measure.decoded`); times beside transformers (`measure.generation_speed`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lessen.artefact import EXITS, WEIGHTS
from lessen.certificate import read_certificate
from lessen.data.table import Table
from lessen.machine import machine
from lessen.measure.decoded import decode_all
from lessen.measure.generation_speed import compare, modes_of, ours, own_tokens, row, theirs
from lessen.measure.rivals.generator import generator_twin
from lessen.model.transformer import parameter_counts
from lessen.plan import FULL, Point
from lessen.promise.generators import LanguageAsked
from lessen.promise.language import Decoder, measured
from lessen.promise.prompts import Prompting, prompts_of, traces_of
from lessen.promise.traces import Traces
from lessen.report.facts import promised
from lessen.runtime.completion import prompt_ids, stream
from lessen.runtime.tally import Tally

BUILT_IN = (
    "The best film I have seen",
    "What nobody tells you about cooking rice is",
    "The delivery came two days late, but",
)
"""Prompts shown where the user's own must not appear."""

EXAMPLE_TOKENS = 48

NOT_SAID = (
    "It is a statement about the average over many prompts. It promises nothing about a single text.",
    "It counts early tokens along the model's own greedy continuation, with exact keys and values. After an "
    "early token that differs, the text is another one, of which nothing is said; nor is anything of keys "
    "and values that are propagated. Modes off and spec need no promise: their text is the model's own.",
    "It holds for prompts drawn like the calibration prompts, made and continued as they were. Other "
    "sources, topics, templates or lengths are not covered; lessen calibrate --audit tests it on newer "
    "documents.",
    "It is about agreement with the model's own full depth, not about how good what it says is.",
    "It is about these weights in this precision on a CPU; anything else loads without the certificate.",
    "Its confidence is that of one calibration. Trying bounds, losses or exits on the same prompts until "
    "something passes voids it.",
)


@dataclass(frozen=True)
class Timed:
    """How to measure times.

    Attributes:
        against: Whether transformers runs beside.
        prompts: How many are timed and decoded.
        seconds: Of timing.
        threads: Of the processor.
        seed: Of the order of candidates.
    """

    against: bool
    prompts: int
    seconds: float
    threads: int
    seed: int = 0


def gather_generator(
    name: str,
    folder: Path,
    model: Any,
    table: Table,
    about: str,
    prompting: Prompting,
    timed: Timed,
    *,
    with_examples: bool = False,
    watching: Callable[[str], Any],
) -> dict[str, Any]:
    """All facts of a generator's report.

    Args:
        name: Of the model.
        folder: Where it lies.
        model: A `LessenForCausalLM` with language exits, loaded from there.
        table: Documents nothing was chosen on.
        about: What documents these are, for people.
        prompting: How they become prompts.
        timed: How to measure times.
        with_examples: Whether prompts of `table` may be shown.
        watching: For a piece of work, a context that is told how far it is.
    """
    with watching("continuing prompts") as watch:
        traces = traces_of(model, table, prompting, criteria_of(model), watch=watch)
    prompts = prompts_of(model, table, prompting)
    some = prompts[: timed.prompts]
    with watching("decoding in every mode") as watch:
        modes = decode_all(
            model, some, new_tokens=prompting.new_tokens, points=list(model.points.values()), watch=watch
        )
    return {
        "version": 1,
        "kind": "generator",
        "rows": {"about": about, "count": len(prompts), "decoded": len(some), **prompting.model_dump()},
        "models": [
            {
                **described(name, folder, model, traces, prompting.new_tokens),
                "modes": [line.as_dict() for line in modes],
                "examples": examples_of(model, prompts if with_examples else BUILT_IN),
            }
        ],
        "times": times_of(model, some, prompting, timed),
        "timing": {"rows": len(some), "threads": timed.threads},
        "machine": machine(),
    }


def criteria_of(model: Any) -> list[str]:
    """Those its Points and path ask; any one where they ask none."""
    points = [*model.points.values(), *model.config.steps()]
    asked = {point.exits.criterion for point in points if point.exits is not None}
    return sorted(asked) or ["entropy"]


def described(name: str, folder: Path, model: Any, traces: Traces, new_tokens: int) -> dict[str, Any]:
    """Points, path, exits and certificate."""
    certificate = read_certificate(folder) if folder.is_dir() else None
    how = None if certificate is None else certificate.generation
    block = min(new_tokens, LanguageAsked().block if how is None else how.block)
    decoder = Decoder(model.config.facts(), model.config.form(), block)
    weights = next((folder / file for file in (WEIGHTS, EXITS) if (folder / file).is_file()), None)
    depth, there = len(decoder.shape.writing_layers), traces.there
    at_exits = [
        {"layer": layer, "value": float(right[there].mean()), "agreement": float(right[there].mean())}
        for layer, right in zip(decoder.shape.exit_layers, traces.right, strict=True)
    ]
    return {
        "name": name,
        "metric": "agreement",
        "unit": "token",
        "depth": depth,
        "parameters": parameter_counts(model.transformer),
        "bytes": None if weights is None else weights.stat().st_size,
        "weights": None if weights is None else weights.name,
        "whole_cost": decoder.whole_cost,
        "block": decoder.block,
        "point": model.point.name,
        "points": [spot_of(point, traces, decoder) for point in model.points.values()],
        "path": [spot_of(step, traces, decoder) for step in model.config.steps()],
        "exits": [*at_exits, {"layer": depth, "value": 1.0, "agreement": 1.0}],
        "tokens": None,
        "certificate": promised(folder, NOT_SAID),
    }


def spot_of(point: Point, traces: Traces, decoder: Decoder) -> dict[str, Any]:
    """A Point, or a step of the path, along the model's own continuations."""
    did = measured(traces, point.exits, decoder)
    left = decoder.depths(traces.left_at(point.exits, decoder.shape.exit_layers))[traces.there]
    return {
        "name": point.name,
        "promise": None if point == FULL else point.promise.kind if point.promise else "uncertified",
        "value": did.pop("agreement"),
        "layers": {
            layer: float((left == layer).mean())
            for layer in (*decoder.shape.exit_layers, len(decoder.shape.writing_layers))
        },
        **did,
        "work": did["block_equivalents"] / decoder.whole_cost,
    }


def times_of(
    model: Any, prompts: Sequence[Sequence[int]], prompting: Prompting, timed: Timed
) -> list[dict[str, Any]]:
    """Tokens per second of every mode, and of transformers on the same weights."""
    candidates = {mode: ours(model, decoding) for mode, decoding in modes_of(model).items()}
    if timed.against:
        candidates["transformers"] = theirs(generator_twin(model))
    runs = compare(
        candidates, prompts, new_tokens=max(2, prompting.new_tokens), seconds=timed.seconds, seed=timed.seed
    )
    own = [run.tokens for run in runs["off"]]
    return [
        row(model, mode, mode, found, prompts, identical=[run.tokens for run in found] == own).as_dict()
        for mode, found in runs.items()
    ]


def examples_of(model: Any, prompts: Sequence[Any], count: int = 3) -> list[dict[str, Any]]:
    """Prompts continued at the model's own Point: each piece with its layers, and whether it is its own."""
    mode = "off" if model.point.exits is None else "direct"
    found = []
    for prompt in prompts[:count]:
        ids, tally = prompt_ids(model.tokenizer, prompt, model.config.facts().max_tokens), Tally()
        tokens, pieces = [], []
        for token, piece in stream(
            model.transformer,
            model.tokenizer,
            ids,
            max_new_tokens=EXAMPLE_TOKENS,
            stop=model.stop_tokens,
            decoding=model.decoding(mode),
            tally=tally,
        ):
            if token is not None:
                tokens.append(token)
                pieces.append(piece)
        right = own_tokens(model, ids, tokens)
        layers = tally.of(0).layers
        text = prompt if isinstance(prompt, str) else model.tokenizer.decode(ids, skip_special_tokens=True)
        read = [list(each) for each in zip(pieces, layers, right, strict=True)]
        found.append({"text": text, "read": read})
    return found
