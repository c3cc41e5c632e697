"""Tables of slender models."""

from __future__ import annotations

from typing import Any

from cells import TASKS, markdown, percent, read, with_noise, with_spread
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
        f"{TASKS[task]} {count:g} for the product's {settings['product_epochs'][task]:g}"
        for task, count in settings["epochs"].items()
    )
    title = (
        f"**Quality against size, {settings['model']}.** Accuracy on test rows of models with narrower "
        "layers and exits: at the last exit, and points lost against the dense model of the seed, ± the "
        "error over rows and seeds, paired; F1 where there are two labels; on average over exits; with "
        "19 times fewer MACs than the dense model, by leaving early at the step tuning rows chose, on which "
        "it saves 5% more (a margin set after two seeds of three had come to 18.9 on test rows); and, with "
        "MACs against the dense model's, at the boldest step certified against its own full depth with "
        f"{100 * (1 - settings['delta']):g}% confidence (how many seeds have one). The dense model's other "
        "exits were not trained. Millions of parameters in all and in the layers; ms per row of 24 tokens, 2 "
        f"threads, random weights of the same shape. Epochs of the first stage: {epochs}. Targets, undecided "
        "within one error:\n\n"
    )
    columns = ["", "parameters", "encoder", "MACs", "ms, batch 1", "ms, batch 8", "last exit", "lost", "F1"]
    certified = [f"loses at most {100 * bound:g} points" for bound in settings["bounds"]]
    columns += ["mean of exits", "every exit", "19 times fewer MACs", *certified, "seeds"]
    verdicts = markdown(["target", ""], [list(each) for each in targets])
    return f"{title}{verdicts}\n{markdown(columns, rows)}"


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
    return f"{len(line['heads'])} whole layers" if name.startswith("layers ") else name


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
    title = (
        "**Time follows size: layers 2, 4 and 8 times smaller against the dense model**, in the running "
        "form, float32, full depth, random weights, interleaved; batch x tokens a row; in brackets the "
        "middle half of the rounds. Each narrow model was found to compute what its masked twin does. "
        "Targets, undecided where that half lies on both sides:\n\n"
    )
    columns = ["", "heads", "neurons", "parameters, M", "encoder, M", "MACs", "ms per row", "faster"]
    verdicts = markdown(["target", ""], [list(each) for each in faster_verdicts(lines)])
    return f"{title}{verdicts}\n{markdown(columns, rows)}"
