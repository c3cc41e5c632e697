"""Were the targets of generators met: figures held against them. Needs the standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from verdicts import counted, points, verdict

TWICE = 2.0
"""Full depth in our loop against transformers, in the same type of weights."""

DRAFTED, AIM = 1.15, 1.5
"""Drafts that are verified against full depth, and what is aimed at."""

FEWER = 0.3
"""Share of weight passes (exact keys and values) and of MACs (propagated ones) that early tokens save."""

LOSSES = {
    "disagreement": "C2: wrong early tokens",
    "selective": "C3: wrong among early",
    "block": "C1: block differs",
}
"""What promises are about, as tables call it (self-supervised exits page, 6)."""

AGREEMENT = 0.95
CONFIDENCE = 0.9
TOKENS_PER_S = 70.0

FEW_BITS: tuple[Literal["int8-weights", "int4"], ...] = ("int8-weights", "int4")
"""Precisions that runtimes of GGUF files are held against."""


Verdict = tuple[str, str]
"""A target in words, and whether it was met, with the figure."""


def decode_verdicts(summary: dict[str, Any]) -> list[Verdict]:
    """Of generator_decode.py: every target of decoding, those of parts that have not been run included."""
    return [*speed_verdicts(summary.get("speed", {})), *draft_verdicts(summary), *early_verdicts(summary)]


def speed_verdicts(found: dict[str, Any]) -> list[Verdict]:
    """Full depth against transformers, drafts against full depth, and tokens per second with few bits."""
    lines = []
    for precision in ("float32", "bfloat16"):
        said = ratio_verdict(found.get(precision), "off / transformers", TWICE)
        lines.append((f"Full depth is at least {TWICE:g}x transformers in {precision}", said))
    ratio = found.get("float32", {}).get("times_as_fast", {}).get("spec / off")
    said = ratio_verdict(found.get("float32"), "spec / off", DRAFTED)
    if ratio is not None:
        said += f"; aiming at {AIM:g}x: {verdict(ratio['ratio'] - AIM, ratio['se'])}"
    lines.append((f"Drafts are at least {DRAFTED:g}x full depth in float32", said))
    return [*lines, *few_bit_verdicts({each: line for each, line in found.items() if each in FEW_BITS})]


WAYS = {"off": "full depth, no exits", "spec": "drafts, verified", "direct exact": "early tokens"}
"""Ways to decode with few bits, each of which is judged for itself: only early tokens are another text."""


def few_bit_verdicts(few: dict[str, Any]) -> list[Verdict]:
    """Of each way to decode, in its fastest precision: tokens per second, and against llama.cpp beside it."""
    lines: list[Verdict] = []
    against: list[str] = []
    for mode, name in WAYS.items():
        rates = [
            (line["tokens_per_s"][mode]["rate"], precision)
            for precision, line in few.items()
            if mode in line["tokens_per_s"]
        ]
        said = "not measured yet"
        if rates:
            _, precision = max(rates)
            at, line = few[precision]["tokens_per_s"][mode], few[precision]
            off = "" if at["se"] is None else f" ± {at['se']:.1f}"
            said = f"{verdict(at['rate'] - TOKENS_PER_S, at['se'])}, {at['rate']:.1f}{off} ({precision})"
            if mode == "direct exact":
                agrees = at.get("agreement")
                its = "not measured" if agrees is None else f"{points(agrees['mean'], agrees['se'])}%"
                said += f"; agreement with the same weights at full depth {its}, not certified"
            ratio = line["times_as_fast"].get(f"{mode} / llama.cpp")
            if ratio is not None:
                past = verdict(ratio["ratio"] - 1, ratio["se"])
                against.append(f"{name}: {past}, {times(ratio)} of it ({precision})")
        lines.append((f"With weights of few bits at least {TOKENS_PER_S:g} tokens/s: {name}", said))
    past = "; ".join(against)
    if not past:
        ran = any("llama.cpp" in line["missing"] for line in few.values())
        past = "not measured: llama.cpp did not run" if ran else "not measured yet"
    return [*lines, ("Aiming past llama.cpp on the packaged file", past)]


def ratio_verdict(line: dict[str, Any] | None, pair: str, target: float) -> str:
    """Of a ratio of speeds."""
    ratio = (line or {}).get("times_as_fast", {}).get(pair)
    return (
        "not measured yet"
        if ratio is None
        else f"{verdict(ratio['ratio'] - target, ratio['se'])}, {times(ratio)}"
    )


def times(ratio: Mapping[str, float | None]) -> str:
    """`1.23 ± 0.02x`."""
    return f"{ratio['ratio']:.2f}" + ("" if ratio["se"] is None else f" ± {ratio['se']:.2f}") + "x"


def draft_verdicts(summary: dict[str, Any]) -> list[Verdict]:
    """Whether verified texts are those of full depth: a count, of which nothing is uncertain but ties."""
    found = summary.get("spec")
    said = "not measured yet"
    if found is not None:
        other = found["texts"] - found["identical"] - found["ties"]
        said = "met" if not other else f"missed by {other}"
        said += f", {found['identical']:,} of {found['texts']:,}, and {found['ties']} that part at a tie"
        if found["gaps"]:
            said += f" (logits apart by up to {max(found['gaps']):.1g} of the largest)"
    return [("Verified texts are token for token those of full depth", said)]


def early_verdicts(summary: dict[str, Any]) -> list[Verdict]:
    """What early tokens save at the certified Point: passes of layers, and weights read in all."""
    found = summary.get("direct")
    certified, passes, weights, macs = ("not measured yet",) * 4
    if found is not None and not found["lines"]:
        certified, passes, weights, macs = ("missed: nothing certified",) * 4
    elif found is not None:
        held = found["certified"]
        right = held is not None and found["loss"] == "disagreement"
        right = right and 1 - held["epsilon"] >= AGREEMENT and 1 - held["delta"] >= CONFIDENCE
        certified = f"{'met' if right else 'missed'}, point {found['point']}"
        exact, propagated = (found["lines"][f"direct {kv}"] for kv in ("exact", "propagate"))
        passes, weights, macs = (
            f"{verdict(cell['mean'] - FEWER, cell['se'])}, {points(cell['mean'], cell['se'])}% fewer"
            for cell in (exact["passes_saved"], exact["weights_saved"], propagated["macs_saved"])
        )
    few = f"at least {100 * FEWER:g}% fewer"
    return [
        (
            f"{100 * AGREEMENT:g}% agreement is certified with {100 * CONFIDENCE:g}% confidence (C2)",
            certified,
        ),
        (f"Exact keys and values: {few} weight passes per token, which are of layers alone", passes),
        ("The same of all weights read per token, exits and language head included", weights),
        (f"Propagated ones: {few} MACs per token", macs),
    ]


def kept_promises(summary: dict[str, Any], delta: float, draws: int) -> Verdict:
    """Of generator_exits.py: at most delta of the draws may break a promise, for every run and loss.

    Where no draw let a token leave, nothing was promised, and nothing counts as kept. The error is that of a
    share of so many draws.
    """
    drawn = [
        (loss, point["draws"])
        for run in summary.values()
        for loss, point in run["points"].items()
        if point["draws"] is not None
    ]
    shares = [each["violations"] for _, each in drawn if each["early"] > 0]
    said = "not measured yet"
    if shares:
        verdicts = [verdict(delta - share, (share * (1 - share) / draws) ** 0.5) for share in shares]
        said = f"{counted(verdicts)}, at most {100 * max(shares):.1f}%"
    if nothing := Counter(LOSSES[loss] for loss, each in drawn if each["early"] == 0):
        said += "; nothing was promised in " + ", ".join(
            f"{count} ({loss})" for loss, count in nothing.items()
        )
    return f"At most {100 * delta:g}% of draws break a promise", said
