"""Which tokens leave, and what would have been said at every threshold: one and the same code."""

import math
from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, tiny_generator

import lessen
from lessen.depth.criteria import LANGUAGE
from lessen.depth.language import decide, unsure
from lessen.errors import PlanError
from lessen.model.rows import pack
from lessen.plan import ExitRule, LanguageExitShape
from lessen.reshaping import with_language_exits

EXITS = {
    "full": LanguageExitShape(layer=2, kind="full"),
    "tied": LanguageExitShape(layer=2, kind="tied", rank=8),
    "gate": LanguageExitShape(layer=2, kind="gate", rank=8),
    "shortlist": LanguageExitShape(layer=2, kind="shortlist", rank=8, words=20),
}


@pytest.fixture(params=sorted(EXITS))
def made(request, tmp_path: Path):
    """A model with an exit of each kind, and hidden states of 60 tokens after its second layer."""
    tiny_generator("llama-grouped").save_pretrained(tmp_path)
    model = with_language_exits(lessen.load(tmp_path), [EXITS[request.param]], words=range(101)).transformer
    head = model.language_exits["2"]
    generator = torch.Generator().manual_seed(0)
    if request.param == "shortlist":
        head.elsewhere.bias.data.fill_(0.2)
    for parameter in head.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    if request.param == "gate":
        head.probe.weight.data.normal_(generator=generator)
        head.cut.fill_(0.0)
    states: list[torch.Tensor] = []

    def after(layer, hidden, rows):
        states.append(hidden)
        return hidden, rows

    with torch.no_grad():
        model(*pack(ragged_ids([40, 20])), after_layer=after)
    return model, states[1]


@pytest.mark.parametrize("criterion", LANGUAGE)
def test_decisions_are_what_the_scores_say(made, criterion: str) -> None:
    model, hidden = made
    scores, named = unsure(model, 2, hidden, [criterion])
    finite = scores[0][scores[0].isfinite()]
    threshold = float(finite.median())
    found = decide(model, 2, hidden, ExitRule(criterion=criterion, thresholds={2: threshold}))
    assert torch.equal(found.leaves, scores[0] < threshold)
    assert found.leaves.any()
    assert not found.leaves.all()
    assert torch.equal(found.logits.argmax(-1), named[found.leaves])
    at_least = decide(model, 2, hidden, ExitRule(criterion=criterion, threshold=float(finite.min())))
    assert not at_least.leaves.any(), "a token leaves strictly below the threshold only"
    assert found.logits.shape[1] == 101


def test_a_token_is_judged_alone(made) -> None:
    model, hidden = made
    scores, named = unsure(model, 2, hidden, LANGUAGE)
    alone = [unsure(model, 2, hidden[i : i + 1], LANGUAGE) for i in range(len(hidden))]
    assert torch.allclose(scores, torch.cat([each[0] for each in alone], 1), rtol=1e-4, atol=1e-5)
    asked = scores[0].isfinite()
    assert torch.equal(named[asked], torch.cat([each[1] for each in alone])[asked])


def test_off_is_not_even_asked(made) -> None:
    model, hidden = made
    model.language_exits["2"].register_forward_hook(lambda *_: pytest.fail("a head was asked"))
    model.language_exits["2"].norm.register_forward_hook(lambda *_: pytest.fail("a head was asked"))
    assert decide(model, 2, hidden, None) is None
    assert decide(model, 2, hidden, ExitRule(criterion="entropy", thresholds={})) is None
    assert decide(model, 1, hidden, ExitRule(criterion="entropy", threshold=1.0)) is None


def test_some_tokens_are_never_named_early(made) -> None:
    model, hidden = made
    everything = ExitRule(criterion="entropy", threshold=1e9)
    before = decide(model, 2, hidden, everything)
    common = int(before.logits.argmax(-1).mode().values)
    found = decide(model, 2, hidden, everything, never=[common])
    assert common not in found.logits.argmax(-1)
    assert len(found.logits) == found.leaves.sum() < before.leaves.sum()
    scores, named = unsure(model, 2, hidden, ["entropy"], never=[common])
    assert torch.equal(found.leaves, scores[0] < 1e9)
    assert (scores[0][named == common] == math.inf).all()


def test_a_probe_keeps_tokens_from_being_asked(tmp_path: Path) -> None:
    tiny_generator("llama-grouped").save_pretrained(tmp_path)
    model = with_language_exits(lessen.load(tmp_path), [EXITS["gate"]]).transformer
    head, hidden = model.language_exits["2"], torch.randn(30, 36)
    with torch.no_grad():
        head.probe.weight.normal_()
        head.cut.copy_(head.probed(hidden).median())
        passed = head.asked(hidden)
    rows: list[int] = []
    head.up.register_forward_hook(lambda *call: rows.append(len(call[2])))
    scores, _ = unsure(model, 2, hidden, ["entropy"])
    assert torch.equal(scores[0].isfinite(), passed)
    assert rows == [int(passed.sum())]
    assert 0 < rows[0] < 30
    head.cut.fill_(math.inf)
    nobody = decide(model, 2, hidden, ExitRule(criterion="entropy", threshold=9.0))
    assert not nobody.leaves.any()
    assert nobody.logits.shape == (0, 101)


def test_a_token_that_is_likeliest_off_the_list_stays(tmp_path: Path) -> None:
    tiny_generator("llama-grouped").save_pretrained(tmp_path)
    model = with_language_exits(lessen.load(tmp_path), [EXITS["shortlist"]], words=range(101)).transformer
    head, hidden = model.language_exits["2"], torch.randn(30, 36)
    head.elsewhere.weight.data.normal_(std=0.5)
    with torch.no_grad():
        silent = head.silent(head.judged(head.corrected(hidden), model.vocabulary).argmax(-1))
    assert 0 < silent.sum() < 30
    scores, named = unsure(model, 2, hidden, LANGUAGE)
    assert torch.equal(scores.isinf(), silent.expand(len(LANGUAGE), 30))
    assert set(named.tolist()) <= set(head.words.tolist())
    everything = decide(model, 2, hidden, ExitRule(criterion="entropy", threshold=1e9))
    assert torch.equal(everything.leaves, ~silent)
    assert torch.equal(everything.logits.argmax(-1), named[~silent])


def test_criteria_of_other_tasks_are_refused(made) -> None:
    model, hidden = made
    with pytest.raises(PlanError, match="'patience' cannot judge a next token; use entropy"):
        decide(model, 2, hidden, ExitRule(criterion="patience", threshold=1.0))
