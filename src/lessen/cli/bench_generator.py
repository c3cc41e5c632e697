"""`lessen bench` for generators: our loop beside transformers' on the same weights and prompts."""

from __future__ import annotations

from typing import Any

from lessen.cli.output import KINDS, emit, say, table
from lessen.errors import InputError


def bench(
    models: dict[str, Any],
    data: str,
    text_column: str | None,
    *,
    against: str,
    rows: int,
    prompt_tokens: int,
    new_tokens: int,
    seconds: float,
    threads: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Time generation from the beginnings of texts.

    Args:
        models: Of each precision, by what it is called in tables.
        data: As `lessen bench --data`.
        text_column: As there.
        against: `transformers` or `none`.
        rows: Prompts at most.
        prompt_tokens: Of each text so many tokens are the prompt.
        new_tokens: Generated for each.
        seconds: For each precision.
        threads: Of the processor; torch's choice if None.
        seed: Of the choice of texts, and of the order of candidates.
        as_json: Print JSON.

    Raises:
        InputError: For another rival, or data in which no text is long enough.
    """
    import torch

    from lessen.machine import machine
    from lessen.measure.generation_speed import Candidate, compare, is_greedy, ours, row, theirs
    from lessen.measure.rivals.generator import generator_twin

    if against not in ("transformers", "none"):
        raise InputError(f"--against {against}: a generator has the rival transformers, or none")
    if threads is not None:
        torch.set_num_threads(threads)
    first = next(iter(models.values()))
    prompts = _prompts(first.tokenizer, data, text_column, prompt_tokens, rows, seed)
    lines = []
    for kind, model in models.items():
        candidates: dict[str, Candidate] = {"off": ours(model)}
        if against == "transformers" and model.precision != "int8":
            candidates["transformers"] = theirs(generator_twin(model))
        runs = compare(candidates, prompts, new_tokens=new_tokens, seconds=seconds, seed=seed)
        tokens = [run.tokens for run in runs["off"]]
        for mode, found in runs.items():
            if mode == "off":
                same = all(is_greedy(model, p, t) for p, t in zip(prompts, tokens, strict=False))
                named = kind
            else:
                same = [run.tokens for run in found] == tokens
                named = kind.replace(KINDS["float32"], "transformers")
            lines.append(row(model, mode, named, found, prompts, identical=same))
    if as_json:
        details = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
        emit(
            {
                "rows": [line.as_dict() for line in lines],
                **details,
                "threads": torch.get_num_threads(),
                "machine": machine(),
            }
        )
        return
    if not all(line.identical for line in lines):
        say("tokens that are not identical: two were equally likely within rounding, or it is a defect")
    table(
        ["kind", "mode", "first token, ms", "tokens/s", "MMACs/token", "identical", "runs"],
        [
            [
                line.kind,
                line.mode,
                f"{line.first_token_ms:.1f}",
                f"{line.tokens_per_s:.1f}",
                f"{line.macs_per_token / 1e6:.0f}",
                "yes" if line.identical else "no",
                line.runs,
            ]
            for line in lines
        ],
        f"{prompt_tokens} tokens of {data} continued by {new_tokens}, {torch.get_num_threads()} threads",
    )


def _prompts(
    tokenizer: Any, data: str, text_column: str | None, length: int, count: int, seed: int
) -> list[list[int]]:
    import random

    from lessen.data.reading import read

    texts = [text if isinstance(text, str) else text[0] for text in read(data, text=text_column).texts]
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
