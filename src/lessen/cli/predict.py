"""`lessen predict`: answers for texts given on the command line or in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.output import (
    Json,
    PairColumn,
    Precision,
    TextColumn,
    coloured,
    emit,
    legend,
    parse_share,
    precision_of,
    say,
    table,
)
from lessen.errors import InputError


def command(
    model: Annotated[str, typer.Argument(help="Model folder, hub name, or builtin:NAME.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to answer.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="One text per line; a tab separates the two of a pair.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A CSV, TSV, JSONL or Parquet file, builtin:NAME, or a hub dataset.")
    ] = None,
    pair: Annotated[list[str] | None, typer.Option(help="Second text for each text, in order.")] = None,
    point: Annotated[
        str | None, typer.Option(help="Point to answer at; the model's default if not given.")
    ] = None,
    max_drop: Annotated[
        str | None, typer.Option(help="Answer at the fastest Point certified to lose at most this, 1% say.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="Use as much of the model as so many milliseconds per row allow.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per batch.")] = 32,
    speedup: Annotated[
        float | None, typer.Option(help="Let as many tokens (or layers) go as this speed-up takes.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how many layers each token went through.")
    ] = False,
    precision: Precision = None,
    strict: Annotated[bool, typer.Option(help="Refuse texts longer than the model.")] = False,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    as_json: Json = False,
) -> None:
    """Label texts, and say how many layers each needed, and whether anything is promised of it."""
    from lessen.hf import LessenForSequenceClassification
    from lessen.loading import load

    loaded = load(model, precision=precision_of(precision))
    if not isinstance(loaded, LessenForSequenceClassification):
        raise InputError(f"{model} has no classifier; {_other_use(loaded)}")
    if (text_column or pair_column) and data is None:
        raise InputError("--text-column and --pair-column say how to read --data")
    inputs = _inputs(texts, file, pair, data, (text_column, pair_column))
    _check_kind(model, inputs)
    _choose(loaded, point, speedup, max_drop, latency_ms)
    chosen = loaded.point
    predictions = loaded.predict(inputs, batch_size=batch_size, strict=strict, explain=explain)
    shown = [text if isinstance(text, str) else " | ".join(text) for text in inputs]
    if as_json:
        rows = [{"text": text, **p.as_dict()} for text, p in zip(shown, predictions, strict=True)]
        said = _promised(loaded, chosen)
        emit({"predictions": rows, "point": chosen.name, "certified": said is not None, "promise": said})
        return
    table(
        ["text", "answer", "probability", "layers", "tokens"],
        [
            [
                _short(text),
                _answer(p),
                _probability(p),
                p.layers,
                f"{p.tokens}{' (cut)' if p.truncated else ''}",
            ]
            for text, p in zip(shown, predictions, strict=True)
        ],
        f"at point {chosen.name!r}: {_standing(chosen)}",
    )
    if explain:
        _show_tokens(predictions, loaded.transformer.shape)


def _other_use(loaded: Any) -> str:
    if loaded.config.facts().language_head is not None:
        return "it generates: lessen generate"
    return "embed texts with lessen.load(...).embed in Python"


def _show_tokens(predictions: list[Any], shape: Any) -> None:
    """Every text once more, each word coloured by the layers it went through and followed by their number."""
    from rich.console import Console
    from rich.text import Text

    from lessen.runtime.predict import after_leaving
    from lessen.runtime.text import joined_pieces

    depth = len(shape.layers)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

    console.print(legend("layers it went through", range(depth + 1), depth))
    for prediction in predictions:
        line = Text()
        tokens, depths = zip(*prediction.read, strict=True)
        for piece, layers in zip(joined_pieces(tokens), depths, strict=True):
            line.append_text(coloured(piece, layers, depth))
        console.print(line)
    if any(layers < prediction.layers for prediction in predictions for _, layers in prediction.read):
        console.print(after_leaving(shape), markup=False)


def _choose(
    loaded: Any, point: str | None, speedup: float | None, max_drop: str | None, latency_ms: float | None
) -> None:
    """Set the Point to answer at, by name or by a wish."""
    drop = None if max_drop is None else parse_share(max_drop, "--max-drop")
    asked = {"--point": point, "--speedup": speedup, "--max-drop": drop, "--latency-ms": latency_ms}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"give {' or '.join(given)}, not {'both' if len(given) == 2 else 'all'}")
    if point is not None:
        loaded.use(point)
    elif given:
        loaded.dial(speedup=speedup, max_drop=drop, latency_ms=latency_ms)
    if drop is not None and loaded.point.promise is None:
        say(f"no point is certified to lose at most {max_drop}; every row goes through all layers")


def _standing(point: Any) -> str:
    """What is promised of a Point, in a few words."""
    if point.exits is None and point.retention is None:
        return "the whole model"
    promise = point.promise
    if promise is None or promise.kind != "certified":
        return "nothing is promised"
    return f"certified, {promise.loss} at most {100 * promise.epsilon:g}%"


def _promised(loaded: Any, point: Any) -> str | None:
    """The promise of a certified Point, in its certificate's words; None of another."""
    from lessen.certificate import is_certified, read_certificate

    if not is_certified(point):
        return None
    certificate = read_certificate(loaded.folder)
    entries = [] if certificate is None else [each for each in certificate.points if each.name == point.name]
    return certificate.sentence(entries[0]) if certificate is not None and entries else None


def _check_kind(model: str, inputs: list[Any]) -> None:
    """Refuse pairs for a model trained on single texts, and the other way round, as far as that is known."""
    from lessen.promise.rows import trained_on_pairs

    known, pairs = trained_on_pairs(model), isinstance(inputs[0], tuple)
    if known and not pairs:
        raise InputError(f"{model} was trained on pairs of texts; give the second ones with --pair")
    if known is False and pairs:
        raise InputError(f"{model} was trained on single texts, and these are pairs (with tabs, in a --file)")


def _inputs(
    texts: list[str] | None,
    file: Path | None,
    pair: list[str] | None,
    data: str | None,
    columns: tuple[str | None, str | None],
) -> list[Any]:
    inputs: list[Any] = list(texts or [])
    for place, text in enumerate(inputs, start=1):
        if not text.strip():
            raise InputError(f"text {place} is empty")
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {file}: {error}") from None
        for place, line in enumerate(lines, start=1):
            sides = line.split("\t")
            if not all(side.strip() for side in sides):
                raise InputError(f"{file}, line {place}: there is no text{' on one side' * (len(sides) > 1)}")
            if len(sides) > 2:
                raise InputError(f"{file}, line {place}: {len(sides) - 1} tabs; one parts the two of a pair")
        inputs += [tuple(line.split("\t", 1)) if "\t" in line else line for line in lines]
    if data is not None:
        from lessen.data.reading import read

        inputs += read(data, text=columns[0], pair=columns[1], labelled=False).texts
    if not inputs:
        raise InputError("nothing to predict: give texts, --file or --data")
    if len({isinstance(text, tuple) for text in inputs}) > 1:
        raise InputError("some of these are pairs of texts and some are not; give one kind at a time")
    if pair:
        for place, text in enumerate(pair, start=1):
            if not text.strip():
                raise InputError(f"--pair {place} is empty")
        if any(isinstance(text, tuple) for text in inputs):
            raise InputError("these are pairs already; leave --pair away")
        if len(pair) != len(inputs):
            raise InputError(f"{len(inputs)} texts but {len(pair)} --pair texts; give one for each")
        inputs = list(zip(inputs, pair, strict=True))
    return inputs


def _answer(prediction: Any) -> str:
    if prediction.value is not None:
        return f"{prediction.value:.3f}"
    return prediction.label if isinstance(prediction.label, str) else ", ".join(prediction.label) or "(none)"


def _probability(prediction: Any) -> str:
    return f"{prediction.probability:.3f}" if isinstance(prediction.probability, float) else ""


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
