"""Does a generator's certificate still stand on newer documents? Each gives a prompt.

What is said, and how evidence adds up, is as for classifiers (`audit.py`). No label is needed: what a token
should have been is what full depth says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from lessen.artefact import AUDITED, KEPT
from lessen.certificate import read_certificate
from lessen.data.splits import without_repeats
from lessen.data.table import Table, row_key
from lessen.errors import InputError
from lessen.hf import LessenForCausalLM
from lessen.loading import load
from lessen.promise.audit import Audit, Audited, findings_of
from lessen.promise.language import Decoder, LanguageLoss, losses_of
from lessen.promise.prompts import KeptTraces, Prompting, traces_of


def audit_prompts(
    folder: Path, table: Table, watch: Callable[[int, int], None] = lambda done, total: None
) -> Audit:
    """Continue the beginnings of newer documents and say whether the certificate still stands.

    Args:
        folder: Of a generator with a certificate; the losses are added to its `audit.safetensors`.
        table: Newer documents in the order they came.
        watch: Told how many prompts are finished, of how many.

    Raises:
        InputError: When there is nothing to audit.
        ArtefactError: When the certificate is about something else.
    """
    certificate = read_certificate(folder)
    if certificate is None or certificate.generation is None:
        raise InputError(f"{folder} has no certificate to audit; calibrate it first")
    model = cast(LessenForCausalLM, load(folder, precision=certificate.precision))
    how, before = certificate.generation, Audited.load(folder / AUDITED, certificate)
    seen = {*certificate.keys, *before.keys}
    if (folder / KEPT).exists():
        kept = KeptTraces.load(folder / KEPT)
        seen |= kept.seen | set(kept.tune.keys)
    given = len(table)
    table = without_repeats(table)
    new = [row for row, text in enumerate(table.texts) if row_key(text) not in seen]
    now = before
    if new:
        steps = [certificate.path[point.step] for point in certificate.points]
        criteria = sorted({step.exits.criterion for step in steps if step.exits})
        prompting = Prompting(prompt_tokens=how.prompt_tokens, new_tokens=how.new_tokens)
        traces = traces_of(model, table.take(new), prompting, criteria, watch=watch)
        decoder = Decoder(model.config.facts(), model.config.form(), how.block)
        loss = cast(LanguageLoss, certificate.loss)
        columns = [
            losses_of(loss, traces, [step], decoder, point.epsilon).values
            for step, point in zip(steps, certificate.points, strict=True)
        ]
        now = before.grown(traces.keys, np.concatenate(columns, 1), exact=True)
        now.save(folder / AUDITED)
    return Audit(
        certificate=certificate,
        rows=len(now.keys),
        labelled=len(now.keys),
        new=len(new),
        dropped=given - len(new),
        findings=findings_of(now, certificate),
    )
