"""`lessen evaluate` of a model with exits that name tokens: every mode at every Point on held-out prompts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lessen.cli.output import emit, percent, say, table


def evaluate_generator(
    model: Any,
    name: str,
    data: str,
    text_column: str | None,
    points: list[Any],
    *,
    prompts: int,
    prompt_tokens: int | None,
    new_tokens: int | None,
    as_json: bool,
) -> None:
    """Continue the beginnings of documents in every mode, and print what it gave and took.

    Args:
        model: A loaded `LessenForCausalLM` with language exits.
        name: Its folder, or what it was loaded by.
        data: Documents; those the model has seen are left out.
        text_column: Of a table.
        points: At which tokens leave.
        prompts: At most so many.
        prompt_tokens: Of each; as it was calibrated, else 64, if None.
        new_tokens: Likewise.
        as_json: Print one JSON object.

    Raises:
        InputError: When no document is left.
    """
    from lessen.data.documents import documents
    from lessen.measure.decoded import decode_all
    from lessen.progress import counting
    from lessen.promise.prompts import check_room, prompting_of, prompts_of, unseen

    began, folder = time.perf_counter(), Path(name).expanduser()
    rows, left_out = unseen(folder, documents(data, text=text_column))
    if left_out:
        say(f"{left_out:,} documents were left out: training, tuning or calibration saw them")
    prompting = prompting_of(folder, prompt_tokens, new_tokens)
    check_room(model, prompting)
    ids = prompts_of(model, rows.take(range(min(prompts, len(rows)))), prompting)
    with counting("decoding", "continuations", kept=False) as watch:
        lines = decode_all(model, ids, new_tokens=prompting.new_tokens, points=points, watch=watch)
    if as_json:
        emit(
            {
                "modes": [line.as_dict() for line in lines],
                "n": len(ids),
                "left_out": left_out,
                **prompting.model_dump(),
                "precision": model.precision,
                "seconds": round(time.perf_counter() - began, 3),
            }
        )
        return
    table(
        [
            "mode, point",
            "agrees on its text",
            "same text",
            "mean layers",
            "weight passes",
            "MMACs/token",
            "drafts kept",
        ],
        [
            [
                line.mode if line.point is None else f"{line.mode}, {line.point}",
                percent(line.agreement),
                percent(line.same_text),
                f"{line.mean_layers:.2f}",
                f"{line.weight_passes:.2f}",
                f"{line.macs_per_token / 1e6:.1f}",
                "" if line.acceptance is None else percent(line.acceptance),
            ]
            for line in lines
        ],
        f"{data}: {len(ids):,} prompts of up to {prompting.prompt_tokens} tokens, continued by up to "
        f"{prompting.new_tokens}",
    )
    print(
        "agrees on its text: tokens full depth would name after the same text, early tokens included; "
        "certificates count along full depth's own."
    )
    for line in lines:
        if line.point is not None:
            print(f"{line.mode}, {line.point}: {where_of(line)}")


def where_of(line: Any) -> str:
    """Where tokens were named, and where those stood that full depth would not have named."""
    named = []
    for layer, count in line.named_after.items():
        wrong = line.wrong_after.get(layer, 0)
        differ = f" ({percent(wrong / count)}% of them differ)" if wrong else ""
        named.append(f"{percent(count / line.tokens)}% after layer {layer}{differ}")
    after = ", ".join(named)
    if not line.wrong_after:
        return f"named {after}"
    places = ", ".join(
        f"{percent(part['wrong'] / part['tokens'])}% of tokens {part['first']} to {part['last']}"
        for part in line.wrong_at
        if part["tokens"]
    )
    return f"named {after}; by place, {places} differ"
