"""`lessen generate`: a prompt continued, token by token as they come."""

from __future__ import annotations

import sys
from dataclasses import replace
from time import perf_counter
from typing import Annotated, Any

import typer

from lessen.cli.output import (
    Json,
    Precision,
    Threads,
    coloured,
    emit,
    legend,
    percent,
    precision_of,
    say,
)
from lessen.errors import InputError
from lessen.records import MOST_SEED


def command(
    model: Annotated[str, typer.Argument(help="Model folder, hub name, or builtin:NAME.")],
    prompt: Annotated[str, typer.Argument(help="What to continue; - reads it from standard input.")],
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens to generate, at most. [128; in mode direct as many as the Point is certified for]",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Of drawing tokens; 0 takes the likeliest.")
    ] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest that together have this probability only.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of drawing tokens.")] = 0,
    mode: Annotated[
        str,
        typer.Option(
            help="off: all layers for every token. direct: a token is what the first sure exit names. "
            "spec: exits draft, the other layers verify; the text is that of off."
        ),
    ] = "off",
    point: Annotated[
        str | None,
        typer.Option(
            help="When tokens leave: a Point's name, or thresholds of --criterion, one for all exits or one "
            "for each, such as 0.2,0.4. If not given: in mode spec what drafts best by the tuning prompts, "
            "else the model's default Point."
        ),
    ] = None,
    criterion: Annotated[
        str | None, typer.Option(help="What thresholds of --point are thresholds of. [entropy]")
    ] = None,
    kv: Annotated[
        str,
        typer.Option(
            help="Mode direct: exact keys and values of layers a token skips, made later; or propagate, made "
            "at once of the state it left with: fewer MACs, another text, nothing promised."
        ),
    ] = "exact",
    speedup: Annotated[
        float | None,
        typer.Option(
            help="Let tokens of the prompt leave: MACs of reading it whole over those spent; needs a "
            "retention profile, as of --system latency-adjustable."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Colour each token by the layer it left at.")
    ] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the tokenizer's chat template, as the user's.")
    ] = False,
    precision: Precision = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Continue a prompt: at full depth, with tokens that leave early, or with drafts that are verified."""
    import torch

    from lessen.measure.generation_speed import Run, came_first
    from lessen.runtime.completion import prompt_ids, stream
    from lessen.runtime.generation import check_decoding
    from lessen.runtime.retention import ratio_at
    from lessen.runtime.sampling import Sampling
    from lessen.runtime.tally import Tally

    sampling = Sampling(temperature, top_k, top_p, seed)
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise InputError("--top-k and --top-p are about drawing tokens; give a --temperature above 0")
    text = _read(prompt)
    loaded = loaded_generator(model, precision_of(precision))
    if threads is not None:
        torch.set_num_threads(threads)
    ids = prompt_ids(
        loaded.tokenizer, _in_chat(loaded, text) if chat else text, loaded.config.facts().max_tokens
    )
    used = point_of(loaded, point, criterion)
    decoding = loaded.decoding(mode, used, kv)
    if speedup is not None:
        decoding = replace(decoding, prompts=loaded.point_at(speedup))
    check_decoding(loaded.transformer, decoding, sampling)
    used = used or loaded.point
    if decoding.rule is None or decoding.rule != used.exits:
        used = None  # drafts need no Point
    how = _certified_for(loaded, used) if mode == "direct" else None
    if max_new_tokens is None:
        max_new_tokens = 128 if how is None else how.new_tokens
    left_out = (
        None if mode != "direct" else _not_promised(used, decoding, how, max_new_tokens, len(ids), chat=chat)
    )
    if left_out is not None:
        say(left_out)
    read = ratio_at(loaded.transformer, decoding.prompts, [len(ids)])
    if speedup is not None and read == 1:
        say(f"--speedup {speedup:g}: of a prompt of {len(ids)} tokens none can leave")
    show = _shown(loaded.transformer, explain=explain and not as_json)
    tokens: list[int] = []
    said: list[str] = []
    tally = Tally()
    began = perf_counter()
    times = []
    pieces = stream(
        loaded.transformer,
        loaded.tokenizer,
        ids,
        max_new_tokens=max_new_tokens,
        stop=loaded.stop_tokens,
        sampling=sampling,
        decoding=decoding,
        tally=tally,
    )
    try:
        for token, piece in pieces:
            if token is not None:
                tokens.append(token)
                times.append(perf_counter())
            said.append(piece)
            if not as_json:
                show(piece, tally.of(0).layers[len(tokens) - 1] if explain and token is not None else None)
    finally:
        if not as_json:
            print(flush=True)
    first_ms = 1e3 * (times[0] - began)
    together = came_first(tally, loaded.transformer.writer.depth)
    seconds = tuple(each - began for each in times)
    rate = Run(tuple(tokens), seconds, tally, together).rate if len(tokens) > 1 else None
    if as_json:
        emit(
            {
                "prompt": text,
                "text": "".join(said),
                "tokens": tokens,
                "prompt_tokens": len(ids),
                "ended": "stop" if tokens[-1] in loaded.stop_tokens else "length",
                "first_token_ms": round(first_ms, 3),
                "tokens_per_s": None if rate is None else round(rate, 3),
                "mode": mode,
                "point": None if used is None else used.name,
                "kv": kv if mode == "direct" else None,
                "speedup": speedup,
                "macs_ratio": round(read, 4),
                "certified": left_out is None if mode == "direct" else None,
                "layers": tally.of(0).layers,
                "mean_layers": round(tally.mean_layers, 4),
                "weight_passes": round(tally.weight_passes, 4),
                "macs_per_token": round(tally.macs_per_token),
                "acceptance": tally.acceptance,
                "draft_length": tally.draft_length,
                "precision": loaded.precision,
                "threads": torch.get_num_threads(),
            }
        )
    elif sys.stderr.isatty():
        speed = "" if rate is None else f", then {rate:.1f} tokens/s"
        drafts = "" if tally.acceptance is None else f", {percent(tally.acceptance)} % of drafts kept"
        say(
            f"{len(tokens)} tokens, the first after {first_ms:.0f} ms{speed}; "
            f"{tally.mean_layers:.1f} layers and {tally.weight_passes:.2f} weight passes a token{drafts}"
        )


def point_of(loaded: Any, text: str | None, criterion: str | None = None) -> Any:
    """A Point by its name, or made of thresholds of a criterion; None if nothing is said.

    Raises:
        InputError: When there are as many thresholds as the model has no exits, or a criterion without any.
        PlanError: For a name no Point has.
    """
    from lessen.plan import ExitRule, Point
    from lessen.records import parse

    if text is None or text in loaded.points:
        if criterion is not None:
            raise InputError("--criterion is of thresholds; give them too, such as --point 0.2")
        return None if text is None else loaded.points[text]
    criterion = criterion or "entropy"
    try:
        thresholds = [float(part) for part in text.split(",")]
    except ValueError:
        return loaded.use(text).point
    layers = loaded.config.form().exit_layers
    if len(thresholds) not in (1, len(layers)):
        places = ", ".join(map(str, layers)) or "no layer"
        raise InputError(f"--point {text}: {len(thresholds)} thresholds, but there are exits after {places}")
    each = thresholds * len(layers) if len(thresholds) == 1 else thresholds
    by_layer = dict(zip(layers, each, strict=True))
    rule = parse(ExitRule, {"criterion": criterion, "thresholds": by_layer}, "--point")
    return Point(name=f"{criterion} {text}", exits=rule)


def _certified_for(loaded: Any, point: Any) -> Any:
    """How texts are written that a Point is certified for; None if it is not."""
    from lessen.certificate import is_certified, read_certificate

    if loaded.folder is None or not is_certified(point):
        return None
    certificate = read_certificate(loaded.folder)
    return None if certificate is None else certificate.generation


def _not_promised(
    point: Any, decoding: Any, how: Any, new_tokens: int, prompt_tokens: int, *, chat: bool
) -> str | None:
    """Why nothing is promised of early tokens, if it is not."""
    from lessen.certificate import is_certified

    if not is_certified(point):
        return (
            f"point {point.name!r} is uncertified: how often early tokens are the model's own is not promised"
        )
    certified = f"point {point.name!r} is certified for"
    if decoding.kv == "propagate":
        return f"{certified} exact keys and values; of propagate nothing is promised"
    if decoding.prompts.retention is not None:
        return f"{certified} prompts read whole; where their tokens leave nothing is promised"
    if how is not None and new_tokens > how.new_tokens:
        return (
            f"{certified} texts of up to {how.new_tokens} tokens; with --max-new-tokens {new_tokens} nothing "
            "is promised"
        )
    if how is not None and prompt_tokens > how.prompt_tokens:
        return (
            f"{certified} prompts of up to {how.prompt_tokens} tokens; of this one's {prompt_tokens} nothing "
            "is promised"
        )
    if chat:
        return f"{certified} prompts as they are; in the words of --chat nothing is promised"
    return None


def _shown(model: Any, *, explain: bool) -> Any:
    """What prints a piece of text, with `explain` in the colour of the layers before it was named."""
    if not explain:
        return lambda piece, _: print(piece, end="", flush=True)
    from rich.console import Console

    console, depth = Console(highlight=False, soft_wrap=True), model.writer.depth
    console.print(legend("layers before it was named", [*model.shape.exit_layers, depth], depth))

    def show(piece: str, layers: int | None) -> None:
        text = piece if layers is None else coloured(piece, layers, depth)
        console.print(text, end="", markup=False)
        sys.stdout.flush()

    return show


def loaded_generator(name: str, precision: Any = None) -> Any:
    """A loaded model that generates, with its tokenizer.

    Raises:
        InputError: When it does not, or has no tokenizer.
    """
    from lessen.hf import LessenGenerator
    from lessen.loading import load

    loaded = load(name, precision=precision)
    if not isinstance(loaded, LessenGenerator):
        raise InputError(f"{name} is an encoder ({loaded.config.facts().family}); it does not generate")
    if loaded.tokenizer is None:
        raise InputError(f"{name} has no tokenizer: put its tokenizer.json into its folder")
    return loaded


def _read(prompt: str) -> str:
    if prompt != "-":
        return prompt
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text: {error}") from None


def _in_chat(loaded: Any, text: str) -> list[int]:
    from lessen.runtime.completion import check_text

    check_text(text)
    if loaded.tokenizer.chat_template is None:
        raise InputError("--chat: this model's tokenizer has no chat template; leave --chat away")
    asked = [{"role": "user", "content": text}]
    return loaded.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
