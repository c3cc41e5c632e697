"""What `lessen compress` prints of what it made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lessen.cli.output import emit, percent, say, table


def pretrain_and_say(plan: Any, out: Path, as_json: bool) -> None:
    """Carry out a plan without a task, and say how words are guessed."""
    from lessen.systems.pretraining import pretrain
    from lessen.systems.working import working_folder

    made = pretrain(plan, working_folder(plan, out.resolve()), out.resolve(), say)
    if as_json:
        facts = {"before": made.before, "after": made.after, "rows": made.rows, "training": made.training}
        emit({"out": str(out), **facts, "plan": plan.model_dump(mode="json")})
        return
    table(
        ["", "loss, nats a word", "guessed"],
        [
            [name, f"{found['loss']:.3f}", percent(found["accuracy"])]
            for name, found in (("before", made.before), ("after", made.after))
        ],
        f"on {made.after['words']:,} masked words of {made.rows['test']:,} texts kept aside",
    )
    say(f"saved {out}; train on with: lessen compress {out} --system beexformer --data ...")


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
