"""Write down what a calibration found: Points, path and certificate, whoever's answers were tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from lessen.artefact import CONFIG, read_config, write_json
from lessen.certificate import Certificate, check_promises, is_certified
from lessen.errors import InputError, LessenError
from lessen.plan import FULL, Expectation, Point
from lessen.promise.record import Basis, certifies, point_name, points_of, write_certificate
from lessen.promise.verdict import Loss, Rule, Verdict
from lessen.records import Strict
from lessen.runtime.dial import work_of

FEWEST_ROWS = 20

STRIDE = 0.98
"""The path kept for the dial has a step wherever the work falls by this factor."""


class Asked(Strict):
    """What is to be promised.

    Attributes:
        bounds: Losses allowed, certified together; the first is the default Point's.
        confidence: That all statements are right, over the draw of the calibration rows.
        loss: What is bounded.
        rule: How the step of the path is chosen.
    """

    bounds: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (0.01,)
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    loss: Loss = "drop"
    rule: Rule = "certified"

    @model_validator(mode="after")
    def _no_bound_twice(self) -> Asked:
        if len({f"{bound:.6g}" for bound in self.bounds}) < len(self.bounds):
            raise ValueError("the same bound is given twice")
        if self.rule == "expectation" and self.loss == "selective":
            raise ValueError("a selective loss is not monotone, which the expectation rule needs")
        return self

    @property
    def delta(self) -> float:
        """Probability that any of the statements is wrong."""
        return round(1 - self.confidence, 12)


@dataclass(frozen=True)
class Calibration:
    """The outcome.

    Attributes:
        asked: What was to be promised.
        basis: Rows, path and rules.
        verdicts: One for each bound.
        points: Those that could be made.
        certificate: None if nothing was certified.
        reasons: By bound that could not be kept: why.
        earlier: Whether a certificate of before stays, because nothing was certified now.
        dearer: In a line, why the first Point is not the model's own though it could be made.
        weak: In a line, that full depth, which is what is kept, is not worth keeping.
    """

    asked: Asked
    basis: Basis
    verdicts: list[Verdict]
    points: list[Point]
    certificate: Certificate | None
    reasons: dict[float, str]
    earlier: bool = False
    dearer: str | None = None
    weak: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "certified": self.certificate is not None and self.verdicts[0].chosen.step is not None,
            "epsilon": self.asked.bounds[0],
            "delta": self.asked.delta,
            "n": len(self.basis.outputs),
            "dropped": self.basis.dropped,
            "loss": self.asked.loss,
            "rule": self.asked.rule,
            "reference": self.basis.reference,
            "attempt": self.basis.attempt,
            "points": [
                {
                    "name": point_name(verdict, self.asked.loss, self.asked.rule),
                    "epsilon": verdict.epsilon,
                    "delta": verdict.delta,
                    "step": verdict.chosen.step,
                    "risk": float(verdict.chosen.risks[verdict.chosen.step]),
                    "pvalue": verdict.chosen.pvalues[verdict.chosen.step] if verdict.chosen.pvalues else None,
                    "mean_layers": verdict.mean_layers,
                    "early": verdict.early,
                    # A generator's saving is of layers never computed, which an exact cache does later.
                    "macs_ratio" if self.basis.generation is None else "no_cache_ratio": verdict.saving,
                }
                for verdict in self.verdicts
                if verdict.chosen.step is not None
            ],
            "reasons": {f"{100 * bound:g}%": why for bound, why in self.reasons.items()},
            "earlier": self.earlier,
            "dearer": self.dearer,
            "weak": self.weak,
        }


def check_enough(found: int, dropped: int, unit: str) -> None:
    """Refuse to calibrate on fewer rows or prompts than can tell anything.

    Args:
        found: How many there are.
        dropped: How many were left out because they had been seen.
        unit: What they are called.

    Raises:
        InputError: With both numbers.
    """
    if found < FEWEST_ROWS:
        raise InputError(
            f"{found} calibration {unit} are left ({dropped} had been seen); give at least {FEWEST_ROWS}"
        )


def settle(
    folder: Path,
    model: Any,
    asked: Asked,
    basis: Basis,
    verdicts: list[Verdict],
    reasons: dict[float, str],
    expected: Callable[[Point, bool], Expectation],
    dearer: str | None = None,
) -> Calibration:
    """Record the Points that verdicts allow with a model whose weights lie in `folder`.

    Writes `certificate.json` and the Points into `config.json`. Killed in between, the model answers at full
    depth, as it does where the first bound cannot be kept. Where nothing can be certified, a certificate of
    before stays with its Points, and the model goes on answering as it did.

    Args:
        folder: Holds `model.safetensors` and `config.json`.
        model: Loaded from there, or saved there.
        asked: What was to be promised.
        basis: What the verdicts rest on.
        verdicts: One for each bound.
        reasons: By bound that could not be kept: why.
        expected: What a Point did, on the tuning rows if told so, else on the calibration rows.
        dearer: In a line, why the model is not to answer at the first Point; None: it is.
    """
    standing = [] if certifies(basis, verdicts) else standing_points(folder, model)
    if not standing:
        model.config.points, model.config.path, model.config.point = [], [], FULL.name
        write_choices(folder, model.config)
    certificate = None if standing else write_certificate(folder, basis, verdicts)
    points = [
        point.model_copy(update={"expected": expected(point, False)})
        for point in points_of(basis, verdicts, certificate)
    ]
    model.config.points = plain([*standing, *points])
    if not standing:
        steps = [step.model_copy(update={"expected": expected(step, True)}) for step in basis.path]
        model.config.path = plain(thinned(steps))
        first_kept = bool(points) and verdicts[0].chosen.step is not None and dearer is None
        model.config.point = points[0].name if first_kept else FULL.name
    if model.config.point not in model.config.choices():
        model.config.point = FULL.name
    write_choices(folder, model.config)
    if certificate is not None:
        model.honour_certificate()
    model.use(model.config.point)
    return Calibration(asked, basis, verdicts, points, certificate, reasons, bool(standing), dearer)


def write_choices(folder: Path, config: Any) -> None:
    """Points, path and drafts into the folder's config; what it says of weights stays as it was."""
    fields = ("points", "path", "point", *(["drafts"] if config.drafts is not None else []))
    before = {key: value for key, value in read_config(folder).items() if key != "drafts"}
    write_json(folder / CONFIG, before | {field: getattr(config, field) for field in fields})


def standing_points(folder: Path, model: Any) -> list[Point]:
    """The certified Points of a folder, if its certificate is about it."""
    points = [point for point in model.config.choices().values() if is_certified(point)]
    try:
        check_promises(folder, points)
    except LessenError:
        return []
    return points


def plain(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Points as `config.json` has them."""
    return [point.model_dump(mode="json", exclude_none=True) for point in points]


def thinned(steps: Sequence[Point]) -> list[Point]:
    """The steps that take noticeably less work than the one before."""
    kept: list[Point] = []
    for step in steps:
        if not kept or work_of(step) < STRIDE * work_of(kept[-1]):
            kept.append(step)
    return kept
