"""Write a report: the facts as JSON, a self-contained HTML page, and a PNG, beside each other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lessen.artefact import write_bytes, write_text
from lessen.report import charts, generator_charts
from lessen.runtime.text import joined_pieces

NAMES = {"json": "report.json", "html": "report.html", "png": "report.png"}


def write_report(facts: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Write all three files into a folder.

    Returns:
        Their places by kind.

    Raises:
        ArtefactError: When they cannot be written.
    """
    places = {kind: folder / name for kind, name in NAMES.items()}
    facts = _finite(facts)
    write_text(places["json"], json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    write_text(places["html"], page_of(facts))
    write_bytes(places["png"], picture_of(facts))
    return places


def page_of(facts: dict[str, Any]) -> str:
    """The page: everything inline, no script, nothing fetched."""
    return _page_of_generator(facts) if facts["kind"] == "generator" else _page_of_classifiers(facts)


def _page_of_generator(facts: dict[str, Any]) -> str:
    (model,) = facts["models"]
    drawn = [
        (name, Markup(charts.svg(draw, f"g{place}")))
        for place, (name, draw) in enumerate(_generator_charts(facts).items())
    ]
    layers = sorted({int(layer) for line in model["modes"] for layer in line["named_after"]})
    return (
        _environment()
        .get_template("generator.html")
        .render(
            facts=facts,
            title=title_of(facts),
            head=generator_headline(model, facts["times"]),
            charts=drawn,
            layers=layers,
        )
    )


def _generator_charts(facts: dict[str, Any]) -> dict[str, charts.Draw]:
    """By name, in the order of the page."""
    (model,) = facts["models"]
    found = {
        "Agreement against depth": charts.by_layers([model]),
        "Tokens per second": generator_charts.speeds(facts["times"]),
    }
    early = [line for line in model["modes"] if line["mode"].startswith("direct")]
    own = [line for line in early if line["point"] == model["point"]] or early[:2]
    for line in own:
        found[f"Where tokens are named, {line['mode']}"] = generator_charts.named_after(line)
    if own:
        found["Where in the text they differ"] = generator_charts.wrong_by_place(own)
    return found


def generator_headline(model: dict[str, Any], times: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures that matter most: the model's own Point, and the speed of its modes."""
    own = next(spot for spot in model["points"] if spot["name"] == model["point"])
    rates = {row["mode"]: row["tokens_per_s"] for row in times}
    speeds = [
        {"mode": mode, "against": against, "rate": rates[mode], "ratio": rates[mode] / rates[against]}
        for mode, against in (("off", "transformers"), ("spec", "off"), ("direct exact", "off"))
        if mode in rates and against in rates
    ]
    return {"own": own, "speeds": speeds}


def _page_of_classifiers(facts: dict[str, Any]) -> str:
    models, times = facts["models"], facts["times"]
    sizes = sorted({row["batch"] for row in times})
    overview = [("Quality against depth", charts.svg(charts.by_layers(models), "layers"))]
    if any(model["tokens"] for model in models):
        overview.append(("Quality against work", charts.svg(charts.by_work(models), "work")))
    overview += [
        (f"Quality against time, batch {size}", charts.svg(charts.by_time(models, times, size), f"ms{size}"))
        for size in sizes
    ]
    return (
        _environment()
        .get_template("page.html")
        .render(
            facts=facts,
            title=title_of(facts),
            headlines=[headline(model, times) for model in models],
            overview=[(name, Markup(drawn)) for name, drawn in overview],
            details=[_details(place, model) for place, model in enumerate(models)],
            sizes=sizes,
            times=time_table(times, sizes),
            called=charts.CALLED,
            dialled=any(model["tokens"] for model in models),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lessen.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"quality": shown, "percent": _percent, "thousands": _thousands, "pieces": pieces}
    return environment


def picture_of(facts: dict[str, Any]) -> bytes:
    """Quality against depth and time, as one PNG."""
    if facts["kind"] == "generator":
        return charts.png(list(_generator_charts(facts).values())[:3], title_of(facts))
    models, times = facts["models"], facts["times"]
    sizes = sorted({row["batch"] for row in times})
    draws = [charts.by_layers(models), *(charts.by_time(models, times, size) for size in sizes[:2])]
    return charts.png(draws, title_of(facts))


def title_of(facts: dict[str, Any]) -> str:
    """Names of the models."""
    return ", ".join(model["name"] for model in facts["models"])


def headline(model: dict[str, Any], times: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures that matter most: quality and depth of the model's own Point, and its speed."""
    spots = {spot["name"]: spot for spot in model["points"]}
    own, full = spots[model["point"]], spots["full"]
    speeds = []
    for batch in sorted({row["batch"] for row in times}):
        here = {
            (row["kind"], row["name"]): row["ms"]
            for row in times
            if row["model"] == model["name"] and row["batch"] == batch
        }
        rival = next((kind for kind, name in here if name == "dense"), None)
        ours = here.get((model["kind"], own["name"]))
        if rival is not None and ours:
            speeds.append({"batch": batch, "rival": rival, "ratio": here[rival, "dense"] / ours, "ms": ours})
    return {"own": own, "full": full, "speeds": speeds}


def time_table(times: Sequence[dict[str, Any]], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """One line for each model, kind and Point: quality, layers, and ms for each batch size."""
    lines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in times:
        key = (row["model"], row["kind"], row["name"])
        line = lines.setdefault(
            key,
            {
                "model": row["model"],
                "kind": row["kind"],
                "name": row["name"],
                "value": row["value"],
                "mean_layers": row["mean_layers"],
                "ms": dict.fromkeys(sizes),
            },
        )
        line["ms"][row["batch"]] = row["ms"]
    return list(lines.values())


def shown(value: float | None, metric: str) -> str:
    """A value of a metric for people."""
    if value is None:
        return "undefined"
    return f"{value:.3f}" if metric == "pearson" else f"{100 * value:.1f}%"


def pieces(read: Sequence[tuple[str, int]], depth: int) -> list[tuple[str, str, int, int]]:
    """Tokens as they follow one another in a line: blank before, text, layers, and a shade from 0 to 5."""
    found = []
    for piece, (_, layers) in zip(joined_pieces([token for token, _ in read]), read, strict=True):
        bare = piece.lstrip(" ")
        found.append((" " * (len(piece) - len(bare)), bare, layers, round(5 * layers / depth)))
    return found


def _details(place: int, model: dict[str, Any]) -> list[tuple[str, Markup]]:
    drawn = [
        ("Where rows leave", charts.histogram(model)),
        ("What each exit knows", charts.exit_quality(model)),
    ]
    if model["tokens"]:
        drawn.append(("How tokens leave", charts.tokens_left(model)))
    if any(exit["bins"] for exit in model["exits"]):
        drawn.append(("Is its confidence right?", charts.reliability(model)))
    return [(name, Markup(charts.svg(draw, f"m{place}-{i}"))) for i, (name, draw) in enumerate(drawn)]


def _percent(share: float, decimals: int = 1) -> str:
    return f"{100 * share:.{decimals}f}%"


def _thousands(count: float) -> str:
    return f"{count:,.0f}"


def _finite(value: Any) -> Any:
    """Undefined numbers as null, layers as strings: what JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
