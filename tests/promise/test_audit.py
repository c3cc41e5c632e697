"""Audits: evidence adds up, unlabelled rows can only confirm, and what does not fit is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import BAD, GOOD
from safetensors.numpy import save_file

from lessen.artefact import AUDITED
from lessen.certificate import read_certificate
from lessen.data.table import Table
from lessen.errors import ArtefactError, InputError
from lessen.loading import load
from lessen.promise.audit import Audited, _same_reference, audit_folder, extended, findings_of, sentence_of
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
    (at_once / AUDITED).unlink()
    whole = newer(150, 1000)
    both = replace(
        whole, texts=[*whole.texts, *newer(150, 2000).texts], labels=[*whole.labels, *newer(150, 2000).labels]
    )
    for one, other in zip(audit_folder(at_once, both).findings, second.findings, strict=True):
        assert one.upper == pytest.approx(other.upper)
        assert one.verdict == other.verdict
    assert second.findings[0].verdict == "stands"
    assert second.findings[0].upper < first.findings[0].upper


def test_a_text_counts_once(folder: Path) -> None:
    once = newer(40, 1000)
    often = replace(once, texts=once.texts * 30, labels=once.labels * 30)
    found = audit_folder(folder, often)
    assert (found.rows, found.new, found.dropped) == (40, 40, 29 * 40)


def test_labels_may_come_later(folder: Path) -> None:
    first = audit_folder(folder, newer(80, 1000, labelled=False))
    assert (first.rows, first.labelled) == (80, 0)
    second = audit_folder(folder, newer(80, 1000))
    assert (second.rows, second.labelled, second.new) == (80, 80, 80)
    assert second.findings[0].loss is not None
    assert audit_folder(folder, newer(80, 1000, labelled=False)).new == 0, "a label is not taken back"


@pytest.mark.parametrize("order", ["oldest first", "newest first", "any order"])
def test_labels_that_come_later_in_any_order_raise_no_more_false_alarms(folder: Path, order: str) -> None:
    """The drop is just what was promised, and one looks after every ten labels."""
    certificate = read_certificate(folder)
    certificate = certificate.model_copy(update={"points": certificate.points[:1]})
    epsilon, rows = certificate.points[0].epsilon, 400
    keys = [f"{i:016x}" for i in range(rows)]
    generator = np.random.default_rng(0)
    broken = 0
    for _ in range(12):
        lost = (generator.random((rows, 1)) < epsilon).astype(float)
        audited = Audited.none(certificate).grown(keys, np.ones((rows, 1)), exact=False)
        come = {
            "oldest first": np.arange(rows),
            "newest first": np.arange(rows)[::-1],
            "any order": generator.permutation(rows),
        }[order]
        for some in come.reshape(-1, 10):
            audited = audited.grown([keys[row] for row in some], lost[some], exact=True)
            if findings_of(audited, certificate)[0].verdict == "broken":
                broken += 1
                break
    assert broken <= 12 * certificate.delta


def test_exact_losses_are_read_in_the_order_they_became_known(folder: Path, tmp_path: Path) -> None:
    certificate = read_certificate(folder)
    width = len(certificate.points)
    keys = [f"{i:016x}" for i in range(4)]

    def lost(*values: float) -> np.ndarray:
        return np.repeat(np.array(values)[:, None], width, 1)

    audited = Audited.none(certificate).grown(keys[:3], lost(1, 0, 1), exact=False)
    audited = audited.grown([keys[2], keys[3]], lost(0, 1), exact=True)
    audited = audited.grown([keys[3], keys[0]], lost(0, -1), exact=True)
    assert audited.exact[:, 0].tolist() == [0, 1, -1], "what is known stays as it is"
    assert audited.first[:, 0].tolist() == [1, 0, 1, 1]
    assert audited.labelled.tolist() == [True, False, True, True]
    audited.save(tmp_path / AUDITED)
    again = Audited.load(tmp_path / AUDITED, certificate)
    assert again.keys == audited.keys
    for name in ("first", "losses", "turn"):
        assert (getattr(again, name) == getattr(audited, name)).all()


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
    before = Audited.load(folder / AUDITED, certificate)
    return extended(before, outputs, Task("single_label_classification", (1, 2, 3)), certificate)


def test_a_broken_promise_is_called_broken(folder: Path) -> None:
    certificate = read_certificate(folder)
    worse = findings_of(certified_losses(folder, rows=400, wrong=0.5, labelled=True), certificate)
    assert all(finding.verdict == "broken" for finding in worse)
    assert all(finding.lower <= finding.loss <= finding.upper for finding in worse)
    unlabelled = findings_of(certified_losses(folder, rows=400, wrong=0.5, labelled=False), certificate)
    assert all(finding.verdict == "undecided" for finding in unlabelled), "differing is not losing"
    fine = findings_of(certified_losses(folder, rows=400, wrong=0.0, labelled=False), certificate)
    assert all(finding.verdict == "stands" for finding in fine)


def test_good_rows_before_do_not_hide_bad_ones_after(folder: Path) -> None:
    """Unlabelled rows that differ often cannot break a certificate, but it is no longer said to stand."""
    certificate = read_certificate(folder)
    good = certified_losses(folder, rows=4000, wrong=0.001, labelled=True)
    assert all(finding.verdict == "stands" for finding in findings_of(good, certificate))
    bad = certified_losses(folder, rows=600, wrong=0.6, labelled=False)
    both = good.grown([f"{i:016x}" for i in range(4000, 4600)], bad.losses, exact=False)
    assert all(finding.verdict == "undecided" for finding in findings_of(both, certificate))


def test_selective_losses_are_those_of_early_rows(folder: Path) -> None:
    """A fifth of the rows leaves early; of those one in ten is wrong."""
    certificate = read_certificate(folder).model_copy(update={"loss": "selective"})
    generator = np.random.default_rng(0)
    losses = np.full((3000, len(certificate.points)), np.nan)
    early = generator.random(3000) < 0.2
    losses[early] = (generator.random((int(early.sum()), 1)) < 0.1).astype(float)
    audited = Audited.none(certificate).grown([f"{i:016x}" for i in range(3000)], losses, exact=True)
    for finding in findings_of(audited, certificate):
        assert finding.loss == pytest.approx(0.1, abs=0.03)
        assert finding.lower < 0.1 < finding.upper
        assert "share of early answers" in sentence_of(finding, certificate)


def test_pairs_do_not_fit_a_model_of_single_texts(folder: Path) -> None:
    pairs = replace(newer(30, 1000), texts=[(text, "again") for text in newer(30, 1000).texts])
    with pytest.raises(InputError, match=r"newer has pairs of texts, .* was trained on single texts"):
        audit_folder(folder, pairs)


def test_refusals(folder: Path) -> None:
    with pytest.raises(InputError, match="leave --reference away"):
        audit_folder(folder, newer(10, 1000), reference="somebody/else")
    audit_folder(folder, newer(50, 1000))
    (folder / AUDITED).write_bytes(b"rubbish")
    with pytest.raises(ArtefactError, match="delete it to start anew"):
        audit_folder(folder, newer(10, 2000))
    save_file({"keys": np.zeros((1, 8), np.uint8)}, folder / AUDITED, metadata={"certificate": "of another"})
    assert audit_folder(folder, newer(50, 3000)).rows == 50, "about another certificate: begun anew"
    (folder / "certificate.json").unlink()
    with pytest.raises(InputError, match="no certificate to audit"):
        audit_folder(folder, newer(10, 1000))


def test_a_reference_may_be_known_by_its_name_alone(folder: Path, small: Path) -> None:
    """As one of a hub is, whose weights nobody hashed: that name will do, another model's folder will not."""
    certificate = read_certificate(folder).model_copy(
        update={"reference": str(small), "reference_weights": None}
    )
    model = load(folder)
    assert _same_reference(certificate, str(small), model).label_names == model.label_names
    for other in (str(folder), "somebody/else"):
        with pytest.raises(InputError, match="is not the model the certificate measures against"):
            _same_reference(certificate, other, model)
    with pytest.raises(InputError, match="name it with --reference"):
        _same_reference(certificate, None, model)
