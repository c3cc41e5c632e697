"""`lessen evaluate --prompt`: models that write, on labelled rows put into words."""

from __future__ import annotations

import time
from typing import Any

from lessen.cli.output import emit, say, table
from lessen.cli.speedups import dialled_at
from lessen.errors import InputError


def evaluate_prompts(
    model: Any,
    data: Any,
    *,
    prompt: str,
    answers: str | None,
    speedups: str | None,
    batch_size: int,
    as_json: bool,
) -> None:
    """Print quality for each way to ask, at the model's Point and at speed-ups of reading.

    Args:
        model: A loaded generator.
        data: Its `Table`.
        prompt: A named task, or a text with `{text}`.
        answers: One for each label, with commas between.
        speedups: Ratios of MACs, with commas between; they need a retention profile.
        batch_size: Rows read at once.
        as_json: Print one JSON object.

    Raises:
        InputError: When model, rows and prompt do not fit.
        PlanError: When a speed-up cannot be reached.
    """
    from lessen.data.prompts import templates_of
    from lessen.measure.answering import evaluate_answers

    if model.tokenizer is None:
        raise InputError("the model has no tokenizer: put its tokenizer.json into its folder")
    given = None if answers is None else [each.strip() for each in answers.split(",")]
    ways = templates_of(prompt, given)
    points = [model.point]
    if speedups is not None:
        points = list(dialled_at(model, speedups).values())
    began = time.perf_counter()
    found = [
        evaluate_answers(model, data, way, point, batch_size=batch_size) for way in ways for point in points
    ]
    if cut := found[0].truncated:
        say(f"{cut} of {len(data)} prompts were cut to what the model takes")
    for each in found:
        if each.unread:
            say(f"{each.unread} of {len(data)} answers to {each.prompt!r} at {each.point} were no number")
    if as_json:
        seconds = round(time.perf_counter() - began, 3)
        emit({"prompts": [each.as_dict() for each in found], "n": len(data), "seconds": seconds})
        return
    print(f"{data.name}: {len(data):,} rows")
    table(
        ["prompt", "point", found[0].metric, "MACs ratio", "tokens"],
        [
            [each.prompt, each.point, f"{each.value:.4f}", f"{each.macs_ratio:.2f}x", f"{each.tokens:.1f}"]
            for each in found
        ],
    )
