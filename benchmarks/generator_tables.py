"""Tables of what generators with exits learn, promise, save and how fast they are."""

from __future__ import annotations

from typing import Any

from cells import markdown, outcomes, percent, section, signed
from generator_verdicts import LOSSES, decode_verdicts, kept_promises, times
from verdicts import points

CHANCE = 0.55
"""Balanced accuracy of yes and no up to which a model is said to answer by chance."""


def generator_exits_table(result: dict[str, Any]) -> str:
    """What each kind of head learned, and what is certified of it."""
    rows, settings = [], result["settings"]
    for name, run in result["summary"].items():
        exits = " ".join(f"{layer}: {percent(value)}" for layer, value in run["exits"].items())
        learned = run.get("training")
        name += f", {learned['steps']:,} steps, {learned['tokens'] / 1e6:.1f}M tokens" if learned else ""
        for loss, point in run["points"].items():
            drawn = point["draws"]
            rows.append(
                [
                    f"{name}, {LOSSES[loss]}",
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
    columns = ["", "agreement of exits", "bound", "agreement", "exact", "early", "layers", "work"]
    return section(
        f"Exits that learn a generator's own next tokens, {settings['model']}",
        "From film reviews, without labels, in so many minutes; then the step certified with "
        f"{100 * (1 - settings['delta']):g}% confidence, on test prompts, in %. The longest runs are of the "
        "kind and the places that cost least at the bound on tuning prompts so far.",
        outcomes([(target, said)]),
        markdown([*columns, "broken", "plug-in"], rows),
        notes={
            "agreement of exits": "on tuning text, how often each exit names the full model's token.",
            "agreement, exact, early": "of all tokens; texts whose first 32 are the model's; tokens that "
            "leave early.",
            "layers, work": "before a token is named; of full depth's, heads included, if what is skipped is "
            "never computed.",
            "broken, plug-in": f"in how many of {settings['draws']:,} draws the bound was, by the certified "
            "rule and by the literature's.",
        },
    )


def generator_decode_table(result: dict[str, Any]) -> str:
    """Targets, then tokens per second, early tokens, drafts and questions, as far as they were run."""
    summary, settings = result["summary"], result["settings"]
    point = settings["point"]["name"] if settings["point"] else "none (nothing certified)"
    parts = [
        section(
            "How a generator with exits decodes",
            f"{settings['folder']}, point {point}: {settings['prompts']} prompts of held-out reviews, "
            f"{settings['new_tokens']} new tokens, greedy, {settings['threads']} threads; fewer prompts were "
            "timed. ± are standard errors over prompts; what lies within one of its target is undecided.",
            outcomes(decode_verdicts(summary)),
        )
    ]
    if "speed" in summary:
        parts.append(
            section(
                "Tokens per second",
                "After the first, every mode on the same prompts in turn, as many as there was time for.",
                _rates(summary),
                notes={
                    "whole text": "an early first token leaves upper layers of the prompt to the tokens "
                    "after it.",
                    "agreement": "with full depth of the same weights.",
                },
            )
        )
    if summary.get("direct", {}).get("lines"):
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
            same = "" if mode == "off" else "yes" if at["identical"] else "no"
            ms, whole = f"{at['first_token_ms']:.0f}", f"{at['total_ms']:.0f}"
            agrees = "" if at["agreement"] is None else points(at["agreement"]["mean"], at["agreement"]["se"])
            passes = f"{at['weight_passes']:.2f}"
            timed, said = str(at["runs"]), ", ".join(against)
            rows.append([f"{mode}, {weights}", timed, rate, ms, whole, passes, same, agrees, said])
        rows += [[f"{name} beside {precision}", "", "did not run", *[""] * 6] for name in line["missing"]]
    columns = ["", "prompts", "tokens/s", "first token, ms", "whole text, ms", "layer passes"]
    return markdown([*columns, "identical to off", "agreement", "against"], rows)


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
        names = ("weights_saved", "passes_saved", "macs_saved")
        cells = [points(line[name]["mean"], line[name]["se"]) for name in names]
        rows.append(
            [mode, *cells, f"{line['mean_layers']:.1f}", percent(line["agreement"]),
             percent(line["same_text"]), named, places]
        )  # fmt: skip
    columns = [
        "",
        "weights saved",
        "of layers alone",
        "MACs saved",
        "layers",
        "agreement",
        "same text",
        "named after",
        "differ at",
    ]
    return section(
        "Early tokens",
        "In float32, in %. Only exact keys and values are certified.",
        markdown(columns, rows),
        notes={
            "weights saved": "of those read per token, exits and language head included.",
            "agreement": "tokens full depth would have named, given the text so far.",
            "same text": "texts that are full depth's.",
            "named after": "each layer, in brackets how many of those differ.",
            "differ at": "so many of the tokens at these places in the text.",
        },
    )


def _drafts(summary: dict[str, Any]) -> str:
    rows = []
    for part in ("spec", "fixed"):
        if (line := summary.get(part)) is not None:
            asked = [line["layer"]] if part == "fixed" else line["rule"].get("thresholds", ())
            exits = " ".join(str(layer) for layer in asked) or "all"
            sure = f"as exits ({exits}) are sure, at most {line['most']}"
            name = sure if part == "spec" else f"exit {exits}, {line['most']} at a time"
            gap = f" (up to {max(line['gaps']):.1g})" if line["gaps"] else ""
            saved = [
                points(line[each]["mean"], line[each]["se"]) for each in ("weights_saved", "passes_saved")
            ]
            foretold = "" if line.get("foretold") is None else percent(line["foretold"])
            rows.append(
                [name, percent(line["acceptance"]), f"{line['draft_length']:.1f}", *saved,
                 f"{line['identical']} of {line['texts']}", f"{line['ties']}{gap}", foretold]
            )  # fmt: skip
    columns = [
        "drafts",
        "% kept",
        "draft length",
        "weights saved",
        "of layers alone",
        "identical",
        "ties",
        "foretold",
    ]
    return section(
        "Drafts that the other layers verify",
        "By every exit that is sure, and by one exit a fixed number at a time (LayerSkip's way, with our "
        "heads).",
        markdown(columns, rows),
        notes={
            "drafts": "ours are those `lessen compress` chose from traces of tuning prompts; the other exit "
            "and number are the best, of these heads', on 20 of these prompts.",
            "weights saved": "% of those read per token, exits and language head included.",
            "ties": "in brackets how far apart logits were, of the largest, where a text is another.",
            "foretold": "what the traces said of the weights saved.",
        },
    )


def _questions(found: dict[str, Any]) -> str:
    rows = [
        [
            name,
            percent(line["accuracy"]),
            *(
                percent(line[each]) if each in line else ""
                for each in ("balanced", "unanswered", "agreement")
            ),
            f"{line['mean_layers']:.1f}" if "mean_layers" in line else "",
        ]
        for name, line in found["lines"].items()
    ]
    change = "No token leaves early."
    if found["change"] is not None:
        change = (
            f"The Point changes accuracy by {signed(found['change'])} points. {_knows_nothing(found)}".strip()
        )
    return section(
        "Yes or no, builtin:boolq",
        f"{found['rows']} passages and questions, asked {found['wording']} (chosen at full depth on other "
        f"rows): whichever is likelier where the token leaves. {change}",
        markdown(["", "accuracy", "balanced", "not answered", "agreement", "layers"], rows),
        notes={
            "balanced": "the mean over rows of yes and of no.",
            "not answered": "how often another token is the likeliest.",
            "agreement": "with full depth.",
        },
    )


def _knows_nothing(found: dict[str, Any]) -> str:
    """What such a change is worth where full depth answers no better than chance."""
    whole = found["lines"]["off"]
    if whole["balanced"] > CHANCE:
        return ""
    return (
        f"Full depth's balanced accuracy is {percent(whole['balanced'])}%, and a coin's is 50: "
        "of such a model the change says nothing. What counts here is agreement, on other prompts than "
        "those certified."
    )
