"""`lessen generate`: a prompt continued, token by token as they come."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Annotated, Any

import typer

from lessen.cli.output import Json, Precision, Threads, emit, precision_of, say
from lessen.errors import InputError


def command(
    model: Annotated[str, typer.Argument(help="Model folder, hub name, or builtin:NAME.")],
    prompt: Annotated[str, typer.Argument(help="What to continue; - reads it from standard input.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate, at most.")] = 128,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Of drawing tokens; 0 takes the likeliest.")
    ] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest that together have this probability only.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of drawing tokens.")] = 0,
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the tokenizer's chat template, as the user's.")
    ] = False,
    precision: Precision = "float32",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Continue a prompt at full depth."""
    import torch

    from lessen.runtime.completion import prompt_ids, stream
    from lessen.runtime.sampling import Sampling

    sampling = Sampling(temperature, top_k, top_p, seed)
    text = _read(prompt)
    loaded = loaded_generator(model, precision_of(precision))
    if threads is not None:
        torch.set_num_threads(threads)
    ids = prompt_ids(
        loaded.tokenizer, _in_chat(loaded, text) if chat else text, loaded.config.facts().max_tokens
    )
    tokens: list[int] = []
    said: list[str] = []
    began = perf_counter()
    times = []
    pieces = stream(
        loaded.transformer,
        loaded.tokenizer,
        ids,
        max_new_tokens=max_new_tokens,
        stop=loaded.stop_tokens,
        sampling=sampling,
    )
    try:
        for token, piece in pieces:
            if token is not None:
                tokens.append(token)
                times.append(perf_counter())
            said.append(piece)
            if not as_json:
                print(piece, end="", flush=True)
    finally:
        if not as_json:
            print(flush=True)
    first_ms = 1e3 * (times[0] - began)
    rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else None
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
                "precision": loaded.precision,
                "threads": torch.get_num_threads(),
            }
        )
    elif sys.stderr.isatty():
        speed = "" if rate is None else f", then {rate:.1f} tokens/s"
        say(f"{len(tokens)} tokens, the first after {first_ms:.0f} ms{speed}")


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
        raise InputError(f"standard input is not text: {error}") from None


def _in_chat(loaded: Any, text: str) -> list[int]:
    if not text:
        raise InputError("the prompt is empty; give a text to continue")
    if loaded.tokenizer.chat_template is None:
        raise InputError("--chat: this model's tokenizer has no chat template; leave --chat away")
    asked = [{"role": "user", "content": text}]
    return loaded.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
