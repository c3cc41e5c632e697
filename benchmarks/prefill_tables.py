"""Tables of prompt tokens that leave, in decoders and in T5."""

from __future__ import annotations

from typing import Any

from cells import markdown, outcomes, section, with_noise, with_spread
from verdicts import points


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
    verdicts = [
        (f"{name}: predicted within 20 % with every score", f"met at {each['met']} of {each['of']} speed-ups")
        for name, each in told.items()
        if each["of"]
    ]
    columns = ["model, score", "speed-up", "MACs", "first token, ms", "times faster", "predicted, ms"]
    return section(
        "Prompt tokens that leave: time to the first token",
        "GPT-2's shape with random weights, and SmolLM2; scores choose at the same retention. Predicted by "
        "latencies fitted at other speed-ups, in the same rounds.",
        outcomes(verdicts or [("Predicted within 20 % with every score", "not measured yet")]),
        markdown(columns, rows),
        notes={"timed on": _machines(latest)},
    )


def _machines(latest: dict[tuple[str, int, int], dict[str, Any]]) -> str:
    """Which processor timed which rows, where there were several."""
    timed: dict[str, list[str]] = {}
    for (model, tokens, threads), run in latest.items():
        timed.setdefault(run["processor"], []).append(f"{model}, {tokens} tokens, {threads} threads")
    if len(timed) < 2:
        return f"{next(iter(timed), 'no machine yet')}."
    return "; ".join(f"{processor}: {' / '.join(rows)}" for processor, rows in sorted(timed.items())) + "."


LOSS_NOTES = {
    "none": "not trained further.",
    "leaving": "trained further with prompt tokens leaving.",
    "plain": "trained as much with all tokens.",
    "cut": "the prompt's last tokens alone, as many as take the same MACs to read.",
    "last_k": "tokens leave from the front, in the same layers as under the other scores.",
    "compounding": "shares of layers compound, as a classifier's.",
    "smollm2": "its weights are dequantized from 4 bits; it reads WikiText-2's articles.",
    "gpt2": "a small one of `examples/gpt2_from_scratch.py`; it reads film reviews.",
}
"""What the names of models and trainings mean, said of those that were run."""


SAID = {
    "loss": (
        "loss of what follows",
        "Perplexity of the 64 tokens after a prompt",
    ),
    "recall": (
        "are its passages still known?",
        "A prompt ends with 16 of its own tokens, from any place: perplexity of the 64 after them there",
    ),
}
"""What a table of losses is called, and of."""


def prefill_loss_table(result: dict[str, Any], what: str = "loss") -> str:
    """Perplexity of what follows a prompt of which tokens left, or of a passage of it that is asked for."""
    rows, lines = [], list(result["summary"][what])
    title, said = SAID[what]
    for name, cells in result["summary"][what].items():
        lines += cells
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
    return section(
        f"Prompt tokens that leave: {title}",
        f"{said}, by the speed-up of reading it; in brackets the nats a token above the same model's with "
        "all tokens, ± the standard error over articles. In bfloat16.",
        markdown(["", "1x", "1.5x", "2x", "3x", "3.72x", "seeds"], rows),
        notes={
            name: said for name, said in LOSS_NOTES.items() if any(name in line.split(", ") for line in lines)
        },
    )


def prefill_tables(result: dict[str, Any]) -> str:
    """All three, as far as there are runs."""
    told = result["summary"]
    parts = [prefill_time_table(result)] if told["time"] else []
    parts += [prefill_loss_table(result, what) for what in SAID if told.get(what)]
    if not told["loss"]:
        parts.append("Loss of the text that follows: not run yet.\n")
    return "\n".join(parts)


SEQ2SEQ_TIMES = (
    ("timed", ""),
    ("shape", "flan-t5-small's shape, "),
    ("shape in int8", "flan-t5-small's shape in int8, "),
)
"""Ways whose answers were timed, and what they are called."""


def seq2seq_table(result: dict[str, Any]) -> str:
    """Accuracy of a T5 from scratch, and how much faster its answers come."""
    told, rows = result["summary"], []
    speedups = [f"{each:g}" for each in result["settings"]["speedups"]]
    for task, ways in told["tasks"].items():
        for way, found in ways.items():
            line = [
                f"{with_spread(found[each]['value'], found[each]['sd'])} "
                f"({points(found[each]['loss']['mean'], found[each]['loss']['error'])})"
                for each in speedups
            ]
            rows.append([f"{task}, {way}", *line, f"{found[speedups[0]]['seeds']}"])
    for way, name in SEQ2SEQ_TIMES:
        times = told["time"][way]
        if not times:
            continue
        ms, theirs = (times[each]["ms"] for each in ("1", "transformers"))
        whole = f"whole answer, {ms:.1f} ms at 1x, {theirs:.1f} in transformers"
        for said, at in (("first token", "first"), (whole, "total")):
            line = [f"{times[each][at]:.2f}x" if each in times else "" for each in speedups]
            rows.append([f"times faster, {name}{said}", *line, ""])
    aim = "At most 0.75 points of reviews lost where a whole answer was measured to come twice as fast"
    return section(
        "A small T5 from scratch",
        "`examples/t5_from_scratch.py`: accuracy over all ways to ask, of first sentences ROUGE-L, by the "
        "speed-up of its encoder in MACs, ± over seeds. `leaving` learned with tokens leaving, `plain` as "
        "long with all of them.",
        outcomes([(aim, told["target"])]),
        markdown(["", *(f"{each}x" for each in speedups), "seeds"], rows),
        notes={
            "in brackets": "points lost against `plain` at 1x, ± the paired error over rows, each of which "
            "is asked in every way, and seeds.",
            "whole answer": "the name of a class and what ends it.",
            "timed on": f"{told['timed_on'] or 'no machine yet'}.",
            "flan-t5-small's shape": f"random weights; it reads {result['settings']['shape_tokens']} tokens.",
        },
    )
