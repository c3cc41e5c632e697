"""`lessen evaluate --prompt`: models that write, on labelled rows put into words."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from lessen.cli.output import emit, say, table
from lessen.cli.speedups import dialled_at
from lessen.errors import InputError


def evaluate_prompts(
    model: Any,
    data: Any,
    *,
    ways: Sequence[Any],
    speedups: str | None,
    batch_size: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Print quality for each way to ask, at the model's Point and at speed-ups of reading.

    Args:
        model: A loaded generator.
        data: Its `Table`.
        ways: Of `data.prompts.templates_of`.
        speedups: Ratios of MACs, with commas between; they need a retention profile.
        batch_size: Rows read at once.
        strict: Refuse prompts longer than the model takes.
        as_json: Print one JSON object.

    Raises:
        InputError: When model, rows and prompt do not fit.
        PlanError: When a speed-up cannot be reached.
        LessenError: When the model's logits are no numbers.
    """
    from lessen.data.prompts import for_rows, labels_in_words
    from lessen.measure.answering import evaluate_answers
    from lessen.progress import adding, counting

    if model.tokenizer is None:
        raise InputError("the model has no tokenizer: put its tokenizer.json into its folder")
    points = [model.point]
    if speedups is not None:
        points = list(dialled_at(model, speedups).values())
    ways = for_rows(ways, data)
    for line in labels_in_words(data, ways):
        say(line)
    began = time.perf_counter()
    found = []
    with counting("answering", "prompts", kept=False) as watch:
        told = adding(watch, len(data) * len(ways) * len(points))
        for way in ways:
            for point in points:
                found.append(
                    evaluate_answers(model, data, way, point, batch_size=batch_size, strict=strict, told=told)
                )
    for first in found[:: len(points)]:
        if first.truncated:
            say(f"{first.truncated} of {len(data)} texts were cut to what the model takes: {first.prompt!r}")
    for each in found:
        if each.unread:
            say(f"{each.unread} of {len(data)} answers to {each.prompt!r} at {each.point} were no number")
        if math.isnan(each.value):
            say(f"no {each.metric} of {each.prompt!r} at {each.point}: all answers, or all labels, are alike")
    if as_json:
        seconds = round(time.perf_counter() - began, 3)
        emit({"prompts": [each.as_dict() for each in found], "n": len(data), "seconds": seconds})
        return
    print(f"{data.name}: {len(data):,} rows")
    table(
        ["prompt", "point", found[0].metric, "MACs ratio", "tokens"],
        [
            [each.prompt, each.point, _value(each.value), f"{each.macs_ratio:.2f}x", f"{each.tokens:.1f}"]
            for each in found
        ],
    )


def _value(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"
