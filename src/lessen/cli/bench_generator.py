"""`lessen bench` for generators: every way our loop decodes, beside other runtimes on the same prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lessen.cli.output import KINDS, emit, percent, say, table
from lessen.errors import InputError

RIVALS = ("transformers", "llama.cpp", "openvino-genai")


def bench(
    name: str,
    models: dict[str, Any],
    data: str,
    text_column: str | None,
    *,
    against: str | None,
    point: Any,
    rows: int,
    prompt_tokens: int,
    new_tokens: int,
    seconds: float,
    threads: int | None,
    seed: int,
    as_json: bool,
    dialled: dict[float, Any] | None = None,
    fit: Callable[..., None] | None = None,
) -> None:
    """Time generation from the beginnings of texts.

    Args:
        name: Of the model.
        models: Of each precision, by what it is called in tables.
        data: As `lessen bench --data`.
        text_column: As there.
        against: Names from `RIVALS`, separated by commas, or `none`; all that apply if None.
        point: When tokens leave early; the model's own if None.
        rows: Prompts at most.
        prompt_tokens: Of each text so many tokens are the prompt.
        new_tokens: Generated for each.
        seconds: For each precision.
        threads: Of the processor; torch's choice if None.
        seed: Of the choice of texts, and of the order of candidates.
        as_json: Print JSON.
        dialled: Points by speed-up of reading, in place of ways to decode.
        fit: First fits latencies to rows (`encoded`), for so many threads (`count`).

    Raises:
        InputError: For an unknown rival, more tokens than the model takes, or data in which no text is long
            enough.
    """
    import torch

    from lessen.machine import machine
    from lessen.measure.generation_speed import LOSSY, compare, is_greedy, modes_of, ours, row, theirs
    from lessen.measure.rivals.generator import generator_twin

    asked = RIVALS if against is None else tuple(each for each in against.split(",") if each != "none")
    for rival in asked:
        if rival not in RIVALS:
            raise InputError(f"--against {rival}: a generator has the rivals {', '.join(RIVALS)}, or none")
    if threads is not None:
        torch.set_num_threads(threads)
    first = next(iter(models.values()))
    _check_positions(first, prompt_tokens, new_tokens)
    prompts = _prompts(first.tokenizer, data, text_column, prompt_tokens, rows, seed)
    if dialled is not None:
        if fit is not None:
            fit(encoded=_longer_and_shorter(prompts), count=torch.get_num_threads())
        title = f"{prompt_tokens} tokens of {data} read, {new_tokens} written"
        options: dict[str, Any] = {"new_tokens": new_tokens, "seconds": seconds, "seed": seed}
        _at_speedups(name, models, dialled, prompts, title, asked=asked, as_json=as_json, **options)
        return
    others = _of_gguf(name, asked, prompt_tokens + new_tokens, named=against is not None)
    lines = []
    for kind, model in models.items():
        candidates = {mode: ours(model, decoding) for mode, decoding in modes_of(model, point).items()}
        own = tuple(candidates)
        if "transformers" in asked and _in_floats(model):
            candidates["transformers"] = theirs(generator_twin(model))
        candidates |= others
        runs = compare(candidates, prompts, new_tokens=new_tokens, seconds=seconds, seed=seed)
        tokens = [run.tokens for run in runs["off"]]
        for mode, found in runs.items():
            same = [run.tokens for run in found] == tokens
            if mode == "off":
                same = all(is_greedy(model, p, t) for p, t in zip(prompts, tokens, strict=False))
            named = kind.replace(KINDS["float32"], mode) if mode == "transformers" else mode
            dtype = "gguf" if mode in others else None
            named = kind if mode in own else named
            lines.append(row(model, mode, named, found, prompts, identical=same, dtype=dtype))
        others = {}
    if as_json:
        details = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
        used = (point or first.point).name if len(own) > 1 else None
        emit(
            {
                "rows": [line.as_dict() for line in lines],
                "point": used,
                **details,
                "threads": torch.get_num_threads(),
                "machine": machine(),
            }
        )
        return
    if not all(line.identical for line in lines if line.mode not in LOSSY and line.dtype != "gguf"):
        say(
            "tokens that are not identical: two were equally likely within rounding, of which few bits do "
            "more; were they not, it is a defect"
        )
    table(
        [
            "kind",
            "mode",
            "first token, ms",
            "tokens/s",
            "weight passes",
            "MMACs/token",
            "drafts kept",
            "identical",
            "runs",
        ],
        [
            [
                line.kind,
                line.mode,
                f"{line.first_token_ms:.1f}",
                f"{line.tokens_per_s:.1f}",
                f"{line.weight_passes:.2f}",
                f"{line.macs_per_token / 1e6:.0f}",
                "" if line.acceptance is None else percent(line.acceptance),
                "yes" if line.identical else "no",
                line.runs,
            ]
            for line in lines
        ],
        f"{prompt_tokens} tokens of {data} continued by {new_tokens}, {torch.get_num_threads()} threads",
    )


def _in_floats(model: Any) -> bool:
    """Whether transformers can run the same weights."""
    return not model.precision.startswith("int")


def _check_positions(model: Any, prompt_tokens: int, new_tokens: int) -> None:
    """Whether prompts and what follows fit into the model.

    Raises:
        InputError: When they do not.
    """
    most, writes_apart = model.config.facts().max_tokens, model.transformer.decoder is not None
    needed = max(prompt_tokens, new_tokens) if writes_apart else prompt_tokens + new_tokens
    if needed > most:
        raise InputError(
            f"--prompt-tokens {prompt_tokens} --new-tokens {new_tokens}: the model takes {most} tokens"
            + (" on either side" if writes_apart else " in all")
        )


def _longer_and_shorter(prompts: list[list[int]]) -> Any:
    """Beginnings of prompts, from an eighth to all of them: what latencies are fitted to."""
    from lessen.runtime.text import Encoded

    parts = [prompt[: max(1, len(prompt) * eighth // 8)] for prompt in prompts for eighth in range(1, 9)]
    return [Encoded(part, None, False) for part in parts]


def _at_speedups(
    name: str,
    models: dict[str, Any],
    dialled: dict[float, Any],
    prompts: list[list[int]],
    title: str,
    *,
    asked: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    import torch

    from lessen.cli.speedups import predictions
    from lessen.machine import machine
    from lessen.measure.generation_speed import theirs
    from lessen.measure.prefill_speed import reading_rows
    from lessen.measure.rivals.generator import generator_twin

    count, lines = torch.get_num_threads(), []
    known = predictions(name, count)
    for kind, model in models.items():
        rivals = {}
        if "transformers" in asked and _in_floats(model):
            rivals["transformers"] = theirs(generator_twin(model))
        found = known.get((model.precision, 1))
        lines += reading_rows(model, dialled, prompts, kind=kind, rivals=rivals, fit=found, **options)
    if as_json:
        emit({"rows": [line.as_dict() for line in lines], "threads": count, "machine": machine()})
        return

    def number(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    table(
        ["kind", "speed-up", "MACs ratio", "first token, ms", "predicted", "to the last, ms", "same", "runs"],
        [
            [
                line.kind,
                number(line.speedup),
                number(line.macs_ratio),
                number(line.first_token_ms, 1),
                number(line.predicted_ms, 1),
                number(line.total_ms, 1),
                "" if line.same is None else percent(line.same),
                line.runs,
            ]
            for line in lines
        ],
        f"{title}, {count} threads",
    )


def _of_gguf(name: str, asked: tuple[str, ...], positions: int, *, named: bool) -> dict[str, Any]:
    """Rivals that run the GGUF file a model was made from; one that is not there is said in a line.

    Raises:
        InputError: When they were asked for by name, and the model was made from no such file.
    """
    import torch

    from lessen.loading import gguf_behind
    from lessen.measure.rivals.gguf_runtimes import GGUF_RIVALS

    wanted = [rival for rival in asked if rival in GGUF_RIVALS]
    file = gguf_behind(name) if wanted else None
    if file is None:
        if wanted and named:
            raise InputError(f"--against {wanted[0]} runs a GGUF file, and {name} was made from none")
        return {}
    found: dict[str, Any] = {}
    for rival in wanted:
        try:
            found[rival] = GGUF_RIVALS[rival](file, torch.get_num_threads(), positions)
        except InputError as error:
            say(f"without {rival}: {error}")
    return found


def _prompts(
    tokenizer: Any, data: str, text_column: str | None, length: int, count: int, seed: int
) -> list[list[int]]:
    import random

    from lessen.data.documents import documents

    texts = list(documents(data, text=text_column).texts)
    random.Random(seed).shuffle(texts)
    prompts: list[list[int]] = []
    for text in texts:
        ids = tokenizer(text, verbose=False)["input_ids"]
        if len(ids) >= length:
            prompts.append(ids[:length])
        if len(prompts) == count:
            break
    if not prompts:
        raise InputError(f"{data}: no text has {length} tokens; give longer texts, or fewer --prompt-tokens")
    return prompts
