"""The charts of a report, drawn from its facts: as SVG for the page, two of them as one PNG.

Sized for a telephone: a chart is about 360 points wide, and a page puts as many side by side as fit.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

SIZE = (5.0, 3.5)
"""Inches."""

INK, FAINT = "#1d2733", "#8a94a0"
COLOURS = ("#0b6e99", "#c2571a", "#4f7f2a", "#7a4fa3", "#a8324a", "#6b6b2a")
"""One for each model; told apart with any kind of colour vision, and dark enough on white."""

LINES = 5
"""Of Points and speed-ups drawn in one chart; between the first and the last they are spread evenly."""

RIVAL_MARKS = "sD^vPX<>p*"

STYLE: Any = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#e4e8ec",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "lessen",
}

Draw = Callable[[Axes], None]

CALLED = {
    "accuracy": "accuracy",
    "micro_f1": "micro-averaged F1",
    "pearson": "Pearson's correlation",
    "agreement": "agreement with full depth",
}


def svg(draw: Draw, identity: str, size: tuple[float, float] = SIZE) -> str:
    """One chart as SVG that scales with its column.

    Args:
        draw: Draws it.
        identity: Prefix of ids inside, so that charts of one page do not mix them up.
        size: Inches.
    """
    with mpl.rc_context(STYLE | {"svg.hashsalt": identity}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    drawn = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{identity}-", drawn)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\g<1>", drawn, count=2)


def png(draws: Sequence[Draw], title: str) -> bytes:
    """Charts side by side as one PNG, for a README or a slide."""
    with mpl.rc_context(STYLE):
        width, height = SIZE
        figure = Figure(figsize=(width * len(draws), height + 0.4), layout="constrained", dpi=160)
        figure.suptitle(title, fontsize=10.5)
        for place, draw in enumerate(draws, start=1):
            draw(figure.add_subplot(1, len(draws), place))
        image = io.BytesIO()
        figure.savefig(image, format="png", facecolor="white")
    return image.getvalue()


def by_layers(models: Sequence[dict[str, Any]]) -> Draw:
    """Quality against mean layers: the path, the Points, and what a fixed depth would give."""

    def draw(axes: Axes) -> None:
        for colour, model in zip(_colours(models), models, strict=True):
            fixed = [(exit["layer"], exit["value"]) for exit in model["exits"]]
            label = _first(axes, f"every {model['unit']} at one depth")
            axes.plot(*_columns(fixed), "o--", color=FAINT, ms=3, lw=0.9, label=label)
            path = [(spot["mean_layers"], spot["value"]) for spot in model["path"]]
            path = [*path, (float(model["depth"]), model["points"][0]["value"])]
            axes.plot(*_columns(sorted(path, key=_x)), "-", color=colour, lw=1.6, label=model["name"])
            for spot in model["points"]:
                axes.plot(*_columns([(spot["mean_layers"], spot["value"])]), **_mark(spot["promise"], colour))
        _label_points(axes, models)
        _quality_axis(axes, models)
        axes.set_xlabel(f"layers per {models[0]['unit']}, on average")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right")

    return draw


def by_work(models: Sequence[dict[str, Any]]) -> Draw:
    """Quality against the share of the MACs: the path, the Points, and tokens leaving alone."""

    def draw(axes: Axes) -> None:
        dialled: list[float | None] = []
        for colour, model in zip(_colours(models), models, strict=True):
            if model["tokens"]:
                dialled += [spot["value"] for spot in model["tokens"]["dial"]]
                dial = [(100 * spot["work"], spot["value"]) for spot in model["tokens"]["dial"]]
                label = _first(axes, "tokens leaving, no exits")
                axes.plot(
                    *_columns(sorted(dial, key=_x)), "o--", color=FAINT, ms=3, lw=1.1, zorder=3, label=label
                )
            path = [(100 * spot["work"], spot["value"]) for spot in model["path"]]
            path = [*path, (100.0, model["points"][0]["value"])]
            axes.plot(*_columns(sorted(path, key=_x)), "-", color=colour, lw=1.6, label=model["name"])
            for spot in model["points"]:
                where = _columns([(100 * spot["work"], spot["value"])])
                axes.plot(*where, **_mark(spot["promise"], colour))
        _quality_axis(axes, models, whole=dialled)
        axes.set_xlim(left=0)
        axes.set_xlabel("MACs, % of the whole model's")
        axes.legend(loc="lower right")

    return draw


def tokens_left(model: dict[str, Any]) -> Draw:
    """Share of a row's tokens left after each layer, at a few of the Points and speed-ups."""
    left = sorted(model["tokens"]["left"].items(), key=_kept, reverse=True)
    count = min(LINES, len(left))
    drawn = [left[round(place * (len(left) - 1) / max(count - 1, 1))] for place in range(count)]

    def draw(axes: Axes) -> None:
        shades = mpl.colormaps["viridis"].resampled(count + 1)
        for place, (name, shares) in enumerate(drawn):
            layers = list(range(len(shares) + 1))
            axes.plot(layers, [1.0, *shares], "o-", color=shades(place), ms=3, lw=1.2, label=name)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("after layer")
        axes.set_ylabel("tokens left")
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=3)

    return draw


def by_time(models: Sequence[dict[str, Any]], times: Sequence[dict[str, Any]], batch: int) -> Draw:
    """Quality against measured milliseconds per row at one batch size, dense rivals beside."""
    here = [row for row in times if row["batch"] == batch]

    def draw(axes: Axes) -> None:
        rivals = list(dict.fromkeys(row["kind"] for row in here if row["name"] == "dense"))
        for colour, model in zip(_colours(models), models, strict=True):
            own = [row for row in here if row["model"] == model["name"]]
            promise = {spot["name"]: spot["promise"] for spot in model["points"]}
            for kind in dict.fromkeys(row["kind"] for row in own if row["name"] != "dense"):
                line = sorted(((row["ms"], row["value"]) for row in own if row["kind"] == kind), key=_x)
                name = model["name"] if kind == model["kind"] else f"{model['name']}, {kind.split('-')[-1]}"
                style = "-" if kind == model["kind"] else ":"
                axes.plot(*_columns(line), style, color=colour, lw=1.4, label=name)
                for row in own:
                    if row["kind"] == kind:
                        mark = _mark(promise.get(row["name"], "step"), colour)
                        axes.plot(*_columns([(row["ms"], row["value"])]), **mark)
            for row in own:
                if row["name"] == "dense":
                    shape = RIVAL_MARKS[rivals.index(row["kind"]) % len(RIVAL_MARKS)]
                    face = INK if len(models) == 1 else colour
                    axes.plot(
                        *_columns([(row["ms"], row["value"])]), shape, color=face, ms=6, mec="white",
                        label=_first(axes, f"{row['kind']}, dense"),
                    )  # fmt: skip
        _quality_axis(axes, models)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"ms per row, batch {batch}")
        axes.legend(loc="lower right")

    return draw


def histogram(model: dict[str, Any]) -> Draw:
    """Share of rows leaving at each exit, at the Point the model answers at."""
    spot = _own_point(model)

    def draw(axes: Axes) -> None:
        layers = list(spot["layers"])
        shares = [spot["layers"][layer] for layer in layers]
        bars = axes.bar(list(map(str, layers)), shares, color=COLOURS[0], width=0.7)
        axes.bar_label(bars, [f"{100 * share:.0f}%" for share in shares], padding=2, fontsize=8.5)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylim(0, max(shares) * 1.15)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("layer")
        axes.set_ylabel(f"rows leaving, at {spot['name']}")

    return draw


def exit_quality(model: dict[str, Any]) -> Draw:
    """Every exit asked about every row: quality, and agreement with the last."""

    def draw(axes: Axes) -> None:
        layers = [str(exit["layer"]) for exit in model["exits"]]
        axes.plot(
            layers, _columns([(0.0, exit["value"]) for exit in model["exits"]])[1], "o-", color=COLOURS[0],
            label=CALLED[model["metric"]],
        )  # fmt: skip
        if model["metric"] != "agreement":
            axes.plot(
                layers, [exit["agreement"] for exit in model["exits"]], "s--", color=COLOURS[1], ms=4,
                label="agreement with the last exit",
            )  # fmt: skip
        _percent_axis(axes, model["metric"])
        axes.set_xlabel("layer of the exit")
        axes.legend(loc="best")

    return draw


def reliability(model: dict[str, Any]) -> Draw:
    """Share of right answers against confidence, one line for each exit."""

    def draw(axes: Axes) -> None:
        shades = mpl.colormaps["viridis"].resampled(len(model["exits"]) + 1)
        axes.plot([0, 1], [0, 1], "--", color=FAINT, lw=0.9)
        lowest = 1.0
        for place, exit in enumerate(model["exits"]):
            points = [(each["confidence"], each["accuracy"]) for each in exit["bins"]]
            lowest = min([lowest, *(value for point in points for value in point)])
            label = f"layer {exit['layer']}"
            axes.plot(*_columns(points), "o-", color=shades(place), ms=3, lw=1.2, label=label)
        low = max(0.0, lowest - 0.05)
        axes.set(xlim=(low, 1.01), ylim=(low, 1.01))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("confidence")
        axes.set_ylabel("right answers")
        axes.legend(loc="best", ncols=2 if len(model["exits"]) > 6 else 1)

    return draw


def _own_point(model: dict[str, Any]) -> dict[str, Any]:
    return next(spot for spot in model["points"] if spot["name"] == model["point"])


def _mark(promise: str | None, colour: str) -> dict[str, Any]:
    """Certified Points are filled stars, others open circles, full depth a disc, steps of the path dots."""
    base: dict[str, Any] = {"color": colour, "ls": "none", "zorder": 5}
    return base | {
        None: {"marker": "o", "ms": 6, "mec": "white"},
        "certified": {"marker": "*", "ms": 12, "mec": "white"},
        "uncertified": {"marker": "o", "ms": 6, "mfc": "white"},
        "step": {"marker": ".", "ms": 5},
    }.get(promise, {"marker": "."})


def _label_points(axes: Axes, models: Sequence[dict[str, Any]]) -> None:
    if len(models) > 1:
        return
    for spot in models[0]["points"]:
        if spot["value"] is None:
            continue
        axes.annotate(
            spot["name"],
            (spot["mean_layers"], spot["value"]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center" if spot["promise"] else "right",
            fontsize=8.5,
        )


def _quality_axis(axes: Axes, models: Sequence[dict[str, Any]], whole: Sequence[float | None] = ()) -> None:
    """Room above for labels; exits far below full depth are cut off, or they would flatten the rest.

    Values of `whole` never are.
    """
    values = [spot["value"] for model in models for spot in (*model["points"], *model["path"])]
    shown = [value for value in values if value is not None]
    if shown:
        always = [value for value in whole if value is not None]
        top = max([*shown, *always])
        bottom = min([max(min(shown), top - 0.2), *always])
        room = max(top - bottom, 0.01)
        limits = bottom - 0.1 * room, top + 0.2 * room
        axes.set_ylim(*limits)
        if models[0]["metric"] != "pearson":  # there is room above 100% for labels, but no such value
            axes.set_yticks([tick for tick in axes.get_yticks() if limits[0] <= tick < 1 + 1e-9])
    _percent_axis(axes, models[0]["metric"])
    axes.set_ylabel(CALLED[models[0]["metric"]])


def _percent_axis(axes: Axes, metric: str) -> None:
    if metric != "pearson":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))


def _first(axes: Axes, label: str) -> str | None:
    """A label for the legend, once."""
    return None if label in axes.get_legend_handles_labels()[1] else label


def _kept(named: tuple[str, list[float]]) -> float:
    return sum(named[1])


def _x(point: tuple[float, float | None]) -> float:
    return point[0]


def _colours(models: Sequence[object]) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(len(models))]


def _columns(points: Sequence[tuple[float, float | None]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [math.nan if y is None else y for _, y in points]
