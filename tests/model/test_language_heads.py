"""Heads that name the next token early: start, kinds, depth, cost (page 1.2, 1.3; P5, P7, P15)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, tiny_generator

import lessen
from lessen.depth.placement import places
from lessen.errors import InputError, PlanError
from lessen.model.language_heads import LanguageHead, start
from lessen.model.macs import block_equivalents, early_token_macs, layer_macs, token_macs
from lessen.model.rows import pack
from lessen.native import native
from lessen.plan import LanguageExitShape
from lessen.reshaping import with_language_exits

KINDS = {
    "full": LanguageExitShape(layer=1, kind="full"),
    "tied": LanguageExitShape(layer=1, kind="tied", rank=8),
    "gate": LanguageExitShape(layer=1, kind="gate", rank=8),
    "shortlist": LanguageExitShape(layer=1, kind="shortlist", rank=8, words=20),
}
FAMILIES = ["gpt2-untied", "llama-grouped", "llama", "gpt_neox"]


def loaded(family: str, folder: Path):
    tiny_generator(family).save_pretrained(folder)
    return lessen.load(folder)


@pytest.mark.parametrize("kind", ["full", "gate", "tied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_after_the_last_layer_answers_as_the_model_does(
    family: str, kind: str, tmp_path: Path
) -> None:
    """P7: same norm, same matrix, no correction. One product in another order of columns: 1e-5."""
    model = loaded(family, tmp_path).transformer
    states: list[torch.Tensor] = []
    model.layers[-1].register_forward_hook(lambda *call: states.append(call[2][0]))
    head = LanguageHead(model.architecture, KINDS[kind])
    start(head, model.final_norm, model.vocabulary_matrix)
    with torch.no_grad():
        hidden, _ = model(*pack(ragged_ids([30, 5])))
        expected = model.next_token(hidden)
        found = head(states[0], model.vocabulary)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    teacher, student = expected.log_softmax(-1), found.log_softmax(-1)
    assert (teacher.exp() * (teacher - student)).sum(-1).abs().max() <= 1e-5


def test_a_fresh_head_does_not(tmp_path: Path) -> None:
    model = loaded("llama-grouped", tmp_path)
    exits = [KINDS["full"].model_copy(update={"layer": 2})]
    own, drawn = (with_language_exits(model, exits, fresh=fresh) for fresh in (False, True))
    matrix = model.transformer.vocabulary_matrix
    assert torch.equal(own.transformer.language_exits["2"].output.weight, matrix)
    assert not torch.equal(drawn.transformer.language_exits["2"].output.weight, matrix)
    norms = [m.transformer.language_exits["2"].norm.weight for m in (own, drawn)]
    assert torch.equal(norms[0], model.transformer.final_norm.weight)
    assert torch.equal(norms[1], torch.ones_like(norms[1]))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_exits_do_not_change_the_model_and_travel_with_it(kind: str, tmp_path: Path) -> None:
    model = loaded("llama-grouped", tmp_path / "base")
    words = list(range(50, 101))
    made = with_language_exits(model, [KINDS[kind]], words=words, seed=1)
    for parameter in made.transformer.language_exits.parameters():
        parameter.data.normal_()
    ids = torch.stack(ragged_ids([20, 20]))
    with torch.no_grad():
        assert torch.equal(made(ids).logits, model(ids).logits)
    made.save_pretrained(tmp_path / "with")
    again = lessen.load(tmp_path / "with")
    states = again.transformer.language_exits.state_dict()
    for name, value in made.transformer.language_exits.state_dict().items():
        assert torch.equal(value, states[name]), name
    if kind == "shortlist":
        assert states["1.words"].tolist() == words[:20]


def test_a_head_reads_what_its_layer_put_out_and_is_the_only_one_with_its_norm(tmp_path: Path) -> None:
    """P5: layer `n` of an exit means n blocks run, not normed before; each head norms with its own copy."""
    model = loaded("llama", tmp_path)
    exits = [KINDS["tied"], KINDS["tied"].model_copy(update={"layer": 2})]
    inner = with_language_exits(model, exits).transformer
    put_out: list[torch.Tensor] = []
    for layer in inner.layers:
        layer.register_forward_hook(lambda *call: put_out.append(call[2][0]))
    seen: dict[int, torch.Tensor] = {}
    calls: dict[int, int] = {}

    def after(layer, hidden, rows):
        if str(layer) in inner.language_exits:
            seen[layer], calls[layer] = hidden, len(put_out)
        return hidden, rows

    with torch.no_grad():
        inner(*pack(ragged_ids([9])), after_layer=after)
    assert calls == {1: 1, 2: 2}
    assert all(torch.equal(seen[n], put_out[n - 1]) for n in seen)
    norms = [inner.final_norm, *(head.norm for head in inner.language_exits.values())]
    assert len({norm.weight.data_ptr() for norm in norms}) == 3


def listed(folder: Path):
    """A model with a short list of every fifth token, and states for it."""
    model = loaded("llama", folder)
    inner = with_language_exits(model, [KINDS["shortlist"]], words=range(0, 101, 5)).transformer
    return inner, inner.language_exits["1"], torch.randn(7, inner.architecture.hidden_size)


@torch.no_grad()
def test_a_short_list_says_of_its_words_what_the_whole_matrix_does(tmp_path: Path) -> None:
    inner, head, hidden = listed(tmp_path)
    head.elsewhere.weight.normal_()
    corrected = head.corrected(hidden)
    judged = head.judged(corrected, inner.vocabulary)
    assert judged.shape == (7, 21)
    assert torch.allclose(judged[:, :-1], inner.next_token(corrected)[:, head.words], atol=1e-5)
    assert torch.allclose(judged[:, -1:], head.elsewhere(corrected))
    inner.vocabulary_matrix.mul_(2.0)
    twice = head.judged(corrected, inner.vocabulary)
    assert torch.allclose(twice[:, :-1], 2 * judged[:, :-1], atol=1e-5)


@torch.no_grad()
def test_heads_of_the_same_list_share_its_rows(tmp_path: Path) -> None:
    model = loaded("llama", tmp_path)
    exits = [KINDS["shortlist"], KINDS["shortlist"].model_copy(update={"layer": 2})]
    inner = with_language_exits(model, exits, words=range(101)).transformer
    hidden = torch.randn(3, inner.architecture.hidden_size)
    for head in inner.language_exits.values():
        head(hidden, inner.vocabulary)
    assert len(inner.vocabulary.lists) == 1
    inner.language_exits["2"].words.add_(1)
    last = inner.language_exits["2"](hidden, inner.vocabulary)
    assert len(inner.vocabulary.lists) == 2
    assert last.isfinite().nonzero()[:, 1].unique().tolist() == list(range(1, 21))
    assert sum(key.startswith("_short") for key in inner.state_dict()) == 0


@torch.no_grad()
def test_a_short_list_names_its_own_words_or_none(tmp_path: Path) -> None:
    inner, head, hidden = listed(tmp_path)
    head.elsewhere.weight.normal_(std=3.0)
    judged = head.judged(head.corrected(hidden), inner.vocabulary)
    spread = head(hidden, inner.vocabulary)
    assert spread.shape == (7, 101)
    assert spread.isfinite().sum(1).tolist() == [20] * 7
    assert torch.equal(spread.argmax(-1), head.named(judged))
    assert set(head.named(judged).tolist()) <= set(range(0, 101, 5))
    silent = judged[:, -1] > judged[:, :-1].amax(1)
    assert torch.equal(head.silent(judged.argmax(-1)), silent)
    assert 0 < silent.sum() < 7


@torch.no_grad()
def test_what_is_on_no_list_counts_together(tmp_path: Path) -> None:
    inner, head, hidden = listed(tmp_path)
    logits = inner.next_token(hidden)
    shares, outcomes = logits.softmax(-1), head.outcomes_of(logits).softmax(-1)
    assert torch.allclose(outcomes[:, :-1], shares[:, head.words])
    assert torch.allclose(outcomes[:, -1], 1 - shares[:, head.words].sum(1))
    trained = head.among(head.corrected(hidden), inner.vocabulary_matrix, torch.tensor([3]))
    assert torch.allclose(trained, head.judged(head.corrected(hidden), inner.vocabulary), atol=1e-5)


def test_places_of_both_versions() -> None:
    """Page 1.2, in layers run: one more than the blocks' numbers from 0."""
    assert places(32, 3) == (9, 17, 25)
    assert places(28, 4) == (6, 12, 17, 23)
    assert places(32, 4, "steps") == (7, 13, 19, 25)
    with pytest.raises(PlanError, match="5 exits do not fit"):
        places(4, 5)


def test_costs_equal_the_closed_form(tmp_path: Path) -> None:
    """P15: C = sum pi_k (e_k + 1 + k rho) + pi_full (L + (K + 1) rho), heads being plain matrices."""
    model = loaded("llama", tmp_path)
    exits = [KINDS["full"], KINDS["full"].model_copy(update={"layer": 2})]
    shape = with_language_exits(model, exits).config.form()
    facts, leaving = model.config.facts(), (0.3, 0.5)
    block = layer_macs(facts, shape.layers[0], 1)
    rho = facts.vocab_size * facts.hidden_size / block
    expected = 0.3 * (1 + rho) + 0.5 * (2 + 2 * rho) + 0.2 * (3 + 3 * rho)
    assert block_equivalents(facts, shape, leaving) == pytest.approx(expected)
    none = early_token_macs(facts, model.config.form(), ())
    assert none == token_macs(facts, model.config.form(), 0)


def test_a_probe_spares_the_matrix_now_and_then_a_short_list_always(tmp_path: Path) -> None:
    model = loaded("llama", tmp_path)
    facts = model.config.facts()
    width, whole = facts.hidden_size, facts.hidden_size * facts.vocab_size

    def extra(kind: str, leaving: float, passing: float) -> float:
        exits = [KINDS[kind]]
        shape = with_language_exits(model, exits, words=range(101)).config.form()
        layers = layer_macs(facts, shape.layers[0], 1) * (1 + 2 * (1 - leaving))
        return early_token_macs(facts, shape, [leaving], [passing]) - layers - whole * (1 - leaving)

    correction = 2 * 8 * width
    assert extra("tied", 0.25, 1.0) == pytest.approx(correction + whole)
    assert extra("gate", 0.25, 0.5) == pytest.approx(width + 0.5 * (correction + whole))
    assert extra("shortlist", 0.25, 1.0) == pytest.approx(correction + 21 * width)


REFUSED = [
    ({"layer": 3, "kind": "full"}, "before the last layer"),
    ({"layer": 1, "kind": "full", "rank": 4}, "rank: a head of kind 'full' has none"),
    ({"layer": 1, "kind": "tied"}, "rank: a head of kind 'tied' has one"),
    ({"layer": 1, "kind": "shortlist", "rank": 4}, "words: a head of kind 'shortlist' has one"),
    ({"layer": 1, "kind": "shortlist", "rank": 4, "words": 500}, "the vocabulary has 101"),
]


@pytest.mark.parametrize(("fields", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_what_does_not_fit_is_refused(fields: dict, why: str, tmp_path: Path) -> None:
    model = loaded("llama", tmp_path)
    with pytest.raises((PlanError, ValueError), match=why):
        with_language_exits(model, [LanguageExitShape(**fields)])


def test_encoders_have_none(tiny_classifier) -> None:
    with pytest.raises(InputError, match="models that generate"):
        with_language_exits(tiny_classifier, [KINDS["tied"]])


@pytest.mark.parametrize("kind", ["full", "gate", "tied"])
def test_some_tokens_get_the_logits_they_get_among_all(kind: str, tmp_path: Path) -> None:
    """A product of fewer columns, added up in another order: 1e-5 of the largest."""
    model = loaded("llama-grouped", tmp_path).transformer
    facts = model.architecture.model_copy(update={"language_head_scale": 0.3})
    head = LanguageHead(facts, KINDS[kind])
    start(head, model.final_norm, model.vocabulary_matrix)
    tokens = torch.tensor([40, 3, 77])
    corrected = head.corrected(torch.randn(6, facts.hidden_size))
    vocabulary = replace(model.vocabulary, unembed=lambda hidden: model.next_token(0.3 * hidden))
    whole = head.judged(corrected, vocabulary)
    for chosen, expected in ((None, whole), (tokens, whole[:, tokens])):
        found = head.among(corrected, model.vocabulary_matrix, chosen)
        assert (found - expected).abs().max() <= 1e-5 * whole.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8-weights", "int4"])
@pytest.mark.parametrize("family", ["gpt2", "llama-grouped"])
def test_a_head_asked_in_one_call_says_what_its_modules_say(
    family: str, precision: str, tmp_path: Path, monkeypatch
) -> None:
    """In bfloat16 the modules round in between: to 2 %; else sums in another order: 1e-5 of the largest."""
    made = with_language_exits(loaded(family, tmp_path), [KINDS["shortlist"]], words=range(0, 101, 5))
    for part in made.transformer.language_exits["1"].children():
        for weights in part.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    made.save_pretrained(tmp_path / "made")
    inner = lessen.load(tmp_path / "made", precision=precision).transformer
    head = inner.language_exits["1"]
    hidden = torch.randn(5, inner.architecture.hidden_size).to(head.norm.weight.dtype)
    room = 2e-2 if precision == "bfloat16" else 1e-5

    def compare() -> torch.Tensor:
        expected = head.judged(head.corrected(hidden), inner.vocabulary)
        with monkeypatch.context() as within:
            if native() is not None:
                within.setattr(head, "judged", lambda *_: pytest.fail("asked module by module"))
            found = head.outcomes(hidden, inner.vocabulary)
            alone = torch.cat([head.outcomes(row[None], inner.vocabulary) for row in hidden])
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= room * expected.abs().max()
        assert torch.equal(found, alone)
        return found

    first = compare()
    assert torch.equal(first, compare())
    head.norm.weight.mul_(1.5)
    second = compare()
    assert (first - second).abs().max() > 0.1
    head.words.add_(1)
    third = compare()
    assert (third - second)[:, :-1].abs().max() > 0.01
    assert torch.equal(third[:, -1], second[:, -1])
    if inner.vocabulary_matrix.is_floating_point():
        inner.vocabulary_matrix.mul_(2.0)
        assert torch.allclose(compare()[:, :-1], 2 * third[:, :-1], atol=1e-5)
    head.up.register_forward_hook(lambda *call: 0 * call[2])
    watched = head.outcomes(hidden, inner.vocabulary)
    assert torch.equal(watched, head.judged(head.corrected(hidden), inner.vocabulary))
