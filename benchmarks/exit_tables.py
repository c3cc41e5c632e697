"""Tables of exits, promises and times of classifiers."""

from __future__ import annotations

from typing import Any

from cells import markdown, section


def accuracy_table(result: dict[str, Any]) -> str:
    """SST-2: accuracy and depth, mean over seeds."""
    rows = []
    for name, line in result["summary"].items():
        spread = "" if line["accuracy_sd"] is None else f" ± {100 * line['accuracy_sd']:.1f}"
        accuracy = f"{100 * line['accuracy']:.1f}{spread}"
        rows.append([name, accuracy, f"{line['mean_layers']:.2f}", f"{line['seeds']}"])
    rows += [[name, f"{100 * value:.1f}", "", ""] for name, value in result["baselines"].items()]
    return section(
        "SST-2 with exits, MiniLM-L6",
        "1,821 test sentences. `drop-1%` is certified on 2,000 held-out sentences with 90% confidence; "
        "`plug-in` points promise nothing.",
        markdown(["point", "accuracy", "mean layers of 6", "seeds"], rows),
    )


def promise_table(result: dict[str, Any]) -> str:
    """How often a promise was broken over random draws, at the tighter bound."""
    rows = []
    for task, found in result["tasks"].items():
        for line in found["lines"]:
            if line["epsilon"] == min(each["epsilon"] for each in found["lines"]):
                rows.append(
                    [
                        f"{task}, {line['loss']}",
                        f"{found['rows']:,}",
                        f"{100 * line['violations']:.1f}%",
                        f"{100 * line['violations_plug_in']:.1f}%",
                        f"{100 * line['early']:.0f}% of {100 * line['early_oracle']:.0f}%",
                        f"{100 * line['saved']:.0f}% of {100 * line['saved_oracle']:.0f}%",
                    ]
                )
    columns = ["task, loss", "rows", "broken", "plug-in rule", "leave early", "layers saved"]
    return section(
        "Is the promise kept?",
        "1,000 random draws of calibration rows for each line, bound 1 %, 90% confidence: at most 10% may "
        "break it.",
        markdown(columns, rows),
        notes={
            "leave early, layers saved": "of the certified step, beside those of the boldest step that keeps "
            "the bound on the whole pool, which nobody knows beforehand.",
            "plug-in rule": "how often the boldest step that keeps the bound on the rows drawn breaks it.",
        },
    )


def latency_table(result: dict[str, Any]) -> str:
    """SST-2: ms per sentence against other runtimes."""
    settings = sorted({(-row["threads"], row["batch"]) for row in result["rows"]})
    lines: dict[tuple[str, str], dict[tuple[int, int], dict[str, Any]]] = {}
    for row in result["rows"]:
        lines.setdefault((row["kind"], row["name"]), {})[-row["threads"], row["batch"]] = row
    rows = []
    for (kind, name), found in lines.items():
        first = next(iter(found.values()))
        figures = [f"{found[setting]['ms']:.2f}" for setting in settings]
        rows.append(
            [f"{kind}, {name}", f"{100 * first['accuracy']:.1f}", f"{first['mean_layers']:.2f}", *figures]
        )
    return section(
        "The same fine-tuned weights in other runtimes",
        "SST-2, ms per sentence by batch x threads, one process, interleaved. Points are certified in "
        "float32, those of `lessen-int8` in int8.",
        markdown(
            [
                "",
                "accuracy",
                "layers",
                *(f"batch {size} x {-many}" for many, size in settings),
            ],
            rows,
        ),
    )


WAYS = [(kind, how) for kind in ("fp32", "bf16") for how in ("tight", "naive")]
UNUSED = "unused exits cost (1 is nothing)"
IN_VAIN = "exits asked in vain cost (1 is nothing)"


def speed_table(result: dict[str, Any]) -> str:
    """Exits off against Hugging Face."""
    rows = []
    for setting, found in result["results"].items():
        for name, entry in found.items():
            ratios = entry["ratios"]
            rows.append(
                [
                    f"{name}, {setting}",
                    *(f"{ratios[f'{kind} against {how} padding']:.2f}x" for kind, how in WAYS),
                    *(f"{100 * (ratios[cost] - 1):+.1f}%" for cost in (UNUSED, IN_VAIN)),
                ]
            )
    columns = ["", "fp32, tight", "fp32, naive", "bf16, tight", "bf16, naive"]
    columns += ["exits nobody asks cost", "exits asked in vain cost"]
    return section(
        "Exits off: how many times faster than Hugging Face",
        "With SDPA, tightly padded in length-sorted batches, and naively padded. Asked in vain: after every "
        "layer, and no row may leave.",
        markdown(columns, rows),
    )
