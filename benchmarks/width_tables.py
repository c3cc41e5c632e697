"""Tables of slender models."""

from __future__ import annotations

from typing import Any

from cells import TASKS, markdown, read


def width_quality_table(result: dict[str, Any]) -> str:
    """Quality against size, way by way; milliseconds of the same shapes beside it where measured."""
    times = narrow_ms()
    rows = []
    for task, found in result["summary"].items():
        for name, line in found.items():
            spread = "" if line["last_sd"] is None else f" ± {100 * line['last_sd']:.1f}"
            ms = [times.get((*same_in_all(line), batch)) for batch in (1, 8)]
            rows.append(
                [
                    f"{TASKS[task]}, {name}",
                    f"{line['parameters']['total'] / 1e6:.2f}",
                    f"{line['parameters']['encoder'] / 1e6:.2f}",
                    f"{line['macs_ratio']:.1f}x",
                    *("" if each is None else f"{each:.2f}" for each in ms),
                    f"{100 * line['last']:.1f}{spread}",
                    f"{100 * line['relative']:.1f}%",
                    f"{100 * line['mean']:.1f}",
                    " ".join(f"{100 * value:.1f}" for value in line["exits"]),
                    *(f"{100 * at['value']:.1f}, {at['macs_ratio']:.1f}x" for at in line["certified"]),
                    f"{line['seeds']}",
                ]
            )
    settings = result["settings"]
    title = (
        f"**Quality against size, {settings['model']}.** Accuracy on test rows of models with narrower "
        "layers and exits: at the last exit (and as a share of the dense model's), on average over exits, "
        f"and, with its MACs against the dense model's, at the boldest step certified with "
        f"{100 * (1 - settings['delta']):g}% confidence. Millions of parameters in all and in the layers; ms "
        "per row of 24 tokens, 2 threads, random weights of the same shape.\n\n"
    )
    columns = ["", "parameters", "encoder", "MACs", "ms, batch 1", "ms, batch 8", "last exit", "of dense"]
    bounds = [f"loses at most {100 * bound:g} points" for bound in settings["bounds"]]
    return title + markdown([*columns, "mean of exits", "every exit", *bounds, "seeds"], rows)


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
            f"{line['faster']:.2f}x",
        ]
        for line in result["lines"]
    ]
    title = (
        "**Time follows size: layers 2, 4 and 8 times smaller against the dense model**, in the running "
        "form, float32, full depth, random weights, interleaved; batch x tokens a row. Each narrow model was "
        "found to compute what its masked twin does.\n\n"
    )
    columns = ["", "heads", "neurons", "parameters, M", "encoder, M", "MACs", "ms per row", "faster"]
    return title + markdown(columns, rows)
