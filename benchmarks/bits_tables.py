"""Tables of models of few bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bits_verdicts import exits_verdict, quality_verdicts, speed_verdicts, warm_verdicts
from cells import TASKS, markdown, percent, read, with_noise, with_spread
from verdicts import NOISY, points

PARTS = ("weights", "scales", "norms", "embeddings", "exits", "listing", "tokenizer")
RIVALS = ("torch_fp32", "torch_bf16", "int8", "int8_linear")


def bits_speed_table(result: dict[str, Any]) -> str:
    """Targets, products of few bits, whole models, int8 beside OpenVINO, and bytes."""
    latency = read("exit_latency")
    targets = [*speed_verdicts(result), exits_verdict(latency["rows"] if latency else [])]
    parts = [
        "**Few bits in time and bytes.** Targets; of times, undecided where the middle half of the rounds "
        "lies on both sides.\n\n" + markdown(["target", ""], [list(each) for each in targets])
    ]
    kernels = [
        [
            f"{line['kernel'].upper()}, {line['m']} x {line['k']} x {line['n']}, {line['threads']} threads",
            with_noise(f"{line['ms']:.3f}", {"noisy": wide(line["spread"]["ms"])}),
            f"{line['module_ms']:.3f}",
            *(f"{line['faster'][rival][1]:.1f}x" if rival in line["faster"] else "" for rival in RIVALS),
            "" if line["limit_ms"] is None else f"{100 * line['limit_ms'] / line['ms']:.0f}%",
        ]
        for line in result.get("kernels", [])
    ]
    models = [
        [f"{line['mode']}, batch {line['batch']}, {line['threads']} threads", *timed(line)]
        for line in result.get("models", [])
    ]
    int8 = [
        [f"{line['name']}, {line['batch']} x {line['tokens']}, {line['threads']} threads", *timed(line)]
        for line in result.get("int8", [])
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
    if kernels:
        parts.append(
            "**Products with few bits**, rows x inputs x outputs, in ms, and of the layer that models call. "
            "Quantizing of activations, scale and bias included; how many times faster the product is than "
            "torch's `linear` in float32 and bfloat16, its `_int_mm` on numbers that are whole already, and "
            "its dynamic int8 linear; and its share of the limit of counting bits.\n\n"
            + markdown(
                ["", "ms", "layer", "float32", "bfloat16", "`_int_mm`", "int8 linear", "of limit"], kernels
            )
        )
    if models:
        parts.append(
            "**BEExformer-medium, 64 tokens, full depth**, against its float32 twin in the same form; random "
            "weights, so what each mode costs in accuracy stands in the tables of binary weights.\n\n"
            + markdown(["", "ms", "faster"], models)
        )
    if int8:
        parts.append(
            "**MiniLM in int8, exits off**, random tokens, and how many times faster than OpenVINO's int8 of "
            "the same weights.\n\n" + markdown(["", "ms", "faster"], int8)
        )
    if sizes:
        parts.append(
            "**Bytes of `model.safetensors`**, MB in float32 and packed; and kB of the packed one by part, "
            "token table and exits counted, and the tokenizer's files beside it.\n\n"
            + markdown(["", "float32", "packed", "smaller", *PARTS], sizes)
        )
    return "\n".join(parts)


def wide(percentiles: list[float]) -> bool:
    """Whether a timing's 10th and 90th percentile are far apart."""
    return percentiles[1] > NOISY * percentiles[0]


def timed(line: Mapping[str, Any]) -> list[str]:
    """A time, and how many times faster it is, with the middle half of the rounds."""
    faster = "{1:.2f}x ({0:.2f} to {2:.2f})".format(*line["faster"])
    return [with_noise(f"{line['ms']:.2f}", {"noisy": wide(line["spread"])}), faster]


def lost(line: Mapping[str, Any]) -> str:
    """Points below another model, with the error over rows and seeds."""
    return "" if line["loss"] is None else points(line["loss"]["mean"], line["loss"]["error"])


def bits_quality_table(result: dict[str, Any]) -> str:
    """Targets; binary weights from scratch and from masked words, task by task."""
    rows, targets, settings = [], [], result["settings"]
    for task, found in result["summary"].items():
        targets += quality_verdicts(task, found["variants"], found["baselines"])
        for name, line in found["variants"].items():
            step = line["exiting"]
            saved = ["", ""]
            if step is not None:
                gain = step["gain"]
                saved = [
                    f"{100 * step['macs_saved']:.0f}%",
                    f"{100 * gain['mean']:+.1f} ± {100 * gain['error']:.1f}",
                ]
            rows.append(
                [
                    f"{task}, {name}",
                    " ".join(map(percent, line["exits"])),
                    with_spread(line["last"], line["last_sd"]),
                    lost(line),
                    percent(line["shuffled"]),
                    " / ".join(percent(line[key]) for key in ("negated", "negated_shuffled") if line[key]),
                    f"{line['overthinking']:.0f}",
                    *saved,
                    f"{line['seeds']}",
                ]
            )
        rows += [
            [f"{task}, {name}", "", percent(value), *([""] * 7)] for name, value in found["baselines"].items()
        ]
    epochs = ", ".join(f"{task} {count:g}" for task, count in settings["epochs"].items())
    if settings["changes"]:
        epochs += f"; changed: {settings['changes']}"
    title = (
        f"**Binary weights, {settings['model']}**, from random weights, or where it says so from "
        "masked words of film reviews. Test accuracy of every exit (the first is the fixed exit 1) and of "
        "the last; points the last loses to the float twin, ± the error over rows and seeds, paired; of the "
        "last with the words of each text shuffled, which a bag of words would not notice, "
        "and on texts with a negation, as they are and shuffled; rows an earlier exit had right and the last "
        "has wrong; MACs the fractional-entropy rule saves, and its gain over the same model without exits, "
        f"where that was trained. Epochs: {epochs}. TREC's test part is the package's, 1,076 questions. "
        "Targets, undecided within one error:\n\n"
    )
    columns = ["", "every exit", "last", "lost", "shuffled", "with negation", "overthinking", "MACs saved"]
    verdicts = markdown(["target", ""], [list(each) for each in targets])
    return f"{title}{verdicts}\n{markdown([*columns, 'gain', 'seeds'], rows)}"


def bits_warm_table(result: dict[str, Any]) -> str:
    """Targets; binary weights for a pre-trained model."""
    rows, targets, choices = [], [], []
    for task, found in result["summary"].items():
        if task == "sst2":
            targets += warm_verdicts(TASKS[task], found)
            choices += [
                f'{bits} as "{best["variant"]}" ('
                + ", ".join(f"{name} {percent(value)}" for name, value in best["tune"].items())
                + ")"
                for bits, best in found["chosen"].items()
            ]
        rows += [
            [
                f"{TASKS[task]}, {name}",
                " ".join(map(percent, line["exits"])),
                with_spread(line["last"], line["last_sd"]),
                lost(line),
                percent(line["shuffled"]),
                f"{line['seeds']}",
            ]
            for name, line in found["models"].items()
        ]
    title = (
        "**MiniLM-L6 with binary weights**, taught by its fine-tuned float self, or alone where it says so. "
        "Test accuracy of every exit and of the last, what is lost against the dense model of the same seed "
        "(± the error over rows and seeds, paired), and accuracy with the words of each text shuffled. "
        f"Chosen on tuning rows with seed 0: {'; '.join(choices) or 'not yet'}. Targets, undecided within "
        "one error:\n\n"
    )
    verdicts = markdown(["target", ""], [list(each) for each in targets])
    columns = ["", "every exit", "last", "lost", "shuffled", "seeds"]
    return f"{title}{verdicts}\n{markdown(columns, rows)}"
