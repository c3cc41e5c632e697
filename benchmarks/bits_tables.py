"""Tables of models of few bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bits_summary import SAVED
from bits_verdicts import mixed_verdict, quality_verdicts, speed_verdicts, warm_verdicts
from cells import TASKS, markdown, outcomes, percent, read, section, with_noise, with_spread
from verdicts import NOISY, points

PARTS = ("weights", "scales", "norms", "embeddings", "exits", "listing", "tokenizer")
RIVALS = ("torch_fp32", "torch_bf16", "int8", "int8_linear")


def bits_speed_table(result: dict[str, Any]) -> str:
    """Targets, products of few bits, whole models, int8 beside OpenVINO, and bytes, machine by machine."""
    machines = {
        machine: {part: facts["lines"] for part, facts in parts.items()}
        for machine, parts in result.get("machines", {}).items()
    }
    return "\n".join(speed_sections(machine, parts) for machine, parts in machines.items())


def speed_sections(machine: str, result: Mapping[str, Any]) -> str:
    """All that was measured on one machine."""
    targets = speed_verdicts(result)
    latency = read("exit_latency")
    if latency is not None and machine.startswith(latency["machine"]["processor"]):
        targets.append(mixed_verdict(latency["rows"]))
    parts = [
        section(
            f"Few bits in time and bytes: {machine}",
            "A target of times is undecided where the middle half of the rounds lies on both sides.",
            outcomes(targets),
        )
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
        for part in ("int8", "exits")
        for line in result.get(part, [])
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
            section(
                f"Products with few bits: {machine}",
                "Rows x inputs x outputs, in ms, quantizing of activations, scale and bias included, and how "
                "many times faster than torch.",
                markdown(
                    ["", "ms", "layer", "float32", "bfloat16", "`_int_mm`", "int8 linear", "of limit"],
                    kernels,
                ),
                notes={
                    "layer": "ms of what models call.",
                    "float32, bfloat16": "torch's `linear`.",
                    "`_int_mm`": "torch's, on numbers that are whole already.",
                    "int8 linear": "torch's, which quantizes activations too.",
                    "of limit": "share of the limit of counting bits (measuring.md); AMX multiplies signs of "
                    "24 rows or more instead.",
                },
            )
        )
    if models:
        parts.append(
            section(
                f"BEExformer-medium, 64 tokens, full depth: {machine}",
                "Against its float32 twin in the same form; random weights, so what each mode costs in "
                "accuracy stands in the tables of binary weights.",
                markdown(["", "ms", "faster"], models),
            )
        )
    if int8:
        parts.append(
            section(
                f"MiniLM in int8: {machine}",
                "How many times faster than OpenVINO's int8 of the same weights. Random tokens; where it "
                "says SST-2, its sentences of that length, and exits certified within 1% in int8.",
                markdown(["", "ms", "faster"], int8),
            )
        )
    if sizes:
        parts.append(
            section(
                f"Bytes of `model.safetensors`: {machine}",
                "MB in float32 and packed; and kB of the packed one by part, token table and exits counted, "
                "and the tokenizer's files beside it.",
                markdown(["", "float32", "packed", "smaller", *PARTS], sizes),
            )
        )
    return "\n".join(parts)


def wide(percentiles: list[float]) -> bool:
    """Whether a timing's 10th and 90th percentile are far apart."""
    return percentiles[1] > NOISY * percentiles[0]


def timed(line: Mapping[str, Any]) -> list[str]:
    """A time, and how many times faster it is, with the middle half of the rounds."""
    faster = "{1:.2f}x ({0:.2f} to {2:.2f})".format(*line["faster"])
    return [with_noise(f"{line['ms']:.2f}", {"noisy": wide(line["spread"])}), faster]


def unlearned(line: Mapping[str, Any]) -> str:
    """How many seeds came to nothing: the spread shows it, and comparisons leave them out."""
    count = line["seeds"] - line["learned"]
    return f", {count} learned nothing" if count else ""


def lost(line: Mapping[str, Any]) -> str:
    """Points below another model, with the error over rows and seeds."""
    return "" if line["loss"] is None else points(line["loss"]["mean"], line["loss"]["error"])


CLAIMS = (
    ("v1", "18.44x", "54.85%", "+5.98%"),
    ("v2", "21.30x", "52.08%", "+2.89%"),
    ("v3", "21.30x", "52.27%", "+3.22%"),
)
"""By version of BEExformer's abstract: smaller, FLOPs saved by exits, accuracy gained by them."""


def claims(summary: Mapping[str, Any], model: str, speed: Mapping[str, Any] | None) -> str:
    """What the paper's abstracts say, and beside it what came out of the same questions here."""
    smaller = [
        f"{line['ratio']:.2f}x"
        for parts in (speed or {}).get("machines", {}).values()
        for line in parts.get("sizes", {}).get("lines", [])
        if line["model"] == model
    ]
    lines = [[f"the paper, {version}", *figures, ""] for version, *figures in CLAIMS]
    for task, found in summary.items():
        step = found["variants"].get("W1A32", {}).get("exiting")
        if step is not None:
            gain = step["gain"]
            saved = f"{100 * step['macs_saved']:.1f}%"
            gained = f"{100 * gain['mean']:+.1f} ± {100 * gain['error']:.1f}"
            size = smaller[-1] if smaller else ""
            lines.append([f"here, {task}, W1A32", size, saved, gained, f"{gain['seeds']}"])
    return markdown(["", "smaller", "saved by exits", "accuracy by exits", "seeds"], lines)


def bits_quality_table(result: dict[str, Any]) -> str:
    """Targets; binary weights from scratch and from masked words, task by task, beside the paper's claims."""
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
                    f"{line['seeds']}{unlearned(line)}",
                ]
            )
        rows += [
            [f"{task}, {name}", "", percent(value), *([""] * 7)] for name, value in found["baselines"].items()
        ]
    epochs = ", ".join(f"{task} {count:g}" for task, count in settings["epochs"].items())
    if settings["changes"]:
        epochs += f"; changed: {settings['changes']}"
    columns = ["", "every exit", "last", "lost", "shuffled", "with negation", "overthinking", "MACs saved"]
    return section(
        f"Binary weights, {settings['model']}",
        "From random weights, or where it says so from masked words of film reviews: test accuracy of every "
        "exit (the first is the fixed exit 1) and of the last.",
        outcomes(targets),
        claims(result["summary"], settings["model"], read("bits_speed")),
        markdown([*columns, "gain", "seeds"], rows),
        notes={
            "the paper": "arXiv 2412.05225: claims of its abstracts, on GLUE (v1), six and nine sets; "
            "its model, recipe and tables are not public. We follow v1. Ours: file bytes against the float "
            "twin, tokenizer apart; MACs saved, and points gained on the same model without exits.",
            "words first": "half a pass over film reviews, of which words are hidden; the product's is two.",
            "learned nothing": "no more than the most frequent label; comparisons leave such seeds out.",
            "lost": "points the last exit loses to the float twin, ± the error over rows and seeds, paired. "
            "A target within one error is undecided.",
            "shuffled": "accuracy of the last with the words of each text shuffled, which a bag of words "
            "would not notice.",
            "with negation": "accuracy on texts with one, as they are and shuffled.",
            "overthinking": "rows an earlier exit had right and the last has wrong.",
            "MACs saved, gain": "by the fractional-entropy rule, at the smallest threshold that saves "
            f"{100 * SAVED:g}% on tuning rows, and points gained on the same model without exits, where that "
            "was trained.",
            "epochs": f"{epochs}. TREC's test part is the package's, 1,076 questions.",
        },
    )


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
                lost({"loss": line["tune_loss"]}),
                percent(line["shuffled"]),
                f"{line['seeds']}",
            ]
            for name, line in found["models"].items()
        ]
    return section(
        "MiniLM-L6 with binary weights",
        "Taught by its fine-tuned float self, or alone where it says so: test accuracy of every exit and of "
        "the last.",
        outcomes(targets),
        markdown(["", "every exit", "last", "lost", "lost, tuning rows", "shuffled", "seeds"], rows),
        notes={
            "lost": "points, against the dense model of the same seed, ± the error over rows and seeds, "
            "paired. A target within one error is undecided; it is of test rows. Tuning rows chose.",
            "shuffled": "accuracy with the words of each text shuffled.",
            "phrases": "learned from SST-2's phrases, many more texts than its dense self, without labels.",
            "chosen": f"on tuning rows with seed 0, {'; '.join(choices) or 'not yet'}.",
        },
    )
