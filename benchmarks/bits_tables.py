"""Tables of models of few bits."""

from __future__ import annotations

from typing import Any

from cells import TASKS, markdown, percent, with_spread

PARTS = ("weights", "scales", "norms", "embeddings", "exits", "listing", "tokenizer")


def bits_speed_table(result: dict[str, Any]) -> str:
    """Products of few bits, whole models, and bytes."""
    kernels = [
        [
            f"{line['kernel'].upper()}, {line['m']} x {line['k']} x {line['n']}, {line['threads']} threads",
            f"{line['ms']:.3f}",
            *(f"{line[rival] / line['ms']:.1f}x" for rival in ("torch_fp32_ms", "torch_bf16_ms", "int8_ms")),
        ]
        for line in result.get("kernels", [])
    ]
    models = [
        [
            f"{line['mode']}, batch {line['batch']}, {line['threads']} threads",
            f"{line['ms']:.2f}",
            f"{line['speedup']:.2f}x",
        ]
        for line in result.get("models", [])
    ]
    sizes = [
        [
            line["model"],
            f"{line['float32'] / 1e6:.2f}",
            f"{line['packed'] / 1e6:.3f}",
            f"{line['ratio']:.1f}x",
            *(f"{line['parts'][part] / 1e3:.1f}" for part in PARTS),
        ]
        for line in result.get("sizes", [])
    ]
    parts = []
    if kernels:
        parts.append(
            "**Products with few bits**, rows x inputs x outputs. Quantizing of activations, scale and bias "
            "included; how many times faster than torch's `linear` in float32 and bfloat16, and than its "
            "`_int_mm` on numbers that are whole already.\n\n"
            + markdown(["", "ms", "float32", "bfloat16", "int8"], kernels)
        )
    if models:
        parts.append(
            "**BEExformer-medium, 64 tokens, full depth**, against its float32 twin in the same form; random "
            "weights, so what each mode costs in accuracy stands in the tables of binary weights.\n\n"
            + markdown(["", "ms", "faster"], models)
        )
    if sizes:
        parts.append(
            "**Bytes of `model.safetensors`**, MB in float32 and packed; and kB of the packed one by part, "
            "token table and exits counted, and the tokenizer's files beside it.\n\n"
            + markdown(["", "float32", "packed", "smaller", *PARTS], sizes)
        )
    return "\n".join(parts)


def bits_quality_table(result: dict[str, Any]) -> str:
    """Binary weights from scratch and from masked words, task by task."""
    rows = []
    for task, found in result["summary"].items():
        for name, line in found["variants"].items():
            step = line["exiting"]
            saved = ["", ""]
            if step is not None:
                saved = [f"{100 * step['macs_saved']:.0f}%", f"{100 * step['gain']:+.1f}"]
            exits = " ".join(f"{100 * value:.1f}" for value in line["exits"])
            rows.append(
                [
                    f"{task}, {name}",
                    exits,
                    with_spread(line["last"], line["last_sd"]),
                    percent(line["shuffled"]),
                    " / ".join(percent(line[key]) for key in ("negated", "negated_shuffled") if line[key]),
                    f"{line['overthinking']:.0f}",
                    *saved,
                    f"{line['seeds']}",
                ]
            )
        rows += [
            [f"{task}, {name}", "", f"{100 * value:.1f}", *([""] * 6)]
            for name, value in found["baselines"].items()
        ]
    title = (
        f"**Binary weights, {result['settings']['model']}**, from random weights, or where it says so from "
        "masked words of film reviews. Test accuracy of every exit (the first is the fixed exit 1) and of "
        "the last; of the last with the words of each text shuffled, which a bag of words would not notice, "
        "and on texts with a negation, as they are and shuffled; rows an earlier exit had right and the last "
        "has wrong; MACs the fractional-entropy rule saves, and its gain over the same model without exits."
        "\n\n"
    )
    columns = [
        "",
        "every exit",
        "last",
        "shuffled",
        "with negation",
        "overthinking",
        "MACs saved",
        "gain",
        "seeds",
    ]
    return title + markdown(columns, rows)


def bits_warm_table(result: dict[str, Any]) -> str:
    """Binary weights for a pre-trained model."""
    rows = [
        [
            f"{TASKS[task]}, {name}",
            " ".join(f"{100 * value:.1f}" for value in line["exits"]),
            with_spread(line["last"], line["last_sd"]),
            "" if line["loss"] is None else f"{100 * line['loss']:.1f}",
            percent(line["shuffled"]),
            f"{line['seeds']}",
        ]
        for task, found in result["summary"].items()
        for name, line in found.items()
    ]
    title = (
        "**MiniLM-L6 with binary weights**, taught by its fine-tuned float self, or alone where it says so. "
        "Test accuracy of every exit and of the last, what is lost against the dense model of the same seed, "
        "and accuracy with the words of each text shuffled.\n\n"
    )
    return title + markdown(["", "every exit", "last", "lost", "shuffled", "seeds"], rows)
