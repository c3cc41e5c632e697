"""Tables of tokens that leave classifiers."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from cells import TASKS, markdown, outcomes, percent, read, section, signed, with_noise, with_spread
from verdicts import LOST_AT_3X, NOISY, OFF, counted, judged_shapes, loss_verdict, points, random_verdict

NAMES = {
    "mean": "ACC",
    "random": "random",
    "first_k": "first tokens",
    "one": "ACC, trained at 3x only",
    "untrained": "ACC, not trained so",
}


def token_quality_table(
    result: dict[str, Any], selections: Container[str] = NAMES, tasks: Container[str] = TASKS
) -> str:
    """Quality against the speed-up dialled, for selections of tokens; whether targets were met."""
    rows, summary = [], result["summary"]
    for task, found in summary.items():
        if task not in tasks:
            continue
        for name in (each for each in found if each in selections):
            line = found[name]
            cells = [
                f"{with_spread(cell['value'], cell['sd'])} ({points(cell['loss'], cell.get('loss_se'))})"
                for cell in line.values()
            ]
            rows.append([f"{TASKS[task]}, {NAMES[name]}", *cells, str(line["1"]["seeds"])])
        above = [cell["over_random"] for cell in found.get("mean", {}).values() if "over_random" in cell]
        if above:
            cells = [signed(cell) for cell in above]
            rows.append([f"{TASKS[task]}, ACC less random", *cells, str(above[0]["seeds"])])
        if task == "imdb":
            rows += measured_speedups(list(next(iter(found.values()))))
    speedups = next(line for found in summary.values() for line in found.values())
    targets = [
        (f"At 3x IMDB loses at most {100 * LOST_AT_3X:g} points", loss_verdict(summary)),
        ("ACC is above random wherever tokens leave", random_verdict(summary, TASKS)),
    ]
    return section(
        "Quality when tokens leave, MiniLM-L6",
        "Accuracy on test rows (STS-B: Pearson), by the speed-up in MACs, which is dialled without training. "
        "In brackets the points lost against the model before any token left.",
        outcomes(targets),
        markdown(["", *(f"{float(each):g}x" for each in speedups), "seeds"], rows),
        notes={
            "±": "over seeds; in brackets the paired standard error over rows. A target within one standard "
            "error is undecided.",
            "training": f"each step drew a speed-up of up to {result['settings']['trained_for']:g}x; the "
            "paper's way is to train at one.",
            "random, first tokens": "these models pool by the mean, into which a token that left still "
            "counts with its last state, so they keep some of every word.",
        },
    )


def measured_speedups(speedups: list[str]) -> list[list[str]]:
    """How many times faster IMDB reviews were read at these speed-ups in MACs, where that was timed.

    In float32, by the ACC model of seed 0 alone, against itself with all tokens there.
    """
    result = read("token_speed")
    rows = []
    for run in token_speed_runs(result) if result else []:
        for batch in (1, 8):
            at = {f"{line['speedup']:g}": line for line in run["dial"] if line["batch"] == batch}
            cells = [
                with_noise(f"{at[each]['measured speedup']:.2f}x", at[each], at["1"]) if each in at else ""
                for each in speedups
            ]
            rows.append([f"IMDB, ACC, times faster, batch {batch}, {run['threads']} threads", *cells, "1"])
    return rows


def token_ablation_table(result: dict[str, Any]) -> str:
    """Quality when one choice is another, and what that choice brings against the usual one."""
    rows = [
        [f"{TASKS[task]}, {name}", *map(token_ablation_cell, line.values())]
        for task, found in result["summary"].items()
        for name, line in found.items()
    ]
    speedups = next(line for found in result["summary"].values() for line in found.values())
    return section(
        "What each choice brings when tokens leave, MiniLM-L6",
        "Accuracy on tuning rows by the speed-up in MACs, one seed; in brackets what it is above the usual "
        "choice of the same pooling, ± the paired standard error over rows. Exits pool by the mean; those of "
        "cls read the first token alone, and the last state of a token that left no more.",
        markdown(["", *(f"{float(each):g}x" for each in speedups)], rows),
    )


def token_ablation_cell(cell: dict[str, Any]) -> str:
    """Of one choice and speed-up."""
    above = cell["above_usual"]
    return percent(cell["value"]) + ("" if above is None else f" ({signed(above)})")


def token_points_table(result: dict[str, Any]) -> str:
    """What a certificate allows with exits, with tokens, and with both."""
    rows = [[way, *map(token_points_cell, lines)] for way, lines in result["summary"].items()]
    settings = result["settings"]
    bounds = [f"loses at most {100 * bound:g} points" for bound in settings["bounds"]]
    return section(
        "What can be certified on IMDB reviews",
        "How many times fewer MACs, and test accuracy, of the boldest step certified with "
        f"{100 * (1 - settings['delta']):g}% confidence on {settings['task']['sizes']['calibration']:,} "
        f"reviews; means over those of {len(result['runs'])} seeds in which there was one, counted in "
        "brackets. In the others all tokens go through all layers.",
        markdown(["", *bounds], rows),
    )


def token_points_cell(line: dict[str, Any]) -> str:
    """Of one way and bound."""
    of = f"{line['certified']} of {line['seeds']}"
    if not line["certified"]:
        return f"nothing ({of})"
    return f"{line['macs_ratio']:.2f}x, {percent(line['test_accuracy'])} ({of})"


def token_speed_runs(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The latest run of each number of threads; results from before runs were kept count as runs."""
    runs = result.get("runs") or [
        {"threads": int(setting.split()[0]), **found} for setting, found in result["results"].items()
    ]
    return list({run["threads"]: run for run in runs}.values())


def token_speed_table(result: dict[str, Any]) -> str:
    """Time against MACs when tokens leave, and the dial's predictions, beside their targets."""
    runs = token_speed_runs(result)
    shapes = [(run["threads"], line) for run in runs for line in judged_shapes(run["shapes"])]
    rows = [
        [
            f"{line['batch']} x {line['tokens']}, {line['profile']}, {threads} threads",
            f"{line['macs_ratio']:.2f}x",
            f"{line['against dense']:.2f}x",
            "" if line["target"] is None else f"{line['target']}x, {met(line)}",
            f"{line['against hugging face']:.2f}x",
            with_noise(f"{line['spread']:.2f}", line),
        ]
        for threads, line in shapes
    ]
    aimed = [met(line) for _, line in shapes if line["target"] is not None]
    columns = ["", "MACs", "against dense", "target", "against Hugging Face", "spread"]
    times = section(
        "Time follows MACs when tokens leave",
        "BERT-base's shape, float32; our dense form and Hugging Face's with SDPA run interleaved.",
        markdown(columns, rows),
        notes={
            "target": f"{counted(aimed)}; a profile that comes to more MACs saved than asked for has none.",
            "spread": "a timing's 90th percentile over its 10th; a line is noisy where its own, or one it is "
            f"held against, is above {NOISY}.",
        },
    )
    return f"{times}\n{dial_table(runs)}"


def dial_table(runs: list[dict[str, Any]]) -> str:
    """How far predicted latencies were off, at speed-ups that were fitted and between them."""
    lines = [line for run in runs for line in run["dial"]]
    speedups = {line["speedup"]: line.get("fitted", True) for line in lines}
    rows = [
        [
            f"batch {batch}, {run['threads']} threads",
            *(
                with_noise(f"{100 * line['error']:+.0f}%", line)
                for line in run["dial"]
                if line["batch"] == batch
            ),
        ]
        for run in runs
        for batch in sorted({line["batch"] for line in run["dial"]})
    ]
    verdicts = ["met" if abs(line["error"]) <= OFF else "missed" for line in lines]
    columns = [f"{each:g}x" + ("" if fitted else " (between)") for each, fitted in speedups.items()]
    return section(
        "Does the dial's prediction come true?",
        "How far the predicted ms were off those measured, MiniLM on IMDB reviews that nothing was fitted "
        "on, by speed-up; between: nothing was fitted at this one.",
        outcomes([(f"At most {100 * OFF:g}% off", counted(verdicts))]),
        markdown(["", *columns], rows),
    )


def met(line: dict[str, Any]) -> str:
    """Of a line with a target."""
    return "met" if line["met"] else "missed"
