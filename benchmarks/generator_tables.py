"""Tables of what generators with exits learn, promise, save and how fast they are."""

from __future__ import annotations

from typing import Any

from cells import markdown, percent, signed
from generator_verdicts import decode_verdicts, kept_promises, times
from verdicts import points

C = {
    "disagreement": "C2: wrong early tokens",
    "selective": "C3: wrong among early",
    "block": "C1: block differs",
}


def generator_exits_table(result: dict[str, Any]) -> str:
    """What each kind of head learned, and what is certified of it."""
    rows, settings = [], result["settings"]
    for name, run in result["summary"].items():
        exits = " ".join(f"{layer}: {percent(value)}" for layer, value in run["exits"].items())
        for loss, point in run["points"].items():
            drawn = point["draws"]
            rows.append(
                [
                    f"{name}, {C[loss]}",
                    exits if loss == "disagreement" else "",
                    f"{100 * point['epsilon']:g}%" + ("" if point["certified"] else " (not certified)"),
                    percent(point["agreement"]),
                    percent(point["exact"]),
                    percent(point["early"]),
                    f"{point['mean_layers']:.1f} of {run['layers']}",
                    percent(point["work"]),
                    "" if drawn is None else percent(drawn["violations"]),
                    "" if drawn is None else percent(drawn["violations_plug_in"]),
                ]
            )
    target, said = kept_promises(result["summary"], settings["delta"], settings["draws"])
    title = (
        f"**Exits that learn a generator's own next tokens, {settings['model']}**, from film reviews, "
        "without labels, in so many minutes. On tuning text how often each exit names the full model's "
        f"token; then the step certified with {100 * (1 - settings['delta']):g}% confidence, on test "
        "prompts: "
        "agreement of all tokens, texts whose first 32 are the model's, tokens that leave early, layers "
        "before a token is named, and work (heads included, % of full depth's) if what is skipped is never "
        f"computed. In how many % of {settings['draws']:,} draws the bound was broken, by the certified rule "
        "and by the literature's. "
        f"Target: {target[0].lower()}{target[1:]}: {said}.\n\n"
    )
    columns = ["", "agreement of exits", "bound", "agreement", "exact", "early", "layers", "work"]
    return title + markdown([*columns, "broken", "plug-in"], rows)


def generator_decode_table(result: dict[str, Any]) -> str:
    """Targets, then tokens per second, early tokens, drafts and questions, as far as they were run."""
    summary, settings = result["summary"], result["settings"]
    title = (
        f"**How a generator with exits decodes, {settings['folder']}, point {settings['point']['name']}**: "
        f"{settings['prompts']} prompts of held-out reviews, {settings['new_tokens']} new tokens, greedy, "
        f"{settings['threads']} threads. ± are standard errors over prompts; what lies within one of its "
        "target is undecided.\n\n"
    )
    parts = [title + markdown(["target", ""], [list(line) for line in decode_verdicts(summary)])]
    if "speed" in summary:
        parts.append(
            "Tokens per second after the first, every mode on the same prompts in turn.\n\n" + _rates(summary)
        )
    if "direct" in summary:
        parts.append(_early(summary))
    if "spec" in summary or "fixed" in summary:
        parts.append(_drafts(summary))
    if "boolq" in summary:
        parts.append(_questions(summary["boolq"]))
    return "\n".join(parts)


def _rates(summary: dict[str, Any]) -> str:
    rows = []
    for precision, line in summary["speed"].items():
        for mode, at in line["tokens_per_s"].items():
            against = [
                f"{times(ratio)} {pair.split(' / ')[1]}"
                for pair, ratio in line["times_as_fast"].items()
                if pair.startswith(f"{mode} / ")
            ]
            weights = "Q4_1" if at["dtype"] == "gguf" else precision
            rate = f"{at['rate']:.1f}" + ("" if at["se"] is None else f" ± {at['se']:.1f}")
            same = "yes" if at["identical"] else "no"
            ms, passes = f"{at['first_token_ms']:.0f}", f"{at['weight_passes']:.2f}"
            rows.append([f"{mode}, {weights}", rate, ms, passes, same, ", ".join(against)])
        rows += [[f"{name} beside {precision}", "did not run", "", "", "", ""] for name in line["missing"]]
    return markdown(["", "tokens/s", "first token, ms", "weight passes", "identical to off", "against"], rows)


def _early(summary: dict[str, Any]) -> str:
    rows = []
    for mode, line in summary["direct"]["lines"].items():
        total = line["tokens"]
        named = " ".join(
            f"{layer}: {percent(count / total)} ({percent(line['wrong_after'].get(layer, 0) / count)})"
            for layer, count in line["named_after"].items()
        )
        places = " ".join(
            f"{part['first']}-{part['last']}: {percent(part['wrong'] / part['tokens'])}"
            for part in line["wrong_at"]
            if part["tokens"]
        )
        cells = [points(line[name]["mean"], line[name]["se"]) for name in ("passes_saved", "macs_saved")]
        rows.append(
            [mode, *cells, f"{line['mean_layers']:.1f}", percent(line["agreement"]),
             percent(line["same_text"]), named, places]
        )  # fmt: skip
    title = (
        "Early tokens, in float32: % of weight passes and of MACs saved per token; how many tokens full "
        "depth would have named, given the text so far; texts that are full depth's; % of tokens named "
        "after each layer, in brackets % of those that differ; and where in the text % of tokens differ. "
        "Only exact keys and values are certified.\n\n"
    )
    columns = [
        "",
        "passes saved",
        "MACs saved",
        "layers",
        "agreement",
        "same text",
        "named after",
        "differ at",
    ]
    return title + markdown(columns, rows)


def _drafts(summary: dict[str, Any]) -> str:
    rows = []
    for part in ("spec", "fixed"):
        if (line := summary.get(part)) is not None:
            name = (
                "as exits are sure" if part == "spec" else f"exit {line['layer']}, {line['most']} at a time"
            )
            rows.append(
                [name, percent(line["acceptance"]), f"{line['draft_length']:.1f}",
                 f"{line['weight_passes']:.2f}", f"{line['identical']} of {line['texts']}", f"{line['ties']}"]
            )  # fmt: skip
    title = (
        "Drafts that the other layers verify: by every exit that is sure, and by one exit a fixed number at "
        "a time (LayerSkip's way, with our heads; both chosen on tuning prompts).\n\n"
    )
    columns = ["drafts", "% kept", "draft length", "weight passes", "identical", "ties"]
    return title + markdown(columns, rows)


def _questions(found: dict[str, Any]) -> str:
    rows = [
        [
            name,
            percent(line["accuracy"]),
            percent(line["answered"]) if "answered" in line else "",
            f"{line['mean_layers']:.1f}" if "mean_layers" in line else "",
        ]
        for name, line in found["lines"].items()
    ]
    title = (
        f"Yes or no after passage and question, {found['rows']} of builtin:boolq, as the next token; the "
        f"Point changes accuracy by {signed(found['change'])} points.\n\n"
    )
    return title + markdown(["", "accuracy", "said yes or no", "layers"], rows)
