"""Audits: evidence adds up, unlabelled rows can only confirm, and what does not fit is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import BAD, GOOD
from safetensors.numpy import save_file

from lessen.certificate import read_certificate
from lessen.data.table import Table
from lessen.errors import ArtefactError, InputError
from lessen.promise.audit import FILE, Audited, audit_folder, extended, findings_of
from lessen.promise.outputs import Outputs, Task


@pytest.fixture
def folder(small: Path, tmp_path: Path) -> Path:
    place = tmp_path / "m"
    shutil.copytree(small, place)
    return place


def newer(count: int, start: int, *, wrong: bool = False, labelled: bool = True) -> Table:
    """Rows like those the model was made from, with other numbers in them."""
    texts = [f"{(GOOD if i % 2 else BAD)[i % 4]} number {start + i}" for i in range(count)]
    labels = [(i % 2) ^ int(wrong) for i in range(count)] if labelled else None
    kind = "single_label_classification" if labelled else None
    return Table("newer", texts, labels, kind, ["neg", "pos"] if labelled else [])


def test_evidence_adds_up_over_audits(folder: Path) -> None:
    first = audit_folder(folder, newer(150, 1000))
    assert (first.rows, first.labelled, first.new, first.dropped) == (150, 150, 150, 0)
    again = audit_folder(folder, newer(150, 1000))
    assert (again.rows, again.new, again.dropped) == (150, 0, 150)
    assert again.findings == first.findings
    second = audit_folder(folder, newer(150, 2000))
    assert (second.rows, second.new) == (300, 150)
    at_once = folder.with_name("other")
    shutil.copytree(folder, at_once)
    (at_once / FILE).unlink()
    whole = newer(150, 1000)
    both = replace(
        whole, texts=[*whole.texts, *newer(150, 2000).texts], labels=[*whole.labels, *newer(150, 2000).labels]
    )
    for one, other in zip(audit_folder(at_once, both).findings, second.findings, strict=True):
        assert one.upper == pytest.approx(other.upper)
        assert one.verdict == other.verdict
    assert second.verdict == "stands"


def test_unlabelled_rows_can_confirm(folder: Path) -> None:
    found = audit_folder(folder, newer(300, 1000, labelled=False))
    assert (found.rows, found.labelled) == (300, 0)
    assert all(finding.loss is None and finding.lower is None for finding in found.findings)
    assert found.verdict in ("stands", "undecided")


def certified_losses(folder: Path, *, rows: int, wrong: float, labelled: bool) -> Audited:
    """Made-up answers: `wrong` is the share of early answers that only full depth gets right."""
    certificate = read_certificate(folder)
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, rows)
    logits = np.zeros((3, rows, 2))
    logits[:, np.arange(rows), truth] = 9.0
    flipped = generator.random(rows) < wrong
    logits[:2, flipped] = logits[:2, flipped, ::-1]
    outputs = Outputs(
        logits, truth.astype(float) if labelled else None, tuple(f"{i:016x}" for i in range(rows))
    )
    before = Audited.load(folder / FILE, certificate)
    return extended(before, outputs, Task("single_label_classification", (1, 2, 3)), certificate)


def test_a_broken_promise_is_called_broken(folder: Path) -> None:
    certificate = read_certificate(folder)
    worse = findings_of(certified_losses(folder, rows=400, wrong=0.5, labelled=True), certificate)
    assert all(finding.verdict == "broken" for finding in worse)
    assert all(finding.lower > finding.epsilon for finding in worse)
    unlabelled = findings_of(certified_losses(folder, rows=400, wrong=0.5, labelled=False), certificate)
    assert all(finding.verdict == "undecided" for finding in unlabelled), "differing is not losing"
    fine = findings_of(certified_losses(folder, rows=400, wrong=0.0, labelled=False), certificate)
    assert all(finding.verdict == "stands" for finding in fine)


def test_refusals(folder: Path) -> None:
    with pytest.raises(InputError, match="leave --reference away"):
        audit_folder(folder, newer(10, 1000), reference="somebody/else")
    audit_folder(folder, newer(50, 1000))
    (folder / FILE).write_bytes(b"rubbish")
    with pytest.raises(ArtefactError, match="delete it to start anew"):
        audit_folder(folder, newer(10, 2000))
    save_file({"keys": np.zeros((1, 8), np.uint8)}, folder / FILE, metadata={"certificate": "of another"})
    assert audit_folder(folder, newer(50, 3000)).rows == 50, "about another certificate: begun anew"
    (folder / "certificate.json").unlink()
    with pytest.raises(InputError, match="no certificate to audit"):
        audit_folder(folder, newer(10, 1000))
