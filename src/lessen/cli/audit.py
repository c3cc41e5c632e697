"""`lessen calibrate --audit`: whether a certificate still stands on newer rows."""

from __future__ import annotations

from pathlib import Path

from lessen.cli.output import emit, say
from lessen.errors import InputError


def audit_and_say(
    folder: Path, data: str | None, reference: str | None, columns: tuple[str | None, ...], as_json: bool
) -> None:
    """Audit a folder on rows, or documents, and say what its promises have come to.

    `columns` are text, pair, label and task, as given.
    """
    from lessen.data.documents import documents
    from lessen.data.reading import read
    from lessen.loading import generates
    from lessen.progress import counting
    from lessen.promise.audit import audit_folder, sentence_of
    from lessen.promise.audit_prompts import audit_prompts

    if data is None:
        raise InputError("--audit needs newer rows; name them with --data")
    text, pair, label, task = columns
    unit = "rows"
    if generates(folder):
        unit, unfit = "prompts", (reference, pair, label, task)
        for name, value in zip(("reference", "pair-column", "label-column", "task"), unfit, strict=True):
            if value is not None:
                raise InputError(f"--{name} does not apply to a model that generates")
        with counting("continuing prompts", unit, kept=False) as watch:
            outcome = audit_prompts(folder, documents(data, text=text), watch)
    else:
        outcome = audit_folder(folder, read(data, text=text, pair=pair, label=label, task=task), reference)
    if outcome.dropped:
        say(f"{outcome.dropped:,} {unit} were left out: seen in training, calibration or an earlier audit")
    if as_json:
        emit(outcome.as_dict())
        return
    print(f"{outcome.rows:,} newer {unit} audited so far, {outcome.labelled:,} with exact losses")
    for finding in outcome.findings:
        print(sentence_of(finding, outcome.certificate))
