"""Were the targets of generators met: figures held against them. Needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verdicts import counted, points, verdict

TWICE = 2.0
"""Full depth in our loop against transformers, in the same type of weights."""

DRAFTED, AIM = 1.15, 1.5
"""Drafts that are verified against full depth, and what is aimed at."""

FEWER = 0.3
"""Share of weight passes (exact keys and values) and of MACs (propagated ones) that early tokens save."""

AGREEMENT = 0.95
CONFIDENCE = 0.9
TOKENS_PER_S = 70.0

FEW_BITS = ("int8-weights", "int4")
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
    few = {precision: line for precision, line in found.items() if precision in FEW_BITS}
    said, past = "not measured yet", "not measured yet"
    if few:
        precision, mode, rate, error = max(
            (
                (precision, mode, at["rate"], at["se"])
                for precision, line in few.items()
                for mode, at in line["tokens_per_s"].items()
                if mode in ("off", "spec", "direct exact")
            ),
            key=lambda each: each[2],
        )
        off = "" if error is None else f" ± {error:.1f}"
        said = f"{verdict(rate - TOKENS_PER_S, error)}, {rate:.1f}{off} ({mode}, {precision})"
        missing = few[precision]["missing"]
        ratios = few[precision]["times_as_fast"]
        ratio = ratios.get(f"{mode} / llama.cpp")
        if ratio is not None:
            past = f"{verdict(ratio['ratio'] - 1, ratio['se'])}, {times(ratio)} of it ({mode}, {precision})"
        elif "llama.cpp" in missing:
            past = "not measured: llama.cpp did not run"
    lines.append((f"With weights of few bits and exits at least {TOKENS_PER_S:g} tokens/s", said))
    lines.append(("Aiming past llama.cpp on the packaged file", past))
    return lines


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
    return [("Verified texts are token for token those of full depth", said)]


def early_verdicts(summary: dict[str, Any]) -> list[Verdict]:
    """What early tokens save at the certified Point."""
    found = summary.get("direct")
    certified, passes, macs = ("not measured yet",) * 3
    if found is not None:
        held = found["certified"]
        right = held is not None and found["loss"] == "disagreement"
        right = right and 1 - held["epsilon"] >= AGREEMENT and 1 - held["delta"] >= CONFIDENCE
        certified = f"{'met' if right else 'missed'}, point {found['point']}"
        passes, macs = (
            f"{verdict(cell['mean'] - FEWER, cell['se'])}, {points(cell['mean'], cell['se'])}% fewer"
            for cell in (
                found["lines"]["direct exact"]["passes_saved"],
                found["lines"]["direct propagate"]["macs_saved"],
            )
        )
    return [
        (
            f"{100 * AGREEMENT:g}% agreement is certified with {100 * CONFIDENCE:g}% confidence (C2)",
            certified,
        ),
        (f"Exact keys and values: at least {100 * FEWER:g}% fewer weight passes per token", passes),
        (f"Propagated ones: at least {100 * FEWER:g}% fewer MACs per token", macs),
    ]


def kept_promises(summary: dict[str, Any], delta: float, draws: int) -> Verdict:
    """Of generator_exits.py: at most delta of the draws may break a promise, for every run and loss.

    Where no draw let a token leave, nothing was promised, and nothing counts as kept. The error is that of a
    share of so many draws.
    """
    drawn = [
        point["draws"]
        for run in summary.values()
        for point in run["points"].values()
        if point["draws"] is not None
    ]
    shares = [each["violations"] for each in drawn if each["early"] > 0]
    said = "not measured yet"
    if shares:
        verdicts = [verdict(delta - share, (share * (1 - share) / draws) ** 0.5) for share in shares]
        said = f"{counted(verdicts)}, at most {100 * max(shares):.1f}%"
    if len(shares) < len(drawn):
        said += f"; nothing was promised in {len(drawn) - len(shares)}"
    return f"At most {100 * delta:g}% of draws break a promise", said
