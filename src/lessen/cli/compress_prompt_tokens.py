"""`lessen compress --system latency-adjustable` of what writes: options to a plan, and its outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lessen.cli.output import emit, percent, say, table
from lessen.errors import InputError


def reading_plan(
    *,
    prompt: str | None,
    answers: str | None,
    recipe: dict[str, Any],
    tokens: dict[str, Any],
    prompting: dict[str, int],
    seed: int,
    **sources: Any,
) -> Any:
    """The plan of a run.

    Args:
        prompt: How to ask, or None for plain text.
        answers: For a prompt, with commas between.
        recipe: Options by field, None where not given.
        tokens: Of a `TokenPlan`.
        prompting: Lengths.
        seed: Of the split and the order of rows.
        sources: Model, data and columns.

    Raises:
        InputError: Naming the option that does not fit.
    """
    from lessen.data.prompts import templates_of
    from lessen.records import parse
    from lessen.systems.planning import option_of
    from lessen.systems.prompt_tokens import STAGES, ReadingPlan, usual_for

    given = {key: value for key, value in recipe.items() if value is not None}
    if given.get("speedup", 2) <= 1:
        raise InputError("--speedup: no token would leave; give more than 1")
    if answers is not None and prompt is None:
        raise InputError("--answers are for a --prompt")
    words = None if answers is None else tuple(each.strip() for each in answers.split(","))
    if prompt is not None:
        templates_of(prompt, words)
    untrained = given.get("epochs") == 0
    if untrained and len(given) > 1:
        extra = next(name for name in given if name != "epochs")
        raise InputError(f"{option_of(extra)}: nothing is trained with --epochs 0")
    stages = []
    for stage in () if untrained else STAGES:
        own = {key: value for key, value in given.items() if key not in ("speedup", "rates")}
        if stage.speedup > 1:
            own |= {key: given[key] for key in ("speedup", "rates") if key in given}
            own |= {"as_far_as_rows_allow": False} if "speedup" in given else {}
        stages.append(stage.model_dump() | own)
    tokens = usual_for(sources["model"]) | tokens
    raw = {"prompt": prompt, "answers": words, "stages": stages, "seed": seed, **sources}
    return parse(ReadingPlan, raw | {"tokens": tokens, "prompting": prompting}, "plan")


def carry_out(plan: Any, out: Path, as_json: bool) -> None:
    """Run a plan and print what came out."""
    from lessen.systems.prompt_tokens import compress_prompt_tokens

    outcome = compress_prompt_tokens(plan, out, say)
    if as_json:
        emit(
            {
                "out": str(out),
                "speedups": outcome.results,
                "rows": outcome.rows,
                "training": outcome.training,
                "plan": plan.model_dump(mode="json"),
            }
        )
        return
    asked = plan.prompt is not None
    table(
        ["speed-up", "MACs ratio", *(["prompt", outcome.results[0]["metric"]] if asked else ["loss"])],
        [
            [
                f"{row['speedup']:g}x",
                f"{row['macs_ratio']:.2f}x",
                *([row["prompt"], _value(row["value"])] if asked else [f"{row['loss']:.4f}"]),
            ]
            for row in outcome.results
        ],
        f"of reading, on {outcome.rows['test']:,} rows kept aside"
        + ("" if asked else "; nats for each token of what follows"),
    )
    say(f"saved {out}; nothing is certified; read less with: lessen generate {out} --speedup 2 ...")


def _value(value: float | None) -> str:
    return "undefined" if value is None else percent(value)
