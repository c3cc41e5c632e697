"""Write all tables into docs/results.md from the results files, and some of them into the README.

`--check` fails if either is stale.

python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from verdicts import (
    LOST_AT_3X,
    NOISY,
    OFF,
    counted,
    judged_shapes,
    loss_verdict,
    points,
    random_verdict,
)

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN = "<!-- tables: made by benchmarks/tables.py, do not edit -->\n"
END = "<!-- end of tables -->"


def read(name: str) -> dict[str, Any] | None:
    """A results file, or None if that benchmark has not been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table, first column left, others right."""
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join([':--', *['--:'] * (len(columns) - 1)])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def accuracy_table(result: dict[str, Any]) -> str:
    """SST-2: accuracy and depth, mean over seeds."""
    rows = []
    for name, line in result["summary"].items():
        spread = "" if line["accuracy_sd"] is None else f" ± {100 * line['accuracy_sd']:.1f}"
        accuracy = f"{100 * line['accuracy']:.1f}{spread}"
        rows.append([name, accuracy, f"{line['mean_layers']:.2f}", f"{line['seeds']}"])
    rows += [[name, f"{100 * value:.1f}", "", ""] for name, value in result["baselines"].items()]
    title = (
        "**SST-2, MiniLM-L6, 1,821 test sentences.** `drop-1%` is certified on 2,000 held-out sentences with "
        "90% confidence; `plug-in` points promise nothing.\n\n"
    )
    return title + markdown(["point", "accuracy", "mean layers of 6", "seeds"], rows)


def latency_table(result: dict[str, Any]) -> str:
    """SST-2: ms per sentence against other runtimes."""
    sizes = sorted({row["batch"] for row in result["rows"]})
    lines: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in result["rows"]:
        lines.setdefault((row["kind"], row["name"]), {})[row["batch"]] = row
    rows = []
    for (kind, name), found in lines.items():
        first = next(iter(found.values()))
        figures = [f"{found[size]['ms']:.2f}" for size in sizes]
        rows.append(
            [f"{kind}, {name}", f"{100 * first['accuracy']:.1f}", f"{first['mean_layers']:.2f}", *figures]
        )
    title = (
        f"**The same fine-tuned weights, ms per sentence, {result['threads']} threads, one process, "
        "interleaved.** The certificate is about float32.\n\n"
    )
    return title + markdown(["", "accuracy", "layers", *(f"batch {size}" for size in sizes)], rows)


UNUSED = "unused exits cost (1 is nothing)"
WAYS = [(kind, how) for kind in ("fp32", "bf16") for how in ("tight", "naive")]


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
                    f"{100 * (ratios[UNUSED] - 1):+.1f}%",
                ]
            )
    columns = ["", "fp32, tight", "fp32, naive", "bf16, tight", "bf16, naive", "unused exits cost"]
    title = (
        "**Exits off: how many times faster than Hugging Face with SDPA**, tightly padded in length-sorted "
        "batches, and naively padded.\n\n"
    )
    return title + markdown(columns, rows)


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
    title = (
        "**Is the promise kept?** 1,000 random draws of calibration rows for each line, bound 1 %, 90% "
        "confidence: at most 10% may break it. Beside the certified step's early answers and saved layers "
        "stand those of the boldest step that keeps the bound on the whole pool, which nobody knows "
        "beforehand.\n\n"
    )
    columns = ["task, loss", "rows", "broken", "plug-in rule", "leave early", "layers saved"]
    return title + markdown(columns, rows)


NAMES = {
    "mean": "ACC",
    "random": "random",
    "first_k": "first tokens",
    "one": "ACC, trained at 3x only",
    "untrained": "ACC, not trained so",
}
METRICS = {"imdb": "IMDB", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B"}


def token_quality_table(result: dict[str, Any]) -> str:
    """Quality against the speed-up dialled, for each selection of tokens; whether targets were met."""
    rows, summary = [], result["summary"]
    for task, found in summary.items():
        for name, line in found.items():
            cells = [
                f"{with_spread(cell['value'], cell['sd'])} ({points(cell['loss'], cell.get('loss_se'))})"
                for cell in line.values()
            ]
            rows.append([f"{METRICS[task]}, {NAMES[name]}", *cells, str(line["1"]["seeds"])])
        above = [cell["over_random"] for cell in found.get("mean", {}).values() if "over_random" in cell]
        if above:
            cells = [signed(cell) for cell in above]
            rows.append([f"{METRICS[task]}, ACC less random", *cells, str(above[0]["seeds"])])
        if task == "imdb":
            rows += measured_speedups(list(next(iter(found.values()))))
    speedups = next(line for found in summary.values() for line in found.values())
    title = (
        "**Quality when tokens leave, MiniLM-L6.** Accuracy (STS-B: Pearson) on test rows, by the speed-up "
        "in MACs, dialled without training, ± over seeds; in brackets the points lost against the model "
        "before any token left, ± the paired standard error over rows. Each training step drew a speed-up "
        f"of up to {result['settings']['trained_for']:g}x; the paper's way is to train at one. These models "
        "pool by the mean, into which a token that left still counts with its last state, so random and "
        "first tokens keep some of every word. Targets, undecided within one standard error. At 3x IMDB "
        f"loses at most {100 * LOST_AT_3X:g} points: {loss_verdict(summary)}. ACC is above random wherever "
        f"tokens leave: {random_verdict(summary, METRICS)}.\n\n"
    )
    return title + markdown(["", *(f"{float(each):g}x" for each in speedups), "seeds"], rows)


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
        [f"{METRICS[task]}, {name}", *map(token_ablation_cell, line.values())]
        for task, found in result["summary"].items()
        for name, line in found.items()
    ]
    speedups = next(line for found in result["summary"].values() for line in found.values())
    title = (
        "**What each choice brings when tokens leave, MiniLM-L6, tuning rows, one seed.** Accuracy by the "
        "speed-up in MACs; in brackets what it is above the usual choice of the same pooling, ± the paired "
        "standard error over rows. Exits pool by the mean; those of cls read the first token alone, and the "
        "last state of a token that left no more.\n\n"
    )
    return title + markdown(["", *(f"{float(each):g}x" for each in speedups)], rows)


def token_ablation_cell(cell: dict[str, Any]) -> str:
    """Of one choice and speed-up."""
    above = cell["above_usual"]
    return percent(cell["value"]) + ("" if above is None else f" ({signed(above)})")


def token_points_table(result: dict[str, Any]) -> str:
    """What a certificate allows with exits, with tokens, and with both."""
    rows = [[way, *map(token_points_cell, lines)] for way, lines in result["summary"].items()]
    settings = result["settings"]
    title = (
        f"**What can be certified on IMDB reviews, {len(result['runs'])} seeds.** MACs saved and test "
        f"accuracy of the boldest step certified with {100 * (1 - settings['delta']):g}% confidence on "
        f"{settings['task']['sizes']['calibration']:,} reviews; means over the seeds in which there was one, "
        "counted in brackets. In the others all tokens go through all layers.\n\n"
    )
    bounds = [f"loses at most {100 * bound:g} points" for bound in settings["bounds"]]
    return title + markdown(["", *bounds], rows)


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
    title = (
        "**Time follows MACs when tokens leave: BERT-base's shape, float32.** Our dense form and Hugging "
        "Face's with SDPA run interleaved. Spread is a timing's 90th percentile over its 10th; a line is "
        f"noisy where its own, or one it is held against, is above {NOISY}. Targets: {counted(aimed)}; a "
        "profile that comes to more MACs saved than asked for has none.\n\n"
    )
    columns = ["", "MACs", "against dense", "target", "against Hugging Face", "spread"]
    return title + markdown(columns, rows) + "\n" + dial_table(runs)


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
    title = (
        "**Does the dial's prediction come true?** How far the predicted ms were off those measured, MiniLM "
        "on IMDB reviews that nothing was fitted on, by speed-up; between: nothing was fitted at this one. "
        f"Target, at most {100 * OFF:g}% off: {counted(verdicts)}.\n\n"
    )
    columns = [f"{each:g}x" + ("" if fitted else " (between)") for each, fitted in speedups.items()]
    return title + markdown(["", *columns], rows)


def met(line: dict[str, Any]) -> str:
    """Of a line with a target."""
    return "met" if line["met"] else "missed"


def with_noise(text: str, *lines: dict[str, Any]) -> str:
    """Marked where a timing it rests on was unsteady; where the spread was not kept, it is not known."""
    return text + (", noisy" if any(line.get("noisy") for line in lines) else "")


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
                    f"{METRICS[task]}, {name}",
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


def bits_warm_table(result: dict[str, Any]) -> str:
    """Binary weights for a pre-trained model."""
    rows = [
        [
            f"{METRICS[task]}, {name}",
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


def percent(share: float) -> str:
    """A share as a number of hundredths."""
    return f"{100 * share:.1f}"


def signed(difference: dict[str, float]) -> str:
    """A difference in hundredths, and its standard error."""
    return f"{100 * difference['mean']:+.1f} ± {100 * difference['se']:.1f}"


def with_spread(value: float, deviation: float | None) -> str:
    """A mean over seeds, and its deviation where there are several."""
    return percent(value) + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def prefill_time_table(result: dict[str, Any]) -> str:
    """Time to the first token when prompt tokens leave, against what was predicted of it."""
    rows, told = [], result["summary"]["time"]
    runs = [run for run in result["runs"] if run["what"] == "time"]
    latest = {(run["model"], run["tokens"], run["threads"]): run for run in runs}
    for (model, tokens, threads), run in latest.items():
        for line in run["lines"]:
            rows.append(
                [
                    f"{model}, {tokens} tokens, {threads} threads, {line['score']}",
                    f"{line['speedup']:g}x",
                    f"{line['macs_ratio']:.2f}x",
                    with_noise(f"{line['ms']['median_ms']:.1f}", line),
                    f"{line['faster']:.2f}x",
                    f"{line['predicted_ms']:.1f} ({100 * line['error']:+.0f}%)",
                ]
            )
    met = "; ".join(f"{name}: {each['met']} of {each['of']}" for name, each in told.items())
    title = (
        "**Prompt tokens that leave: time to the first token.** GPT-2's shape with random weights, and "
        "SmolLM2; scores choose at the same retention. Predicted by latencies fitted at other speed-ups, in "
        f"the same rounds; target: at most 20 % off. Met: {met or 'not measured yet'}.\n\n"
    )
    columns = ["model, score", "speed-up", "MACs", "first token, ms", "times faster", "predicted, ms"]
    return title + markdown(columns, rows)


def prefill_loss_table(result: dict[str, Any]) -> str:
    """Perplexity of what follows a prompt of which tokens left."""
    rows = []
    for name, cells in result["summary"]["loss"].items():
        whole = cells["all"]["1"]
        rows.append([f"{name}, all tokens", f"{whole['perplexity']:.2f}", *[""] * 4, f"{whole['seeds']}"])
        for score, found in cells.items():
            if score == "all":
                continue
            line = [
                f"{each['perplexity']:.2f} ({each['over_whole']:+.3f} ± {each['over_whole_se']:.3f})"
                for each in found.values()
            ]
            rows.append([f"{name}, {score}", "", *line, f"{whole['seeds']}"])
    title = (
        "**SmolLM2 on WikiText-2: perplexity of the 64 tokens after a prompt**, by the speed-up of reading "
        "it; in brackets the nats a token above the same model's with all tokens, ± the standard error over "
        "texts. "
        "`none` was not trained further, `leaving` with prompt tokens leaving, `plain` as much with all "
        "tokens. Its weights are dequantized from 4 bits.\n\n"
    )
    return title + markdown(["", "1x", "1.5x", "2x", "3x", "3.72x", "seeds"], rows)


def prefill_tables(result: dict[str, Any]) -> str:
    """Both, as far as there are runs."""
    told = result["summary"]
    parts = [
        make(result) for make, of in ((prefill_time_table, "time"), (prefill_loss_table, "loss")) if told[of]
    ]
    return "\n".join(parts)


def seq2seq_table(result: dict[str, Any]) -> str:
    """Accuracy of a T5 from scratch, and how much faster its answers come."""
    told, rows = result["summary"], []
    speedups = [f"{each:g}" for each in result["settings"]["speedups"]]
    for task, ways in told["tasks"].items():
        for way, found in ways.items():
            line = [
                f"{with_spread(found[each]['value'], found[each]['sd'])} "
                f"({points(found[each]['loss'], found[each]['loss_se'])})"
                for each in speedups
            ]
            rows.append([f"{task}, {way}", *line, f"{found[speedups[0]]['seeds']}"])
    for name, at in (("first token", "first"), ("whole answer", "total")):
        line = [f"{told['time'][each][at]:.2f}x" if each in told["time"] else "" for each in speedups]
        rows.append([f"times faster, {name}", *line, ""])
    title = (
        "**A small T5 from scratch** (`examples/t5_from_scratch.py`): accuracy over all ways to ask, by the "
        "speed-up of its encoder in MACs, ± over seeds; in brackets the points lost against `plain` at 1x, ± "
        "the paired standard error over rows. `leaving` learned with tokens leaving, `plain` as long with "
        "all of them. Target: at most 0.75 points of reviews lost where a whole answer was measured to come "
        f"twice as fast: {told['target']}.\n\n"
    )
    return title + markdown(["", *(f"{each}x" for each in speedups), "seeds"], rows)


NOT_RUN = {
    "prefill_tokens": "Prompt tokens that leave: time to the first token, and loss of what follows",
    "seq2seq_quality": "A small T5 from scratch: accuracy and time against the speed-up of its encoder",
}
"""What is said in place of a table, where there are no results yet."""

IN_README = ("sst2_exits", "exit_latency", "token_quality", "dense_speed")
"""The others stand in docs/results.md only."""

TABLES = {
    "sst2_exits": accuracy_table,
    "promise": promise_table,
    "exit_latency": latency_table,
    "token_quality": token_quality_table,
    "token_ablation": token_ablation_table,
    "token_points": token_points_table,
    "token_speed": token_speed_table,
    "width_quality": width_quality_table,
    "width_mpnet-l12": width_quality_table,
    "width_speed": width_speed_table,
    "dense_speed": speed_table,
    "bits_quality": bits_quality_table,
    "bits_warm": bits_warm_table,
    "bits_speed": bits_speed_table,
    "prefill_tokens": prefill_tables,
    "seq2seq_quality": seq2seq_table,
}


def tables(names: Iterable[str]) -> str:
    """Those whose benchmarks have been run; of some it is said that they have not."""
    parts = []
    for name in names:
        if (result := read(name)) is not None:
            machine = result["machine"]
            place = f"{machine['processor']}, {machine['date'][:10]}, `benchmarks/results/{name}.json`"
            if result.get("commit"):
                place += f", commit {result['commit']}"
            parts.append(f"{TABLES[name](result)}\n<sub>{place}</sub>\n")
        elif name in NOT_RUN:
            parts.append(f"**{NOT_RUN[name]}**: not run yet (`benchmarks/{name}.py`).\n")
    return "\n".join(parts)


def main() -> None:
    """Rewrite both files, or check them."""
    for name, chosen in (("README.md", IN_README), ("docs/results.md", TABLES)):
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        fresh = head + BEGIN + tables(chosen) + END + rest.split(END, 1)[1]
        if "--check" not in sys.argv:
            path.write_text(fresh, encoding="utf-8")
        elif fresh != text:
            sys.exit(f"{name}: the tables are stale; run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
