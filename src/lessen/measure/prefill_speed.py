"""What it saves to read less of a prompt: time to the first token and to the last, at speed-ups of reading.

Prompts are continued by all candidates in turn, as in `generation_speed.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from lessen.measure.generation_speed import Candidate, Run, compare, ours
from lessen.plan import Point
from lessen.runtime.decoding import Decoding
from lessen.runtime.latency_model import Fit, predicted_ms
from lessen.runtime.retention import ratio_at

WHOLE = "1"
"""The speed-up at which all is read: what others are compared with."""


@dataclass(frozen=True)
class ReadingRow:
    """One model at one speed-up, on some prompts.

    Attributes:
        kind: What the model is called in tables; a rival's name.
        speedup: Dialled; None for rivals, which read all.
        macs_ratio: MACs of reading these prompts whole over those at this speed-up, naming tokens apart.
        first_token_ms: Median time to the first token.
        total_ms: Median time to the last.
        predicted_ms: To the first token, as fitted on this machine; None where nothing was.
        same: Share of the written tokens that are those written after the whole prompt, up to the first that
            is not.
        runs: Prompts timed.
    """

    kind: str
    speedup: float | None
    macs_ratio: float | None
    first_token_ms: float
    total_ms: float
    predicted_ms: float | None
    same: float | None
    runs: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in vars(self).items()}


def reading_rows(
    model: Any,
    points: Mapping[float, Point],
    prompts: Sequence[Sequence[int]],
    *,
    kind: str,
    new_tokens: int,
    seconds: float,
    rivals: Mapping[str, Candidate] | None = None,
    fit: Fit | None = None,
    seed: int = 0,
) -> list[ReadingRow]:
    """Time a generator at speed-ups of reading, beside others that read all.

    Args:
        model: A `LessenGenerator`.
        points: Of each speed-up.
        prompts: Token ids.
        kind: What to call it.
        new_tokens: Written after each prompt, at least 2.
        seconds: After so many no further prompt is begun.
        rivals: Other candidates, by name.
        fit: Latencies of prompts alone in their batch, fitted for these threads and this precision.
        seed: Of the order of candidates.

    Raises:
        InputError: When there is nothing to time.
    """
    own = {f"{speedup:g}": ours(model, Decoding(prompts=point)) for speedup, point in points.items()}
    candidates = {WHOLE: ours(model), **own, **(rivals or {})}
    runs = compare(candidates, prompts, new_tokens=new_tokens, seconds=seconds, seed=seed)
    timed = prompts[: len(runs[WHOLE])]
    lines = []
    for speedup, point in points.items():
        found = runs[f"{speedup:g}"]
        lengths = [len(prompt) for prompt in timed]
        lines.append(
            ReadingRow(
                kind=kind,
                speedup=speedup,
                macs_ratio=ratio_at(model.transformer, point, lengths),
                first_token_ms=1e3 * median(run.seconds[0] for run in found),
                total_ms=1e3 * median(run.seconds[-1] for run in found),
                predicted_ms=None if fit is None else predicted_ms(model.transformer, fit, lengths, point),
                same=_same(found, runs[WHOLE]),
                runs=len(found),
            )
        )
    for name in rivals or {}:
        found = runs[name]
        first, last = (1e3 * median(run.seconds[place] for run in found) for place in (0, -1))
        lines.append(ReadingRow(name, None, None, first, last, None, _same(found, runs[WHOLE]), len(found)))
    return lines


def _same(found: Sequence[Run], whole: Sequence[Run]) -> float:
    shares = []
    for run, other in zip(found, whole, strict=True):
        differ = [a != b for a, b in zip(run.tokens, other.tokens, strict=True)]
        shares.append((differ.index(True) if any(differ) else len(differ)) / len(differ))
    return sum(shares) / len(shares)
