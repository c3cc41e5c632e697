"""Does a certificate still stand on newer rows? Losses are kept with the model, so that evidence adds up.

Rows may come in any number of audits, labelled or not: what is said holds at any time (`guarantee.monitor`).
An unlabelled row cannot show a drop, but its answer can only have lost what it differs by from the
reference's: such rows can confirm a certificate and not break it. Their labels may come later. A text counts
once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lessen.artefact import AUDITED, write_bytes
from lessen.certificate import Certificate, one_digest, read_certificate
from lessen.data.splits import without_repeats
from lessen.data.table import Table, row_key
from lessen.errors import ArtefactError, InputError
from lessen.guarantee.monitor import Verdict, alarm, bounds
from lessen.kept import pack_keys, unpack_keys
from lessen.loading import load
from lessen.promise.calibrate import losses_of
from lessen.promise.outputs import Outputs, Task, outputs_of, settings_of, task_of
from lessen.promise.rows import classifier_of, fitting, kept_in, reference_of

LOSS_NAMES = {
    "drop": "drop",
    "disagreement": "share of answers that differ",
    "selective": "share of early answers that differ",
}

OF_TOKENS = {
    "disagreement": "share of tokens that leave early and are not the full model's own",
    "selective": "loss of early tokens (the bound plus wrong ones less the bound times all of them)",
    "block": "share of continuations of which a block is not the full model's own",
}
"""The same of generators."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Audited:
    """Losses of every row audited so far.

    Attributes:
        certificate: Identity of the certificate they are about.
        keys: Hashes of the rows' texts.
        labelled: Whether the loss is exact, `[rows]`, bool; else it is at most what stands here.
        losses: Of each certified Point, `[rows, points]`; NaN where a row does not count.
    """

    certificate: str
    keys: tuple[str, ...]
    labelled: NDArray[np.bool_]
    losses: Array

    def save(self, path: Path) -> None:
        """Write beside, and rename."""
        tensors = {
            "keys": pack_keys(self.keys),
            "labelled": torch.from_numpy(self.labelled),
            "losses": torch.from_numpy(self.losses).float().contiguous(),
        }
        write_bytes(path, save(tensors, metadata={"certificate": self.certificate}))

    @classmethod
    def load(cls, path: Path, certificate: Certificate) -> Audited:
        """The inverse of `save`; empty if there is none, or if it is about another certificate.

        Raises:
            ArtefactError: When the file is damaged.
        """
        width = len(certificate.points)
        empty = cls(certificate.identity, (), np.zeros(0, bool), np.zeros((0, width)))
        if not path.exists():
            return empty
        try:
            with safe_open(path, "pt") as file:
                if file.metadata()["certificate"] != certificate.identity:
                    return empty
                keys = unpack_keys(file.get_tensor("keys"))
                labelled, losses = file.get_tensor("labelled").numpy(), file.get_tensor("losses")
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ArtefactError(f"{path}: cannot be read ({error}); delete it to start anew") from None
        return cls(certificate.identity, keys, labelled, losses.double().numpy())


@dataclass(frozen=True)
class Finding:
    """What an audit says about one certified Point.

    Attributes:
        name: Of the Point.
        epsilon: The bound.
        verdict: `broken`: some stretch of the rows lost more than the bound. `stands`: on average over all
            of them at most the bound was lost, and nothing hints at a stretch that lost more.
        loss: Mean over the rows whose loss is exact; None without such.
        lower: The mean expected loss of those is at least this; None without such.
        upper: That of all rows is at most this; None without rows that count.
    """

    name: str
    epsilon: float
    verdict: Verdict
    loss: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Audit:
    """The outcome.

    Attributes:
        certificate: What was audited.
        rows: Audited so far.
        labelled: Of those, rows whose loss is exact.
        new: Rows of this audit that said something new.
        dropped: Rows left out: repeated, or seen before.
        findings: One for each certified Point.
    """

    certificate: Certificate
    rows: int
    labelled: int
    new: int
    dropped: int
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """Of all Points together: `broken` if one is, `stands` if all do."""
        found = {finding.verdict for finding in self.findings}
        return "broken" if "broken" in found else "undecided" if "undecided" in found else "stands"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdict": self.verdict,
            "certificate": self.certificate.identity,
            "confidence": round(1 - self.certificate.delta, 12),
            "rows": self.rows,
            "labelled": self.labelled,
            "new": self.new,
            "dropped": self.dropped,
            "points": [asdict(finding) for finding in self.findings],
        }


def audit_folder(folder: Path, table: Table, reference: str | None = None) -> Audit:
    """Run the model over newer rows and say whether its certificate still stands.

    Args:
        folder: Of a model with a certificate; the losses are added to its `audit.safetensors`.
        table: Newer rows in the order they came, labelled or not.
        reference: The model the certificate measures against, if that is not its own full depth.

    Raises:
        InputError: When there is nothing to audit, or the rows or the reference do not fit.
        ArtefactError: When the certificate is about something else.
    """
    certificate = read_certificate(folder)
    if certificate is None:
        raise InputError(f"{folder} has no certificate to audit; calibrate it first")
    given = len(table)
    model = classifier_of(load(folder, precision=certificate.precision), folder)
    other = _same_reference(certificate, reference, model)
    kept = kept_in(folder)
    table = without_repeats(fitting(table, model, folder, kept))
    before = Audited.load(folder / AUDITED, certificate)
    seen = set(certificate.keys) | (kept.seen | set(kept.tune.keys) if kept else set())
    known = dict(zip(before.keys, before.labelled.tolist(), strict=True))
    if certificate.score == "agreement":
        table = replace(table, labels=None)
    exact = is_exact(certificate, labelled=table.labels is not None)
    new = [
        row
        for row, text in enumerate(table.texts)
        if (key := row_key(text)) not in seen and (key not in known or (exact and not known[key]))
    ]
    now = before
    if new:
        settings = settings_of(certificate.path[point.step] for point in certificate.points)
        answers = outputs_of(model, table.take(new), other, settings)
        now = extended(before, answers, task_of(model, certificate.label_range), certificate)
        now.save(folder / AUDITED)
    return Audit(
        certificate=certificate,
        rows=len(now.keys),
        labelled=int(now.labelled.sum()),
        new=len(new),
        dropped=given - len(new),
        findings=findings_of(now, certificate),
    )


def is_exact(certificate: Certificate, *, labelled: bool) -> bool:
    """Whether the loss of a row is known exactly: a drop of quality needs its label, agreement does not."""
    return labelled or certificate.loss != "drop" or certificate.score == "agreement"


def extended(before: Audited, outputs: Outputs, task: Task, certificate: Certificate) -> Audited:
    """What was audited before, and the losses of more rows; a label that comes later replaces the guess."""
    exact = is_exact(certificate, labelled=outputs.labels is not None)
    columns = []
    for point in certificate.points:
        taken = outputs.answers_taken([certificate.path[point.step]], task)
        if exact:
            caused = losses_of(certificate.loss, outputs, taken, task, point.epsilon)
            counted = True if caused.counted is None else caused.counted
            columns.append(np.where(counted, caused.values, np.nan)[:, 0])
        else:
            agreement = outputs.scores(task, agreement=True)[1]
            columns.append(1.0 - np.take_along_axis(agreement, taken, 1)[:, 0])
    found = np.stack(columns, 1)
    place = {key: row for row, key in enumerate(before.keys)}
    losses, labelled = before.losses.copy(), before.labelled.copy()
    again = [row for row, key in enumerate(outputs.keys) if key in place]
    for row in again:
        losses[place[outputs.keys[row]]], labelled[place[outputs.keys[row]]] = found[row], exact
    fresh = [row for row, key in enumerate(outputs.keys) if key not in place]
    return replace(
        before,
        keys=(*before.keys, *(outputs.keys[row] for row in fresh)),
        labelled=np.concatenate([labelled, np.full(len(fresh), exact)]),
        losses=np.concatenate([losses, found[fresh]]),
    )


def findings_of(audited: Audited, certificate: Certificate) -> tuple[Finding, ...]:
    """What the losses so far say about each certified Point, together at the certificate's confidence."""
    alpha = certificate.delta / len(certificate.points) / 2
    low = -1.0 if certificate.loss == "drop" else 0.0
    findings = []
    for place, point in enumerate(certificate.points):
        counted = ~np.isnan(audited.losses[:, place])
        all_of_them = audited.losses[counted, place]
        exact = audited.losses[counted & audited.labelled, place]
        whole, sure = bounds(all_of_them, low, 1.0, alpha), bounds(exact, low, 1.0, alpha)
        found: Verdict = "undecided"
        if alarm(exact, point.epsilon, low, 1.0, alpha):
            found = "broken"
        elif whole.upper is not None and whole.upper <= point.epsilon:
            doubtful = alarm(all_of_them, point.epsilon, low, 1.0, alpha)
            found = "undecided" if doubtful else "stands"
        findings.append(Finding(point.name, point.epsilon, found, sure.mean, sure.lower, whole.upper))
    return tuple(findings)


def sentence_of(finding: Finding, certificate: Certificate) -> str:
    """What an audit found about one Point, in words."""
    bound, sure = f"{100 * finding.epsilon:g}%", f"{100 * (1 - certificate.delta):.10g}%"
    of_tokens = certificate.generation is not None
    unit, names = ("prompts", OF_TOKENS) if of_tokens else ("rows", LOSS_NAMES)
    point, loss = f"Point {finding.name!r}", names[certificate.loss]
    which = "these prompts" if of_tokens else "the rows with exact losses"
    mean = "" if finding.loss is None else f" ({100 * finding.loss:.1f}% on {which})"
    if finding.verdict == "broken":
        return (
            f"{point}: the certificate no longer stands. On some stretch of the newer {unit} the {loss} was "
            f"above the {bound} allowed{mean}, with {sure} confidence. Calibrate again on such (--data)."
        )
    if finding.upper is None:
        return f"{point}: undecided; none of the newer {unit} counts yet."
    most = f"With {sure} confidence the {loss} on newer {unit} is at most {100 * finding.upper:.1f}%{mean}"
    if finding.verdict == "stands":
        return f"{point}: the certificate stands. {most}, and {bound} are allowed."
    return f"{point}: undecided. {most}; {bound} are allowed. More {unit} will tell."


def audit_facts(folder: Path, certificate: Certificate) -> dict[str, Any] | None:
    """What newer rows have said so far, for a report; None if there were none."""
    audited = Audited.load(folder / AUDITED, certificate)
    if not audited.keys:
        return None
    findings = findings_of(audited, certificate)
    return {"rows": len(audited.keys), "sentences": [sentence_of(each, certificate) for each in findings]}


def _same_reference(certificate: Certificate, name: str | None, model: Any) -> Any:
    """The reference model of the certificate; None where that is the model's own full depth."""
    if certificate.reference == "full depth":
        if name is not None:
            raise InputError(
                "the certificate measures against the model's own full depth; leave --reference away"
            )
        return None
    if name is None:
        raise InputError(
            f"the certificate measures against {certificate.reference}; name it with --reference"
        )
    path = Path(name)
    if certificate.reference_weights is not None and (
        not path.is_dir() or one_digest(path) != certificate.reference_weights
    ):
        raise InputError(f"--reference {name} is not the model the certificate measures against")
    return reference_of(name, model)
