"""What `lessen compress` prints of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lessen.cli.output import percent, table


def results_of(outcome: Any, place: Path) -> dict[str, Any]:
    """What a run made, as `--json` prints it."""
    from lessen.model.transformer import parameter_counts

    return {
        "out": str(place),
        "parameters": parameter_counts(outcome.model.transformer),
        "points": [result.as_dict() for result in outcome.results],
        "calibration": outcome.calibration.as_dict(),
        "rows": outcome.rows,
        "training": outcome.training,
    }


def sizes_of(outcome: Any) -> str:
    """Weights in all and in the layers, in words."""
    from lessen.model.transformer import parameter_counts

    counts = parameter_counts(outcome.model.transformer)
    return f"{counts['total'] / 1e6:.4g}M parameters, {counts['encoder'] / 1e6:.4g}M of them in the encoder"


def show_results(results: Any, title: str) -> None:
    """Points side by side."""
    deepest = max(max(result.layers) for result in results)
    table(
        [
            "point",
            results[0].metric,
            "mean layers",
            "MACs ratio",
            *(f"exit {i}" for i in range(1, deepest + 1)),
        ],
        [
            [
                result.name,
                percent(result.value) if result.metric != "pearson" else f"{result.value:.3f}",
                f"{result.mean_layers:.2f}",
                f"{result.macs_ratio:.2f}x",
                *(f"{result.layers.get(i, 0)}" for i in range(1, deepest + 1)),
            ]
            for result in results
        ],
        title,
    )
