"""Charts only a generator's report has: where tokens were named and differ, and how fast they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from lessen.report.charts import COLOURS, FAINT, INK, Draw


def named_after(line: dict[str, Any]) -> Draw:
    """Share of the tokens named after each layer, and of those the ones full depth would not have named."""

    def draw(axes: Axes) -> None:
        total, layers = line["tokens"], list(line["named_after"])
        whole = [count / total for count in line["named_after"].values()]
        wrong = [line["wrong_after"].get(layer, 0) / total for layer in layers]
        right = [one - other for one, other in zip(whole, wrong, strict=True)]
        axes.bar(layers, right, color=COLOURS[0], width=0.7, label="what full depth says")
        bars = axes.bar(layers, wrong, bottom=right, color=COLOURS[1], width=0.7, label="something else")
        axes.bar_label(bars, [f"{100 * share:.0f}%" for share in whole], padding=2, fontsize=8.5)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylim(0, max(whole) * 1.28)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("layer")
        axes.set_ylabel("tokens named")
        axes.legend(loc="upper right")

    return draw


def wrong_by_place(lines: Sequence[dict[str, Any]]) -> Draw:
    """Share of tokens that full depth would not have named, along the continuation."""

    def draw(axes: Axes) -> None:
        for colour, line in zip(COLOURS, lines, strict=False):
            parts = [part for part in line["wrong_at"] if part["tokens"]]
            middle = [(part["first"] + part["last"]) / 2 for part in parts]
            shares = [part["wrong"] / part["tokens"] for part in parts]
            name = f"{line['mode']}, {line['point']}"
            axes.plot(middle, shares, "o-", color=colour, ms=4, lw=1.4, label=name)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("token of the continuation")
        axes.set_ylabel("tokens that differ")
        axes.legend(loc="best")

    return draw


def speeds(times: Sequence[dict[str, Any]]) -> Draw:
    """Tokens per second of every mode, and of transformers."""

    def draw(axes: Axes) -> None:
        names = [row["mode"] for row in times]
        rates = [row["tokens_per_s"] for row in times]
        colours = [FAINT if name == "transformers" else COLOURS[0] for name in names]
        places = range(len(names))[::-1]
        bars = axes.barh(list(places), rates, color=colours, height=0.65)
        axes.bar_label(bars, [f"{rate:.1f}" for rate in rates], padding=3, fontsize=8.5, color=INK)
        axes.set_yticks(list(places), names)
        axes.set_xlim(0, max(rates) * 1.15)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("tokens per second, after the first")

    return draw
