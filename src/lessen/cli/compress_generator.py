"""`lessen compress` of a model that generates: options to a plan, and what came out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lessen.cli.output import emit, parse_share, percent, say, show_drafts, show_promises, table
from lessen.errors import InputError

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def bounds_of(max_drop: list[str] | None, target_agreement: list[str] | None) -> list[float]:
    """Shares that may differ, from either way of saying it.

    Raises:
        InputError: When both are given, or a share is none.
    """
    if max_drop and target_agreement:
        raise InputError("--max-drop and --target-agreement say the same; give one of them")
    if not target_agreement:
        return [parse_share(each, "--max-drop") for each in max_drop or ["5%"]]
    shares = [parse_share(each, "--target-agreement") for each in target_agreement]
    if 0 in shares:
        raise InputError("--target-agreement 0%: any exits would do; give one above 0%")
    return [round(1 - share, 12) for share in shares]


def language_asked(
    bounds: list[float],
    confidence: str,
    loss: str | None,
    rule: str,
    block: int,
    *,
    one_threshold: bool = False,
    decay: float | None = None,
) -> Any:
    """The options of a promise about a generator, checked.

    Raises:
        InputError: Naming the option.
    """
    from lessen.promise.generators import LanguageAsked
    from lessen.promise.verdict import RULES
    from lessen.records import parse

    chosen = loss or "disagreement"
    if chosen not in ("disagreement", "selective", "block"):
        raise InputError(f"--loss {loss}: of a generator choose disagreement, selective or block")
    if rule not in RULES:
        raise InputError(f"--rule {rule}: choose {', '.join(RULES)}")
    sure = parse_share(confidence, "--confidence")
    if sure == 0:
        raise InputError(f"--confidence {confidence}: must be above 0% and below 100%")
    raw = {"bounds": tuple(bounds), "confidence": sure, "loss": chosen, "rule": rule, "block": block}
    raw |= {"one_threshold": one_threshold, "decay": decay}
    return parse(LanguageAsked, raw, "promise")


def language_plan(
    *,
    model: str,
    data: str,
    system: str,
    layers: str | None,
    kind: str | None,
    rank: int | None,
    words: int | None,
    fresh: bool,
    steps: int | None,
    time_limit: str | None,
    penalty: float | None,
    prompt_tokens: int,
    new_tokens: int,
    prompts: int | None,
    alone: bool,
    criterion: list[str] | None,
    recipe: dict[str, Any],
    promise: Any,
    seed: int,
    **sources: Any,
) -> Any:
    """The plan of a run on a generator.

    Raises:
        InputError: Naming the option that does not fit.
    """
    from lessen.loading import facts_of
    from lessen.plan import WITHOUT_RANK, LanguageExitShape
    from lessen.records import parse
    from lessen.systems.generator import LEARNING_RATES, LanguagePlan, language_exits, usual_kind
    from lessen.systems.planning import naming_options

    if system != "self-exit":
        raise InputError(
            f"{model} generates; use --system self-exit or latency-adjustable, {system} is for models that "
            "classify"
        )
    facts = facts_of(model)
    kind = kind or usual_kind(facts)
    parse(LanguageExitShape, {"layer": 1, "kind": kind, "rank": 1 if kind not in WITHOUT_RANK else None,
                              "words": 1 if kind == "shortlist" else None}, "--head")  # fmt: skip
    chosen_kind: Any = kind
    training = {key: value for key, value in recipe.items() if value is not None}
    training |= {"fresh": fresh, "seed": seed}
    training |= {} if steps is None else {"steps": steps}
    training |= {} if penalty is None else {"penalty": penalty}
    training.setdefault("learning_rate", LEARNING_RATES[chosen_kind])
    if time_limit is not None:
        training["time_limit"] = seconds_of(time_limit)
    raw: dict[str, Any] = {
        "model": model,
        "data": data,
        "recipe": training,
        "exits": language_exits(facts, _places(layers), chosen_kind, rank, words),
        "promise": promise,
        "prompting": {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens},
        "with_model": not alone,
        "seed": seed,
        **sources,
    }
    if criterion:
        raw["criteria"] = tuple(criterion)
    if prompts is not None:
        raw |= {f"{part}_prompts": prompts for part in ("tune", "calibration", "test")}
    with naming_options(training):
        return parse(LanguagePlan, raw, "plan")


def seconds_of(text: str) -> float:
    """`15m`, `90s`, `1h` or plain seconds.

    Raises:
        InputError: When it is none of them.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise InputError(f"--time-limit {text}: expected a time such as 15m, 90s or 1h")
    return float(match[1]) * UNITS[match[2]]


def _places(layers: str | None) -> list[int] | None:
    try:
        return None if layers is None else [int(part) for part in layers.split(",")]
    except ValueError:
        raise InputError(f"--exits {layers}: expected layer numbers such as 8,15,22") from None


def carry_out(plan: Any, out: Path, as_json: bool) -> None:
    """Run a plan and print what came out."""
    from lessen.model.transformer import parameter_counts
    from lessen.systems.generator import compress_generator

    outcome = compress_generator(plan, out, say)
    if as_json:
        emit(
            {
                "out": str(out),
                "parameters": parameter_counts(outcome.model.transformer),
                "exits": outcome.quality,
                "points": outcome.results,
                "calibration": outcome.calibration.as_dict(),
                "rows": outcome.rows,
                "training": [outcome.training],
                "plan": plan.model_dump(mode="json"),
            }
        )
        return
    criteria = plan.criteria
    table(
        ["exit after", "agreement", "in top 5", "KL", *(f"AUROC {name}" for name in criteria)],
        [
            [
                f"{row['layer']}",
                percent(row["agreement"]),
                percent(row["top5_agreement"]),
                f"{row['kl']:.3f}",
                *(_number(row["auroc"][name]) for name in criteria),
            ]
            for row in outcome.quality
        ],
        f"exits on {outcome.quality[0]['tokens']:,} tokens of tuning text",
    )
    table(
        ["point", "agreement", "leave early", "right of these", "mean layers", "work"],
        [
            [
                row["name"],
                percent(row["value"]),
                percent(row["early"]),
                percent(row["selective_agreement"]),
                f"{row['mean_layers']:.2f}",
                f"{row['block_equivalents']:.2f}",
            ]
            for row in outcome.results
        ],
        f"on {outcome.rows['test']:,} prompts kept aside; work in layers, if none is made up for later",
    )
    show_promises(outcome.calibration)
    show_drafts(outcome.model.config)
    say(f"saved {out}; it answers at point {outcome.model.config.point!r}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
