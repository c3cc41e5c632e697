"""What the commands share: options, tables on stdout, progress on stderr, one JSON object for `--json`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lessen.errors import InputError

DATA = "Data"
GENERATORS = "Generators"
"""Headings of options in a command's help."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Data = Annotated[
    str, typer.Option("--data", help="A CSV, TSV, JSONL or Parquet file, builtin:NAME, or a hub dataset.")
]
TextColumn = Annotated[str | None, typer.Option(help="Column with the text.", rich_help_panel=DATA)]
PairColumn = Annotated[
    str | None, typer.Option(help="Column with the second text of a pair.", rich_help_panel=DATA)
]
LabelColumn = Annotated[str | None, typer.Option(help="Column with the label.", rich_help_panel=DATA)]
Task = Annotated[
    str | None,
    typer.Option(
        help="classification, multi-label or regression; found from the labels if not given.",
        rich_help_panel=DATA,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Computed in float32, bfloat16, int8, int8-weights (only weights have 8 bits) or int4. "
        "[as stored]"
    ),
]
MaxDrop = Annotated[
    list[str] | None, typer.Option(help="Loss allowed; repeat for several Points certified together. [1%]")
]
TargetAgreement = Annotated[
    list[str] | None,
    typer.Option(
        help="Agreement with the full model, 95% for --max-drop 5%. [95%]", rich_help_panel=GENERATORS
    ),
]
OneThreshold = Annotated[
    bool,
    typer.Option(
        "--one-threshold", help="All exits have the same threshold (CALM).", rich_help_panel=GENERATORS
    ),
]
DecayRate = Annotated[
    float | None,
    typer.Option(
        "--decay",
        min=0.0,
        help="Tau of CALM's threshold, which asks for most sureness early in a text; goes by closeness or "
        "improbability.",
        rich_help_panel=GENERATORS,
    ),
]
Block = Annotated[
    int,
    typer.Option(
        min=1, help="Tokens that --loss block wants to be the full model's.", rich_help_panel=GENERATORS
    ),
]
Confidence = Annotated[str, typer.Option(help="That what is promised is true, over the calibration draw.")]
LossName = Annotated[
    str | None,
    typer.Option(
        help="What is bounded: drop (of quality) [default], disagreement (with the reference), or selective "
        "(disagreement among early answers). Generators: disagreement [their default], selective, or block "
        "(any of the next tokens differs)."
    ),
]
RuleName = Annotated[
    str,
    typer.Option(
        help="certified; expectation (conformal risk control, on average over draws); or plug-in (the "
        "literature's rule, no promise)."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; torch's default if not given.")]


def say(line: str) -> None:
    """A line of progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def emit(value: dict[str, Any]) -> None:
    """One JSON object on stdout; undefined numbers as null."""
    print(json.dumps(_without_nan(value), ensure_ascii=False, allow_nan=False))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """A table on stdout: first column left, numbers right."""
    if title:
        print(title)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        drawn.add_column(column, justify="left" if place == 0 else "right", no_wrap=place > 0)
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, str) else f"{cell}" for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(drawn)


def percent(share: float) -> str:
    """A share as percent with one decimal."""
    return f"{100 * share:.1f}"


def precision_of(name: str | None) -> Any:
    """Check a `--precision` value; None: as stored."""
    if name is not None and name not in KINDS:
        raise InputError(f"--precision {name}: choose {', '.join(KINDS)}")
    return name


def asked_of(max_drop: list[str] | None, confidence: str, loss: str | None, rule: str) -> Any:
    """The options of a promise, checked.

    Raises:
        InputError: Naming the option.
    """
    from lessen.promise.settle import Asked
    from lessen.promise.verdict import LOSSES, RULES
    from lessen.records import parse

    loss = loss or "drop"
    if loss not in LOSSES:
        raise InputError(f"--loss {loss}: choose {', '.join(LOSSES)}")
    if rule not in RULES:
        raise InputError(f"--rule {rule}: choose {', '.join(RULES)}")
    sure = parse_share(confidence, "--confidence")
    if sure == 0:
        raise InputError(f"--confidence {confidence}: must be above 0% and below 100%")
    bounds = tuple(parse_share(each, "--max-drop") for each in max_drop or ["1%"])
    raw = {"bounds": bounds, "confidence": sure, "loss": loss, "rule": rule}
    return parse(Asked, raw, "promise")


def show_drafts(config: Any) -> None:
    """How mode `spec` drafts, in a line; nothing where no way to draft was found to pay."""
    if (drafts := config.drafting()) is None:
        return
    places = ", ".join(str(layer) for layer in sorted(drafts.rule.thresholds or {}))
    most = "1 token" if drafts.most == 1 else f"up to {drafts.most} tokens"
    print(
        f"Mode spec drafts {most} after layers {places}, by {drafts.rule.criterion}; "
        f"on the tuning prompts it reads {100 * drafts.weights_saved:.0f}% fewer weights than full depth."
    )


def show_promises(calibration: Any) -> None:
    """What was promised, or why not, in sentences."""
    from lessen.certificate import repeated

    if calibration.certificate is not None:
        for point in calibration.certificate.points:
            print(calibration.certificate.sentence(point))
        if warning := repeated(calibration.certificate.attempt):
            print(warning)
    else:
        for point in calibration.points:
            print(f"Point {point.name!r} was chosen by the {point.promise.rule} rule; it is not certified.")
    for bound, why in calibration.reasons.items():
        print(f"No point for {100 * bound:g}%: {why}.")
    if calibration.weak:
        print(f"Beware: {calibration.weak}.")
    if calibration.dearer:
        print(f"The model answers at full depth unless told otherwise (--point): {calibration.dearer}.")
    if calibration.earlier:
        print("Nothing was certified now: the certificate of before stays, and the model answers as it did.")
    elif not calibration.points:
        print("The model answers at full depth.")


def parse_share(text: str, option: str) -> float:
    """`1%` or `0.01` as 0.01.

    Raises:
        InputError: When it is neither.
    """
    raw = text.strip()
    try:
        value = float(raw[:-1]) / 100 if raw.endswith("%") else float(raw)
    except ValueError:
        raise InputError(f"{option} {text}: expected a share such as 1% or 0.01") from None
    value = round(value, 12)
    if not 0 <= value < 1:
        raise InputError(
            f"{option} {text}: must be at least 0 and below 100%; 1% means one point in a hundred"
        )
    return value


STYLES = ("bright_black", "blue", "cyan", "green", "yellow", "bold red")
"""Of tokens that went through few layers, up to those that went through all."""

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def coloured(piece: str, layers: int, depth: int) -> Text:
    """A token's text in the colour of the layers it went through, followed by their number."""
    return Text(piece, _style(layers, depth)).append(str(layers).translate(SUBSCRIPTS), "dim")


def legend(title: str, layers: Sequence[int], depth: int) -> Text:
    """What the colours mean."""
    line = Text(f"{title}: ")
    for each in layers:
        line.append(f" {each} ", _style(each, depth))
    return line


def _style(layers: int, depth: int) -> str:
    return STYLES[round(layers / depth * (len(STYLES) - 1))]


KINDS = {
    "float32": "lessen",
    "bfloat16": "lessen-bf16",
    "int8": "lessen-int8",
    "int8-weights": "lessen-int8w",
    "int4": "lessen-int4",
}
"""What a model is called in tables, by its precision."""


def in_precisions(model: str, precisions: str | None, usual: str = "float32") -> dict[str, Any]:
    """A model loaded in each of `float32,bfloat16`, by what it is called in tables.

    Args:
        model: Its name.
        precisions: Separated by commas; None: as stored where that is in few bits, else the usual ones.
        usual: Likewise.
    """
    from lessen.loading import load

    if precisions is None:
        stored = load(model)
        if stored.config.form().few_bits:
            return {KINDS[stored.precision]: stored}
    wanted = [precision_of(name) for name in (precisions or usual).split(",")]
    return {KINDS[precision]: load(model, precision=precision) for precision in wanted}


def rival_kinds(against: str | None, models: Sequence[Any]) -> list[str]:
    """`torch,onnxruntime` as kinds of rivals; `none` for none.

    Args:
        against: As given; None: torch, where it can run the models.
        models: That are to be timed, as loaded from where they lie.

    Raises:
        InputError: When there is no such rival.
    """
    from lessen.measure.rivals import RIVALS
    from lessen.measure.rivals.dense import why_not_dense

    if against is None:
        reasons = [why_not_dense(model.config.facts(), model.config.form()) for model in models]
        if why := next((reason for reason in reasons if reason is not None), None):
            say(f"no rival is timed: {why}")
            return []
        return ["torch"]
    kinds = [kind for kind in against.split(",") if kind and kind != "none"]
    for kind in kinds:
        if kind not in RIVALS:
            raise InputError(f"--against {kind}: choose from {', '.join(RIVALS)}")
    return kinds


def numbers(text: str, option: str, kind: type = int, such_as: str = "1,8,32") -> list[Any]:
    """`1,8,32` as numbers of a kind.

    Raises:
        InputError: When it is something else, or one of them is below 1.
    """
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(1 <= each < math.inf for each in found):
        raise InputError(f"{option} {text}: expected numbers of at least 1, such as {such_as}")
    return found
