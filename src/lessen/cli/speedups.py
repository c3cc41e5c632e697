"""`--speedups` and `--fit`: Points dialled by tokens, predicted and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lessen.cli.output import KINDS, numbers, percent, say, table
from lessen.errors import InputError


def dialled_at(model: Any, speedups: str) -> dict[float, Any]:
    """The Point of each speed-up asked for."""
    wanted = numbers(speedups, "--speedups", float, "1,1.5,2,3,4.8")
    if model.config.retention_profile() is None:
        raise InputError(
            "--speedups: the model has no retention profile; compress it with --system latency-adjustable, "
            "or call measure_profile(texts)"
        )
    if len({f"{each:g}" for each in wanted}) < len(wanted):
        raise InputError(f"--speedups {speedups}: two of them are the same")
    return {each: model.dial(speedup=each).point for each in wanted}


def fit_here(name: str, models: Any, encoded: Any, sizes: list[int], count: int, seconds: float) -> None:
    """Fit latencies and keep them in the folder."""
    from lessen.measure.latency_fit import fit_folder
    from lessen.runtime.latency_model import HONEST

    folder = Path(name)
    if not folder.is_dir():
        raise InputError(f"--fit: {name} is not a folder to keep the latencies in")
    ways: dict[str, Any] = {"batch_sizes": sizes, "thread_count": count, "seconds": seconds}
    for fit in fit_folder(folder, list(models.values()), encoded, **ways):
        far = "; the machine was busy, or busier at times: fit again before trusting it"
        say(
            f"fitted {fit.precision}, batch {fit.batch}: within {percent(fit.error)} % of every run"
            f"{far if fit.error > HONEST else ''}"
        )


def predictions(name: str, count: int) -> dict[tuple[str, int], Any]:
    """Latencies fitted on this machine for these threads, by precision and batch size."""
    from lessen.machine import processor
    from lessen.runtime.latency_model import read_latency

    kept = read_latency(Path(name)) if Path(name).is_dir() else None
    if kept is None or kept.processor != processor():
        return {}
    return {(fit.precision, fit.batch): fit for fit in kept.fits if fit.threads == count}


def at_speedups(
    result: Any, dialled: dict[float, Any], model: Any, encoded: Any, latencies: Any
) -> list[dict[str, Any]]:
    """One line for each row of a comparison, with what was predicted, and by how much the fit missed runs."""
    from lessen.measure.evaluation import macs_ratio
    from lessen.runtime.latency_model import predicted_ms

    precisions = {kind: precision for precision, kind in KINDS.items()}
    lengths = [len(row.ids) for row in encoded]
    depth = model.transformer.depth
    lines = []
    for row in result:
        asked = [speedup for speedup, point in dialled.items() if point.name == row.name]
        line: dict[str, Any] = {"kind": row.kind, "speedup": None, "predicted_ms": None, "fit_error": None}
        ratio = None
        if row.kind in precisions and asked:
            point = dialled[asked[0]]
            found = latencies.get((precisions[row.kind], row.batch))
            predicted = None if found is None else predicted_ms(model.transformer, found, lengths, point)
            line |= {"speedup": asked[0], "predicted_ms": predicted}
            line |= {"fit_error": None if found is None else found.error}
            ratio = macs_ratio(model.transformer, encoded, [depth] * len(encoded), point)
        line |= {"ms": row.ms, "macs_ratio": ratio, "value": row.value}
        line |= {"batch": row.batch, "length": row.length}
        lines.append({k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()})
    return lines


def show_speedups(lines: list[dict[str, Any]], title: str) -> None:
    """One line per kind, batch and speed-up."""

    def number(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    table(
        ["kind", "batch", "speed-up", "MACs ratio", "ms per row", "predicted", "quality"],
        [
            [
                line["kind"],
                f"{line['batch']}",
                number(line["speedup"]),
                number(line["macs_ratio"]),
                number(line["ms"]),
                number(line["predicted_ms"]),
                "" if line["value"] is None else percent(line["value"]),
            ]
            for line in lines
        ],
        title,
    )
