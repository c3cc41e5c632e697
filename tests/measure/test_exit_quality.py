"""Figures of a generator's exits, against their definitions; and where a probe is cut."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ragged_ids, tiny_generator

import lessen
from lessen.depth import language_losses
from lessen.depth.language import after_the_first, states_at_exits
from lessen.measure.exit_quality import PASSED, auroc, exit_quality, set_cuts
from lessen.model.rows import pack
from lessen.plan import LanguageExitShape
from lessen.reshaping import with_language_exits

TEXTS = ragged_ids([40, 3, 66, 12, 25, 31, 2], seed=5)


@pytest.fixture
def model(tmp_path: Path, monkeypatch):
    """A gate after the first layer and a tied head after the second; logits of 7 tokens at a time."""
    theirs = tiny_generator("llama-grouped")
    for layer in theirs.model.layers:
        layer.mlp.down_proj.weight.data.mul_(0.2)
        layer.self_attn.o_proj.weight.data.mul_(0.2)
    theirs.save_pretrained(tmp_path)
    exits = [
        LanguageExitShape(layer=1, kind="gate", rank=4),
        LanguageExitShape(layer=2, kind="tied", rank=4),
    ]
    made = with_language_exits(lessen.load(tmp_path), exits).transformer
    made.language_exits["1"].probe.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(language_losses, "LOGITS_BYTES", 7 * 101 * 4)
    return made


def test_of_a_list_shorter_than_five_all_are_among_the_likeliest(tmp_path: Path) -> None:
    tiny_generator("llama-grouped").save_pretrained(tmp_path)
    exits = [LanguageExitShape(layer=1, kind="shortlist", rank=4, words=2)]
    made = with_language_exits(lessen.load(tmp_path), exits, words=range(101)).transformer
    (found,) = exit_quality(made, TEXTS[:2], ["entropy"])
    assert found.top5_agreement >= found.agreement


def test_figures_are_what_they_are_defined_to_be(model) -> None:
    found = exit_quality(model, TEXTS, ["entropy", "closeness"])
    with torch.no_grad():
        ids, rows = pack(TEXTS)
        states, last = states_at_exits(model, ids, rows)
        counted = after_the_first(rows)
        teacher = model.next_token(last)[counted]
        for quality, state in zip(found, states, strict=True):
            logits = model.language_exits[str(quality.layer)](state, model.vocabulary)[counted]
            best = teacher.argmax(-1)
            assert quality.tokens == len(counted) == sum(map(len, TEXTS)) - len(TEXTS)
            assert quality.agreement == pytest.approx(float((logits.argmax(-1) == best).float().mean()))
            near = (logits.argsort(-1, descending=True)[:, :5] == best[:, None]).any(1)
            assert quality.top5_agreement == pytest.approx(float(near.float().mean()))
            p, q = teacher.softmax(-1), logits.softmax(-1)
            assert quality.kl == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-4)
            assert quality.asked == 1
            assert 0 < quality.auroc["entropy"] < 1
    assert found[1].agreement > found[0].agreement


def test_auroc_counts_pairs() -> None:
    generator = np.random.default_rng(0)
    scores, right = generator.integers(0, 6, 40).astype(float), generator.random(40) < 0.6
    scores[:4] = np.inf
    pairs = list(itertools.product(scores[right], scores[~right]))
    expected = np.mean([1.0 if good < bad else 0.5 if good == bad else 0.0 for good, bad in pairs])
    assert auroc(scores, right) == pytest.approx(expected)
    assert auroc(scores, np.ones(40, dtype=bool)) is None
    assert auroc(np.arange(4.0), np.array([True, True, False, False])) == 1.0


def test_a_probe_lets_most_right_tokens_pass(model) -> None:
    set_cuts(model, TEXTS)
    head = model.language_exits["1"]
    with torch.no_grad():
        ids, rows = pack(TEXTS)
        states, last = states_at_exits(model, ids, rows)
        counted = after_the_first(rows)
        agrees = head(states[0], model.vocabulary).argmax(-1) == model.next_token(last).argmax(-1)
        passed = head.asked(states[0])[counted][agrees[counted]].float().mean()
    assert float(passed) == pytest.approx(PASSED, abs=1 / int(agrees[counted].sum()) + 1e-6)
    after = exit_quality(model, TEXTS, ["entropy"])
    assert after[0].asked < 1
    assert after[1].asked == 1
