"""Write verdicts down: Points for `config.json`, and the certificate they refer to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lessen.artefact import write_json
from lessen.certificate import (
    FILE,
    Certificate,
    CertifiedPoint,
    Generation,
    digests_of,
    keys_of,
    path_digest,
)
from lessen.certificate import write_certificate as write_down
from lessen.errors import ArtefactError
from lessen.machine import versions
from lessen.plan import Point, Precision, Promise
from lessen.promise.outputs import Outputs
from lessen.promise.traces import Traces
from lessen.promise.verdict import Loss, Rule, Verdict

CALIBRATIONS = "calibrations.json"

SAMPLE = 64
"""Rows noted of each calibration."""

RULE_NAMES: dict[Rule, str] = {
    "certified": "fixed-sequence",
    "expectation": "conformal risk control",
    "plug-in": "plug-in",
}


@dataclass(frozen=True)
class Basis:
    """What a set of verdicts rests on.

    Attributes:
        outputs: On the calibration rows, or traces of the calibration prompts.
        dropped: Rows left out because they had been seen.
        path: Frozen before.
        loss: What was bounded.
        rule: How steps were chosen.
        delta: Of all verdicts together.
        reference: `full depth`, or the name of another model.
        reference_weights: Hash of the other model.
        score: What a drop is a drop of.
        precision: Of the weights.
        label_range: Regression: spread of the training labels.
        attempt: 1 for the first calibration of this model on these rows.
        generation: Of a generator: what is counted, and how it decodes.
    """

    outputs: Outputs | Traces
    dropped: int
    path: tuple[Point, ...]
    loss: Loss
    rule: Rule
    delta: float
    reference: str
    reference_weights: str | None
    score: str
    precision: Precision
    label_range: float = 1.0
    attempt: int = 1
    generation: Generation | None = None


def point_name(verdict: Verdict, loss: Loss, rule: Rule) -> str:
    """`drop-1%`, `disagreement-1%`, ...; with the rule before it where that does not certify."""
    name = f"{loss}-{100 * verdict.epsilon:g}%"
    return name if rule == "certified" else f"{rule}-{name}"


def certifies(basis: Basis, verdicts: Sequence[Verdict]) -> bool:
    """Whether anything was certified."""
    return basis.rule == "certified" and any(verdict.chosen.step is not None for verdict in verdicts)


def points_of(basis: Basis, verdicts: Sequence[Verdict], certificate: Certificate | None) -> list[Point]:
    """One Point for each verdict that allows a step; certified where there is a certificate."""
    points = []
    for verdict in verdicts:
        if verdict.chosen.step is None:
            continue
        promise = Promise(
            kind="uncertified" if certificate is None else "certified",
            rule=RULE_NAMES[basis.rule],
            loss=basis.loss,
            epsilon=verdict.epsilon,
            delta=None if certificate is None else verdict.delta,
            certificate=None if certificate is None else certificate.identity,
        )
        step = basis.path[verdict.chosen.step]
        name = point_name(verdict, basis.loss, basis.rule)
        points.append(step.model_copy(update={"name": name, "promise": promise}))
    return points


def count_attempt(folder: Path, outputs: Outputs | Traces, asked: dict[str, Any]) -> int:
    """Note a calibration in `calibrations.json`; how many there have been on some of these rows, with it.

    Of the rows those with the smallest hashes are noted: sets that share many rows share some of these.

    Args:
        folder: Of the model.
        outputs: On the calibration rows.
        asked: What was to be promised.
    """
    place = folder / CALIBRATIONS
    earlier = []
    if place.exists():
        try:
            earlier = json.loads(place.read_text(encoding="utf-8"))["calibrations"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"{place}: cannot be read ({error}); delete it") from None
    sample = sorted(outputs.keys)[:SAMPLE]
    date = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(place, {"calibrations": [*earlier, {"date": date, "rows": sample, "asked": asked}]})
    before = sum(bool(set(sample) & set(one.get("rows", ()))) for one in earlier)
    if not before:
        before = int(bool(keys_of(folder) & set(outputs.keys)))
    return 1 + before


def write_certificate(folder: Path, basis: Basis, verdicts: Sequence[Verdict]) -> Certificate | None:
    """Write `certificate.json` into a folder that holds the weights; None if nothing was certified.

    An older certificate is removed in that case: it spoke of Points that are about to be replaced.
    """
    points = [
        CertifiedPoint(
            name=point_name(verdict, basis.loss, basis.rule),
            epsilon=verdict.epsilon,
            delta=verdict.delta,
            step=verdict.chosen.step,
            risk=float(verdict.chosen.risks[verdict.chosen.step]),
            pvalue=verdict.chosen.pvalues[verdict.chosen.step],
            mean_layers=verdict.mean_layers,
            early=verdict.early,
            pvalues=() if basis.generation is None else verdict.chosen.pvalues,
        )
        for verdict in verdicts
        if basis.rule == "certified" and verdict.chosen.step is not None
    ]
    if not points:
        (folder / FILE).unlink(missing_ok=True)
        return None
    digests = digests_of(folder)
    certificate = Certificate(
        loss=basis.loss,
        score=basis.score,
        label_range=basis.label_range,
        reference=basis.reference,
        reference_weights=basis.reference_weights,
        delta=basis.delta,
        attempt=basis.attempt,
        rows=len(basis.outputs),
        dropped=basis.dropped,
        keys=basis.outputs.keys,
        path=basis.path,
        path_digest=path_digest(basis.path),
        points=tuple(points),
        test=verdicts[0].chosen.test,
        answers=basis.outputs.digest,
        weights=digests["weights"],
        tokenizer=digests["tokenizer"],
        form=digests["form"],
        precision=basis.precision,
        backend="torch cpu",
        versions=versions(),
        generation=basis.generation,
    )
    write_down(folder, certificate)
    return certificate
