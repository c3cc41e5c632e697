"""Audits and draws of a generator's promises: newer documents confirm a certificate, or break it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import run
from test_language_promises import DECODER, made_up

from lessen.guarantee import certify, plug_in
from lessen.promise.language import freeze_path, losses_of
from lessen.promise.resplits import resplit_prompts


@pytest.mark.parametrize("loss", ["disagreement", "selective", "block"])
def test_draws_are_counted_as_by_hand(loss: str) -> None:
    pool, bound, delta = made_up(200, 3), {"block": 0.3}.get(loss, 0.05), 0.1
    path = freeze_path(made_up(300, 4), DECODER, bound, loss)[::6]
    found = resplit_prompts(pool, path, DECODER, bound, delta, loss=loss, count=40, seed=1)
    losses = losses_of(loss, pool, path, DECODER, bound)
    over, generator = losses.risks > bound, np.random.default_rng(1)
    broken = plugged = 0
    steps = []
    for _ in range(40):
        drawn = losses.take(generator.integers(200, size=100))
        step, bold = certify(drawn, bound, delta).step, plug_in(drawn, bound).step
        broken += step is not None and over[step]
        plugged += bold is not None and over[bold]
        steps.append(step)
    assert found["violations"] == broken / 40 <= delta
    assert found["violations_plug_in"] == plugged / 40
    early = [((pool.left_at(step.exits, (2, 4)) < 2) & pool.there).sum() / pool.there.sum() for step in path]
    assert found["early"] == pytest.approx(np.mean([0 if s is None else early[s] for s in steps]))
    assert found["early_oracle"] == pytest.approx(max(e for e, o in zip(early, over, strict=True) if not o))
    assert (0 if loss == "selective" else 1e-9) <= found["saved"] <= found["saved_oracle"] < 1


def copied(early_talker: tuple[Path, dict], place: Path) -> Path:
    return Path(shutil.copytree(early_talker[0], place))


def newer(place: Path, count: int, start: int = 0) -> Path:
    words = ("film", "story", "scene", "actor", "plot")
    lines = [f"the {words[i % 5]} number {i} is very {'good' if i % 2 else 'bad'}" for i in range(count)]
    place.write_text("".join(f"{line}\n\n" for line in lines[start:]))
    return place


def test_evidence_of_newer_prompts_adds_up(early_talker, tmp_path: Path) -> None:
    folder = copied(early_talker, tmp_path / "small")
    first = newer(tmp_path / "first.txt", 30)
    code, out, err = run("calibrate", folder, "--audit", "--data", first, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["rows"], found["labelled"], found["new"], found["dropped"]) == (30, 30, 30, 0)
    (point,) = found["points"]
    assert point["verdict"] in ("undecided", "stands")
    assert 0 <= point["loss"] < 0.3 < point["upper"], "30 prompts say little"
    code, out, err = run("calibrate", folder, "--audit", "--data", newer(tmp_path / "more.txt", 150))
    assert code == 0, err
    assert "30 prompts were left out" in err
    assert "150 newer prompts audited so far" in out
    assert "Point 'disagreement-30%': " in out
    assert (
        "share of tokens that leave early and are not the full model's own on newer prompts is at most" in out
    )


def test_an_audit_notices_exits_that_have_become_wrong(early_talker, tmp_path: Path) -> None:
    """A certificate on file, of exits that now name the least likely word: newer prompts break it."""
    import lessen
    from lessen.certificate import Certificate, digests_of, write_certificate

    folder = copied(early_talker, tmp_path / "small")
    certificate = json.loads((folder / "certificate.json").read_text())
    model = lessen.load(folder)
    for head in model.transformer.language_exits.values():
        head.norm.weight.data.neg_()
        head.cut.fill_(-1e9)  # whatever its probe foresees
    model.save_pretrained(folder)
    moved = Certificate(**certificate).model_copy(update=digests_of(folder))
    write_certificate(folder, moved)
    code, out, err = run("calibrate", folder, "--audit", "--data", newer(tmp_path / "n.txt", 60), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["verdict"] == "broken"
    assert found["points"][0]["lower"] > 0.3


def test_the_words_for_every_loss(early_talker, tmp_path: Path) -> None:
    folder = copied(early_talker, tmp_path / "small")
    words = {"selective": "loss of early tokens", "block": "share of continuations of which a block"}
    for loss, said in words.items():
        options = ("--loss", loss, "--block", 3, "--target-agreement", "45%", "--confidence", "80%")
        code, out, err = run("calibrate", folder, *options, "--resplits", 20, "--json")
        assert code == 0, err
        found = json.loads(out)
        assert found["certified"]
        assert (found["resplits"], found["violations"] <= 0.2) == (20, True)
        code, out, err = run("calibrate", folder, "--audit", "--data", newer(tmp_path / "n.txt", 25))
        assert code == 0, err
        assert said in out


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--audit",), "--audit needs newer rows"),
        (("--audit", "--data", "{text}", "--reference", "x"), "--reference does not apply"),
        (("--audit", "--data", "{text}", "--label-column", "x"), "--label-column does not apply"),
        (("--audit", "--data", "{text}", "--resplits", 3), "--resplits does not go with --audit"),
    ],
)
def test_what_does_not_fit_an_audit_is_one_line(early_talker, word_text, options, why: str) -> None:
    code, out, err = run("calibrate", early_talker[0], *(word_text if o == "{text}" else o for o in options))
    assert (code, out) == (2, "")
    assert why in err


def test_without_a_certificate_there_is_nothing_to_audit(early_talker, word_text, tmp_path: Path) -> None:
    folder = copied(early_talker, tmp_path / "small")
    (folder / "certificate.json").unlink()
    code, _, err = run("calibrate", folder, "--audit", "--data", word_text)
    assert code == 2
    assert "has no certificate to audit; calibrate it first" in err
