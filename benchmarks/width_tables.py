"""Tables of slender models."""

from __future__ import annotations

from typing import Any

from cells import TASKS, markdown, outcomes, percent, read, section, with_noise, with_spread
from verdicts import NOISY, points, spread
from width_verdicts import faster_verdicts, width_verdicts


def width_quality_table(result: dict[str, Any]) -> str:
    """Targets; quality against size, way by way; milliseconds of the same shapes beside it where measured."""
    times, settings = narrow_ms(), result["settings"]
    rows, targets, bounds = [], [], len(settings["bounds"])
    for task, found in result["summary"].items():
        shown, models = TASKS[task], found["models"]
        targets += width_verdicts(shown, models, settings["model"])
        blank = [""] * (12 + bounds)
        for name, value in found["baselines"].items():
            f1 = found["f1"].get(name)
            figures = [percent(value), "", "" if f1 is None else percent(f1)]
            rows.append([f"{shown}, {name}", *blank[:5], *figures, *blank[8:]])
        rows += [
            model_row(f"{shown}, {named(name, line)}", line, times, bounds) for name, line in models.items()
        ]
    epochs = ", ".join(
        f"{TASKS[task]} {_epochs(settings, task, count)}, the product {settings['product_epochs'][task]:g}"
        for task, count in settings["epochs"].items()
    )
    columns = ["", "parameters", "encoder", "MACs", "ms, batch 1", "ms, batch 8", "last exit", "lost", "F1"]
    certified = [f"loses at most {100 * bound:g} points" for bound in settings["bounds"]]
    columns += ["mean of exits", "every exit", "19 times fewer MACs", *certified, "seeds"]
    return section(
        f"Quality against size, {settings['model']}",
        "Accuracy on test rows of models with narrower layers and exits.",
        outcomes(targets),
        markdown(columns, rows),
        notes={
            "parameters, encoder": "millions, in all and in the layers.",
            "ms": "per row of 24 tokens, 2 threads, random weights of the same shape.",
            "lost": "points, by the last exit against the dense model of the seed, ± the error over rows and "
            "seeds, paired. A target within one error is undecided.",
            "mean of exits, every exit": "of the dense model the last one alone was trained.",
            "19 times fewer MACs": "than the dense model's, by leaving early at the step tuning rows chose, "
            "on which it saves 5% more: a margin set after two seeds of three had come to 18.9 on test rows.",
            "loses at most": "the boldest step certified so against the model's own full depth with "
            f"{100 * (1 - settings['delta']):g}% confidence, how many times fewer MACs than the dense "
            "model's that is, and how many seeds have one.",
            "epochs": f"of the first stage, {epochs}.",
        },
    )


def _epochs(settings: dict[str, Any], task: str, count: float) -> str:
    """Of the first stage, and what others are reckoned by where that is another number."""
    dense, slender = ((settings.get(part) or {}).get(task, count) for part in ("dense", "slender"))
    if dense == slender == count:
        return f"{count:g}"
    return f"{dense:g} (of those of assistants {count:g} is the measure, of slender models {slender:g})"


def width_brief_table(result: dict[str, Any]) -> str:
    """The product's models alone: size, time, and what is lost."""
    times, rows = narrow_ms(), []
    for task, found in result["summary"].items():
        for name, line in found["models"].items():
            if name != "dense" and not name.startswith("calibrated"):
                continue
            size, encoder, macs, *ms = model_row("", line, times, 0)[1:6]
            loss = line["loss"]
            rows.append(
                [
                    f"{TASKS[task]}, {name}",
                    size,
                    encoder,
                    macs,
                    *ms,
                    with_spread(line["last"], line["last_sd"]),
                    "" if loss is None else points(loss["mean"], loss["error"]),
                    f"{line['seeds']}",
                ]
            )
    return section(
        "Layers 2, 4 and 8 times smaller, MiniLM-L6",
        "Test accuracy at full depth; heads and neurons leave for good, chosen by what all exits need.",
        markdown(
            [
                "",
                "parameters, M",
                "encoder, M",
                "MACs",
                "ms, batch 1",
                "ms, batch 8",
                "accuracy",
                "lost",
                "seeds",
            ],
            rows,
        ),
        notes={
            "ms": "per row of 24 tokens, 2 threads, random weights of the same shape.",
            "lost": "points against the dense model of the seed, ± the error over rows and seeds, paired.",
        },
    )


def model_row(name: str, line: dict[str, Any], times: dict[Any, float], bounds: int) -> list[str]:
    """One model's cells."""
    ms = [times.get((*same_in_all(line), batch)) for batch in (1, 8)]
    loss, at, exits = line["loss"], line["at_fewer_macs"], line["exits"]
    fewer = (
        "" if at is None else f"{percent(at['value'])} ({points(at['loss']['mean'], at['loss']['error'])})"
    )
    certified = [
        f"{percent(each['value'])}, {sum(each['macs_ratios']) / len(each['macs_ratios']):.1f}x "
        f"({each['certified']})"
        for each in line["certified"]
    ]
    return [
        name,
        f"{line['parameters']['total'] / 1e6:.2f}",
        f"{line['parameters']['encoder'] / 1e6:.2f}",
        f"{line['macs_ratio']:.1f}x",
        *("" if each is None else f"{each:.2f}" for each in ms),
        with_spread(line["last"], line["last_sd"]),
        "" if loss is None else points(loss["mean"], loss["error"]),
        "" if line["f1"] is None else percent(line["f1"]),
        "" if line["mean"] is None else percent(line["mean"]),
        " ".join(map(percent, exits)) if len(exits) > 1 else "",
        fewer,
        *(certified or [""] * bounds),
        f"{line['seeds']}" + (f", assistant made anew for {line['remade']}" if line["remade"] else ""),
    ]


def named(name: str, line: dict[str, Any]) -> str:
    """Chopping takes whole layers, so it comes near to a size only: how many are left says more."""
    left = len(line["heads"])
    return f"{left} whole layer{'s' * (left > 1)}" if name.startswith("layers ") else name


def same_in_all(line: dict[str, Any]) -> tuple[Any, ...]:
    """Layers, heads, neurons and embedding rank of a shape with even layers; of another, nothing."""
    heads, neurons = set(line["heads"]), set(line["neurons"])
    if len(heads) > 1 or len(neurons) > 1 or line["products"]:
        return ()
    return len(line["heads"]), *heads, *neurons, line["embedding_rank"]


def narrow_ms() -> dict[tuple[Any, ...], float]:
    """Milliseconds per row of 24 tokens in MiniLM's shapes, by shape and batch."""
    result = read("width_speed")
    found = {}
    for line in result["lines"] if result else []:
        if (line["model"], line["threads"], line["tokens"]) == ("MiniLM-L6", 2, 24):
            shape = line["layers"], line["heads"], line["neurons"], line["embedding_rank"]
            found[*shape, line["batch"]] = line["ms"]["median_ms"] / line["batch"]
    return found


def width_speed_table(result: dict[str, Any]) -> str:
    """Time against size."""
    lines = [line | {"noisy": spread(line["ms"]) > NOISY} for line in result["lines"]]
    rows = [
        [
            f"{line['model']}, {line['size']}x, {line['batch']} x {line['tokens']}, "
            f"{line['threads']} threads",
            f"{line['heads']}",
            f"{line['neurons']}",
            f"{line['parameters']['total'] / 1e6:.2f}",
            f"{line['parameters']['encoder'] / 1e6:.2f}",
            f"{line['macs_ratio']:.2f}x",
            f"{line['ms']['median_ms'] / line['batch']:.2f}",
            with_noise("{1:.2f}x ({0:.2f} to {2:.2f})".format(*line["faster"]), line),
        ]
        for line in lines
    ]
    columns = ["", "heads", "neurons", "parameters, M", "encoder, M", "MACs", "ms per row", "faster"]
    return section(
        "Time follows size",
        "Layers 2, 4 and 8 times smaller against the dense model, batch x tokens a row, in the running form, "
        "float32, full depth, random weights, interleaved. Each narrow model was found to compute what its "
        "masked twin does.",
        outcomes(faster_verdicts(lines)),
        markdown(columns, rows),
        notes={
            "faster": "in brackets the middle half of the rounds; a target is undecided where it lies on "
            "both sides."
        },
    )
