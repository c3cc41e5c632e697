"""`lessen predict`: answers for texts given on the command line or in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.output import Json, Precision, coloured, emit, legend, precision_of, table
from lessen.errors import InputError


def command(
    model: Annotated[str, typer.Argument(help="Model folder, hub name, or builtin:NAME.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to answer.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="One text per line; a tab separates the two of a pair.")
    ] = None,
    pair: Annotated[list[str] | None, typer.Option(help="Second text for each text, in order.")] = None,
    point: Annotated[
        str | None, typer.Option(help="Point to answer at; the model's default if not given.")
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
    as_json: Json = False,
) -> None:
    """Label texts, and say how many layers each needed."""
    from lessen.hf import LessenForSequenceClassification
    from lessen.loading import load

    loaded = load(model, precision=precision_of(precision))
    if not isinstance(loaded, LessenForSequenceClassification):
        raise InputError(f"{model} has no classifier; {_other_use(loaded)}")
    inputs = _inputs(texts, file, pair)
    if speedup is not None:
        if point is not None:
            raise InputError("give --point or --speedup, not both")
        loaded.dial(speedup=speedup)
    predictions = loaded.predict(inputs, point=point, batch_size=batch_size, strict=strict, explain=explain)
    shown = [text if isinstance(text, str) else " | ".join(text) for text in inputs]
    if as_json:
        rows = [{"text": text, **p.as_dict()} for text, p in zip(shown, predictions, strict=True)]
        emit({"predictions": rows, "point": point or loaded.point.name})
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


def _inputs(texts: list[str] | None, file: Path | None, pair: list[str] | None) -> list[Any]:
    inputs: list[Any] = list(texts or [])
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read {file}: {error}") from None
        inputs += [tuple(line.split("\t", 1)) if "\t" in line else line for line in lines]
    if not inputs:
        raise InputError("nothing to predict: give texts, or --file")
    if pair:
        if any(isinstance(text, tuple) for text in inputs):
            raise InputError(f"{file} holds pairs already; leave --pair away")
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
