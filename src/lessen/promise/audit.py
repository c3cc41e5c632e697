"""Does a certificate still stand on newer rows? Losses are kept with the model, so that evidence adds up.

Rows may come in any number of audits, labelled or not: what is said holds at any time (`guarantee.monitor`).
An unlabelled row cannot show a drop, but its answer can only have lost what it differs by from the
reference's: such rows can confirm a certificate and not break it. Their labels may come later. A text counts
once.

What holds at any time is said of sequences that only ever grow. There are two: what each row was first known
to have lost at most, in the order rows came, and exact losses, in the order they became known.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from lessen.promise.judging import losses_of
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
    """Losses of every row audited so far, in the order rows came.

    Attributes:
        certificate: Identity of the certificate they are about.
        keys: Hashes of the rows' texts.
        first: What each certified Point lost at most, as far as was known when the row came,
            `[rows, points]`; NaN where a row does not count.
        losses: The same as far as is known now.
        turn: When that became known: its place in that order, `[rows]`; -1 where it is not known yet.
    """

    certificate: str
    keys: tuple[str, ...]
    first: Array
    losses: Array
    turn: NDArray[np.int64]

    @classmethod
    def none(cls, certificate: Certificate) -> Audited:
        """Of a certificate that no row was held against yet."""
        width = len(certificate.points)
        nothing = np.zeros((0, width))
        return cls(certificate.identity, (), nothing, nothing, np.zeros(0, np.int64))

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Of which rows the loss is known, `[rows]`."""
        return np.asarray(self.turn >= 0)

    @property
    def exact(self) -> Array:
        """Losses that are known, in the order they became so, `[labelled, points]`."""
        known = np.flatnonzero(self.labelled)
        return np.asarray(self.losses[known[np.argsort(self.turn[known])]])

    def grown(self, keys: Sequence[str], losses: Array, *, exact: bool) -> Audited:
        """With what was found of more rows, or of rows whose loss was not known yet.

        Args:
            keys: Hashes of their texts.
            losses: `[rows, points]`.
            exact: Whether that is what they lost, not only at most.
        """
        place = {key: row for row, key in enumerate(self.keys)}
        fresh = [row for row, key in enumerate(keys) if key not in place]
        everything = [*self.keys, *(keys[row] for row in fresh)]
        place = {key: row for row, key in enumerate(everything)}
        first = np.concatenate([self.first, losses[fresh]])
        known = np.concatenate([self.losses, losses[fresh]])
        turn = np.concatenate([self.turn, np.full(len(fresh), -1)])
        if exact:
            now = [row for row, key in enumerate(keys) if turn[place[key]] < 0]
            rows = [place[keys[row]] for row in now]
            known[rows] = losses[now]
            turn[rows] = turn.max(initial=-1) + 1 + np.arange(len(rows))
        return replace(self, keys=tuple(everything), first=first, losses=known, turn=turn)

    def save(self, path: Path) -> None:
        """Write beside, and rename."""
        tensors = {
            "keys": pack_keys(self.keys),
            "first": torch.from_numpy(self.first).float().contiguous(),
            "losses": torch.from_numpy(self.losses).float().contiguous(),
            "turn": torch.from_numpy(self.turn),
        }
        write_bytes(path, save(tensors, metadata={"certificate": self.certificate}))

    @classmethod
    def load(cls, path: Path, certificate: Certificate) -> Audited:
        """The inverse of `save`; empty if there is none, or if it is about another certificate.

        Raises:
            ArtefactError: When the file is damaged.
        """
        empty = cls.none(certificate)
        if not path.exists():
            return empty
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {})["certificate"] != certificate.identity:
                    return empty
                keys, turn = unpack_keys(file.get_tensor("keys")), file.get_tensor("turn").numpy()
                first, losses = (file.get_tensor(name).double().numpy() for name in ("first", "losses"))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ArtefactError(f"{path}: cannot be read ({error}); delete it to start anew") from None
        return cls(certificate.identity, keys, first, losses, turn)


@dataclass(frozen=True)
class Finding:
    """What an audit says about one certified Point.

    Attributes:
        name: Of the Point.
        epsilon: The bound.
        verdict: `broken`: some stretch of the rows lost more than the bound. `stands`: on average over all
            of them, or over those whose loss is exact, at most the bound was lost, and nothing hints at a
            stretch that lost more.
        loss: Mean over the rows whose loss is exact; None without such.
        lower: The mean expected loss of those is at least this; None without such.
        upper: That of all rows is at most this; None without rows that count.
        exact_upper: That of those whose loss is exact; None without such.
    """

    name: str
    epsilon: float
    verdict: Verdict
    loss: float | None
    lower: float | None
    upper: float | None
    exact_upper: float | None


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
    """What was audited before, and the losses of more rows; with a label that comes later it is exact."""
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
    return before.grown(outputs.keys, np.stack(columns, 1), exact=exact)


def findings_of(audited: Audited, certificate: Certificate) -> tuple[Finding, ...]:
    """What the losses so far say about each certified Point, together at the certificate's confidence.

    A Point's half of the risk is the alarm's; of the other one the two bounds on exact losses have a third
    each, and that on all rows the last.
    """
    alpha = certificate.delta / len(certificate.points) / 2
    low = -1.0 if certificate.loss == "drop" else 0.0
    findings = []
    for place, point in enumerate(certificate.points):
        whole, exact = (_counted(losses[:, place]) for losses in (audited.first, audited.exact))
        of_all, of_exact = (bounds(losses, low, 1.0, alpha * 2 / 3) for losses in (whole, exact))
        found: Verdict = "undecided"
        if alarm(exact, point.epsilon, low, 1.0, alpha):
            found = "broken"
        elif any(each.upper is not None and each.upper <= point.epsilon for each in (of_exact, of_all)):
            found = "stands"
        latest = _counted(audited.losses[:, place])
        if found == "stands" and alarm(latest, point.epsilon, low, 1.0, alpha):
            found = "undecided"
        findings.append(
            Finding(
                point.name,
                point.epsilon,
                found,
                of_exact.mean,
                of_exact.lower,
                of_all.upper,
                of_exact.upper,
            )
        )
    return tuple(findings)


def _counted(losses: Array) -> Array:
    return np.asarray(losses[~np.isnan(losses)])


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
    upper, some = finding.upper, f"newer {unit}"
    if finding.exact_upper is not None and finding.exact_upper < upper:
        upper, some = finding.exact_upper, f"newer {unit} with exact losses"
    most = f"With {sure} confidence the {loss} on {some} is at most {100 * upper:.1f}%{mean}"
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
    path, weights = Path(name), certificate.reference_weights
    named = weights is None and name == certificate.reference
    if not named and not (path.is_dir() and one_digest(path) == weights):
        raise InputError(f"--reference {name} is not the model the certificate measures against")
    return reference_of(name, model)
