"""Charts show what they are about: nothing drawn lies outside the axes or under a legend."""

from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lessen.report import charts

SPEEDUPS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 4.8, 5.0, 6.0)


def model(dial: list[float | None]) -> dict[str, Any]:
    """What the charts of tokens read of a model whose Points are all good, at these qualities of the dial."""
    point = {"name": "full", "promise": None, "value": 0.9, "work": 1.0}
    return {
        "name": "m",
        "metric": "accuracy",
        "points": [point],
        "path": [{"value": 0.89, "work": 0.5}],
        "tokens": {
            "dial": [
                {"value": value, "work": 1 / speedup} for value, speedup in zip(dial, SPEEDUPS, strict=False)
            ],
            "left": {f"speedup-{each:g}x": [1 / each, 1 / each**2, 1 / each**3] for each in SPEEDUPS},
        },
    }


def drawn(draw: charts.Draw) -> Axes:
    """On a chart of the page's size, laid out as there."""
    with mpl.rc_context(charts.STYLE):
        figure = Figure(figsize=charts.SIZE, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        figure.draw_without_rendering()
    return axes


@pytest.mark.parametrize("dial", [[0.86, 0.84], [0.9, 0.55, None, 0.5], [0.95, 0.93]])
def test_the_dial_lies_within_the_axes(dial: list[float | None]) -> None:
    """Just below the Points, more than the 20 points below at which exits are cut off, and above."""
    low, high = drawn(charts.by_work([model(dial)])).get_ylim()
    for value in dial:
        assert value is None or low < value < high


def test_how_tokens_leave_is_drawn_for_few_and_without_a_legend_over_it() -> None:
    axes = drawn(charts.tokens_left(model([])))
    names = [line.get_label() for line in axes.lines]
    assert len(names) == charts.LINES
    assert (names[0], names[-1]) == ("speedup-1.25x", "speedup-6x")
    legend = axes.get_legend()
    assert legend is not None
    box, figure = legend.get_window_extent(), axes.get_figure().bbox
    assert not box.overlaps(axes.bbox)
    assert box.y1 < axes.xaxis.label.get_window_extent().y0
    assert figure.x0 <= box.x0 < box.x1 <= figure.x1
    assert figure.y0 <= box.y0


def test_a_single_point_is_drawn() -> None:
    alone = model([])
    alone["tokens"]["left"] = {"x": [0.5, 0.25, 0.1]}
    assert len(drawn(charts.tokens_left(alone)).lines) == 1
