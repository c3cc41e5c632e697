"""Were the targets of few bits met: figures held against them. Needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bits_summary import LEARNED, SAVED
from verdicts import counted, points, verdict
from width_verdicts import NOT_YET, Verdict, counted_seeds, faster_verdict, loss_verdict, middle, verdict_of

BATCH = (128, 768, 3072)
ONE = (1, 768, 3072)
BATCH_FASTER = {"torch_fp32": 25.0, "torch_bf16": 10.0, "int8": 5.0}
"""A product of one bit by one bit, by what it is held against."""

ONE_FASTER = 10.0
OF_LIMIT = 0.7
MODEL_FASTER = {"W1A1": 8.0, "W1A8": 3.0}
SMALLER = {"beexformer-small": 22.0}
OPENVINO_EXITS = 1.7
EARLY = "lessen int8, SST-2, exits"
WARM = {"W1A32": 0.02, "W1A8": 0.03}
SCRATCH = {"W1A32": 0.01, "W1A8": 0.02, "W1A1": 0.04}
"""Points lost."""

NAMES = {"torch_fp32": "float32", "torch_bf16": "bfloat16", "int8": "_int_mm", "int8_linear": "int8 linear"}

Line = Mapping[str, Any]


def speed_verdicts(result: Mapping[str, Any]) -> list[Verdict]:
    """Of bits_speed.py: every target of time and size, those of parts that have not been run included."""
    return [
        *kernel_verdicts(result.get("kernels", [])),
        *model_verdicts(result.get("models", [])),
        *int8_verdicts(result.get("int8", []), result.get("exits", [])),
        *size_verdicts(result.get("sizes", [])),
    ]


def kernel_verdicts(lines: Sequence[Line]) -> list[Verdict]:
    """Products, counted over thread counts."""

    def of(kernel: str, shape: tuple[int, int, int]) -> list[Line]:
        return [
            line for line in lines if (line["kernel"], line["m"], line["k"], line["n"]) == (kernel, *shape)
        ]

    batch = of("w1a1", BATCH)
    found = [
        (f"W1A1, 128 rows: at least {target:g}x torch's {NAMES[rival]}", faster(batch, rival, target))
        for rival, target in BATCH_FASTER.items()
    ]
    found.append(
        (f"W1A1, 128 rows: at least {100 * OF_LIMIT:g}% of the limit of counting bits", of_limit(batch))
    )
    one = of("w1a1", ONE)
    layer = faster(one, "torch_fp32", ONE_FASTER, "module_faster")
    found.append((f"W1A1, one row, dispatch included: at least {ONE_FASTER:g}x torch's float32", layer))
    some = [*of("w8a8", (24, 768, 3072)), *of("w8a8", BATCH)]
    found.append(
        ("W8A8, 24 and 128 rows: at least as fast as torch's int8 linear", faster(some, "int8_linear", 1))
    )
    return found


def faster(lines: Sequence[Line], rival: str, target: float, field: str = "faster") -> str:
    """Of quotients of times, with their medians."""
    there = [{"faster": line[field][rival]} for line in lines if rival in line.get(field, {})]
    if not there:
        return NOT_YET
    figures = ", ".join(f"{middle(line):.1f}x" for line in there)
    return f"{counted(faster_verdict(line, target) for line in there)}, {figures}"


def of_limit(lines: Sequence[Line]) -> str:
    """Of the time that counting alone would take; 10th and 90th percentile on one side decide."""
    there = [line for line in lines if line.get("limit_ms") is not None]
    if not there:
        return "not measured: no limit is known of this processor" if lines else NOT_YET
    verdicts = []
    for line in there:
        high, low = (line["limit_ms"] / ms for ms in line["spread"]["ms"])
        verdicts.append("met" if low >= OF_LIMIT else "missed" if high < OF_LIMIT else "undecided")
    figures = ", ".join(f"{100 * line['limit_ms'] / line['ms']:.0f}%" for line in there)
    return f"{counted(verdicts)}, {figures}"


def model_verdicts(lines: Sequence[Line]) -> list[Verdict]:
    """Whole models against their float twins, counted over batches and thread counts."""
    return [
        (
            f"BEExformer-medium in {mode}: at least {target:g}x its float32 twin",
            over([line for line in lines if line["mode"] == mode], target),
        )
        for mode, target in MODEL_FASTER.items()
    ]


def int8_verdicts(off: Sequence[Line], on: Sequence[Line]) -> list[Verdict]:
    """MiniLM against OpenVINO on rows of one length, exits off and on."""
    plain = [line for line in off if line["name"] == "lessen int8"]
    early = [line for line in on if line["name"] == EARLY]
    return [
        ("MiniLM in int8, exits off: at least on par with OpenVINO's int8", over(plain, 1.0)),
        (
            f"MiniLM in int8, exits certified within 1%: at least {OPENVINO_EXITS:g}x OpenVINO's int8",
            over(early, OPENVINO_EXITS),
        ),
    ]


def over(lines: Sequence[Line], target: float) -> str:
    """Of lines that are so many times faster."""
    if not lines:
        return NOT_YET
    figures = ", ".join(f"{middle(line):.2f}x" for line in lines)
    return f"{counted(faster_verdict(line, target) for line in lines)}, {figures}"


def size_verdicts(lines: Sequence[Line]) -> list[Verdict]:
    """Bytes, of which nothing is uncertain."""
    found = []
    for preset, target in SMALLER.items():
        said = NOT_YET
        for line in lines:
            if line["model"] == preset:
                said = f"{'met' if line['ratio'] >= target else 'missed'}, {line['ratio']:.2f}x"
        found.append((f"{preset} is at least {target:g}x smaller on disk than its float32 twin", said))
    return found


def mixed_verdict(rows: Sequence[Line]) -> Verdict:
    """Of exit_latency.py: the same on sentences of mixed lengths, by batches and threads.

    OpenVINO takes longer for those than for rows of one length, with exits off too. Only medians and
    percentiles are kept there, so the error is that of single runs: 10th to 90th.
    """
    verdicts, figures = [], []
    times = {(row["kind"], row["name"], row["threads"], row["batch"]): row for row in rows}
    for (kind, name, threads, batch), own in times.items():
        rival = times.get(("openvino-int8", "dense", threads, batch))
        if (kind, name) == ("lessen-int8", "drop-1%") and rival is not None:
            ratio = rival["ms"] / own["ms"]
            off = sum(((each["high"] - each["low"]) / 2 / each["ms"]) ** 2 for each in (own, rival)) ** 0.5
            verdicts.append(verdict(ratio - OPENVINO_EXITS, ratio * off))
            figures.append(f"{ratio:.2f} ± {ratio * off:.2f}x at batch {batch} x {threads}")
    said = f"{counted(verdicts)}, {', '.join(figures)}" if verdicts else NOT_YET
    return (
        f"The same on sentences of mixed lengths, which OpenVINO takes longer for: {OPENVINO_EXITS:g}x",
        said,
    )


def quality_verdicts(
    task: str, variants: Mapping[str, Line], baselines: Mapping[str, float]
) -> list[Verdict]:
    """Of one task of bits_quality.py: losses against the float twin, and exits against none.

    Nothing can be lost to a twin that has learned nothing: then nothing is decided.
    """
    found, twin, frequent = [], variants.get("float twin"), baselines.get("most frequent label", 0.0)
    empty = twin is not None and twin["last"] < frequent + LEARNED
    nothing = f"undecided, the float twin learned nothing (the most frequent label: {100 * frequent:.1f})"
    for name, allowed in SCRATCH.items():
        loss = variants.get(name, {}).get("loss")
        said = nothing if empty else NOT_YET if loss is None else loss_verdict(allowed, loss)
        found.append((f"{task}: {name} loses at most {100 * allowed:g} to its float twin", said))
    said = nothing if empty else saving(variants)
    return [*found, (f"{task}: exits save {100 * SAVED:g}% of MACs without loss", said)]


def saving(variants: Mapping[str, Line]) -> str:
    """Of W1A32 with exits against itself without: both what is saved and that nothing is lost."""
    found = variants.get("W1A32", {}).get("exiting")
    if found is None:
        return NOT_YET
    sd, gain = found["macs_saved_sd"], found["gain"]
    error = 0.0 if sd is None else sd / gain["seeds"] ** 0.5
    saved = verdict(found["macs_saved"] - SAVED, None if sd is None else error)  # of one seed: undecided
    lost = verdict_of(gain["mean"], gain)
    both = next(said for said in ("missed", "undecided", "met") if said in (saved, lost))
    return (
        f"{both}: {points(found['macs_saved'], None if sd is None else error)}% saved ({saved}), "
        f"{100 * gain['mean']:+.1f} ± {100 * gain['error']:.1f} points ({lost}), {counted_seeds(gain)}"
    )


def warm_verdicts(task: str, found: Mapping[str, Any]) -> list[Verdict]:
    """Of bits_warm.py: what was chosen on tuning rows against the dense model."""
    lines = []
    for bits, allowed in WARM.items():
        best, said = found["chosen"].get(bits), NOT_YET
        if best is not None and found["models"][best["variant"]]["loss"] is not None:
            said = loss_verdict(allowed, found["models"][best["variant"]]["loss"]) + f" ({best['variant']})"
        lines.append((f"{task}: {bits} loses at most {100 * allowed:g} to its dense self", said))
    return lines
