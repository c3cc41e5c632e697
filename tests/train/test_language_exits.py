"""Training exits of a frozen generator: what changes, what does not, stopping, going on, and time."""

import os
import signal
from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, tiny_generator

import lessen
from lessen.depth import language_losses
from lessen.depth.language import states_at_exits, tokens_that_count
from lessen.errors import InputError, Interrupted, LessenError
from lessen.model.rows import pack
from lessen.plan import LanguageExitShape
from lessen.reshaping import with_language_exits
from lessen.runtime.text import stretches
from lessen.train import language_exits
from lessen.train.language_exits import LanguageRecipe, learn, train_exits

EXITS = [
    LanguageExitShape(layer=1, kind="gate", rank=12),
    LanguageExitShape(layer=2, kind="full"),
]
TEXTS = [ids.tolist() for ids in ragged_ids([40, 7, 3, 66, 12, 25, 31, 2, 19, 50, 9, 28], seed=3)]
RECIPE = LanguageRecipe(steps=30, batch_size=3, update_tokens=1000, max_tokens=32, learning_rate=0.02)


@pytest.fixture
def made(tmp_path: Path, monkeypatch):
    """A tiny model with two exits; the backbone in float32, so that results can be compared closely."""
    monkeypatch.setattr(language_exits, "_pays", lambda: False)
    tiny_generator("llama-grouped").save_pretrained(tmp_path / "base")
    base = lessen.load(tmp_path / "base")

    def make(exits=EXITS, **options):
        return with_language_exits(base, exits, words=range(101), **options)

    return make


def measured(model, rows, recipe=RECIPE) -> tuple[float, int]:
    """`learn`, with no update made."""
    language_exits._only_exits_learn(model)
    return learn(model, rows, recipe, torch.Generator().manual_seed(0), lambda: None)


def heads(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.transformer.language_exits.state_dict().items()}


def test_a_step_is_the_mean_over_tokens_and_exits_row_by_row(made, monkeypatch) -> None:
    """Against rows run alone, without chunks, their first tokens left out. Float32: 1e-5."""
    model = made().transformer
    rows = [torch.tensor(text) for text in TEXTS[:3]]
    terms = []
    for row in rows:
        states = []

        def after(layer, hidden, layout, states=states):
            states.append(hidden)
            return hidden, layout

        with torch.no_grad():
            last, _ = model(row, pack([row])[1], after_layer=after)
            teacher = model.next_token(last).log_softmax(-1)
        for layer in (1, 2):
            head = model.language_exits[str(layer)]
            student = head(states[layer - 1], model.vocabulary).log_softmax(-1)
            terms.append((teacher.exp() * (teacher - student)).sum(-1)[1:])
    expected = torch.cat(terms).mean()
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.language_exits.named_parameters() if p.grad is not None}
    model.zero_grad()
    monkeypatch.setattr(language_losses, "LOGITS_BYTES", 5 * 101 * 4)
    loss, tokens = measured(model, rows)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert tokens == sum(len(row) - 1 for row in rows)
    for name, parameter in model.language_exits.named_parameters():
        if "probe" not in name:
            close = torch.allclose(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)
            assert close, name


def test_updates_share_a_pass_of_the_backbone(made, tmp_path: Path, monkeypatch) -> None:
    """Every token once, in updates of 16; more of them learn more from the same text."""
    seen, passes = [], []
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, real=torch.optim.AdamW.step: seen.append(real(self))
    )
    states = language_exits.states_at_exits
    monkeypatch.setattr(language_exits, "states_at_exits", lambda *args: passes.append(1) or states(*args))
    rows, ends = stretches(TEXTS, 32), {}
    for each in (1000, 16):
        model = made().transformer
        recipe = RECIPE.model_copy(update={"steps": 8, "update_tokens": each})
        seen.clear(), passes.clear()
        record = train_exits(model, TEXTS, recipe, tmp_path / str(each), quiet=True)
        assert len(passes) == record["steps"] == 8
        assert (len(seen) == 8) == (each == 1000)
        assert len(seen) <= 8 or len(seen) >= record["tokens"] / 16
        ends[each], _ = measured(model, rows)
    assert ends[16] < ends[1000]


def test_some_of_the_vocabulary_teaches_nearly_what_all_of_it_does(made, monkeypatch) -> None:
    """The mean over 300 draws of loss and gradient of 20 of 101 tokens: within 15 % of those of all."""
    monkeypatch.setattr(language_losses, "LIKELIEST", 1)
    model = made([LanguageExitShape(layer=2, kind="tied", rank=12)]).transformer
    rows = stretches(TEXTS, 32)[:1]
    language_exits._only_exits_learn(model)
    draw = torch.Generator().manual_seed(0)

    def of(drawn: int, times: int) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        recipe = RECIPE.model_copy(update={"drawn": drawn})
        losses = [learn(model, rows, recipe, draw, lambda: None)[0] for _ in range(times)]
        return sum(losses) / times, model.language_exits["2"].up.weight.grad / times

    (whole, expected), (some, found) = of(101, 1), of(20, 300)
    assert some == pytest.approx(whole, rel=0.15)
    assert some != whole
    assert float((found - expected).norm()) < 0.15 * float(expected.norm())


def test_entropy_is_that_of_the_whole_vocabulary(made, monkeypatch) -> None:
    """`penalized` rewards it, so it looks at all tokens; `imitation` does not."""
    monkeypatch.setattr(language_losses, "LIKELIEST", 1)
    model, rows = made().transformer, stretches(TEXTS, 32)

    def of(objective: str, drawn: int) -> float:
        return measured(model, rows, RECIPE.model_copy(update={"objective": objective, "drawn": drawn}))[0]

    assert of("penalized", 20) == of("penalized", 101)
    assert of("imitation", 20) != of("imitation", 101)


def test_a_short_list_learns_its_words_and_that_it_is_none_of_them(made) -> None:
    """The mean KL of shares that are added up by hand, over heads of two lists and one of all tokens."""
    shapes = [
        LanguageExitShape(layer=1, kind="shortlist", rank=4, words=10),
        LanguageExitShape(layer=2, kind="tied", rank=4),
    ]
    model = made(shapes).transformer
    texts = [torch.tensor(text) for text in TEXTS[:3]]
    with torch.no_grad():
        states, last = states_at_exits(model, *pack(texts))
        counted = tokens_that_count(model, pack(texts)[1])
        shares = model.next_token(last[counted]).softmax(-1)
        listed = torch.cat([shares[:, :10], shares[:, 10:].sum(1, keepdim=True)], 1)
        short, tied = (model.language_exits[str(layer)] for layer in (1, 2))
        guess = short.judged(short.corrected(states[0][counted]), model.vocabulary).softmax(-1)
        whole = tied(states[1][counted], model.vocabulary).softmax(-1)
        expected = (listed * (listed / guess).log()).sum() + (shares * (shares / whole).log()).sum()
    found, tokens = measured(model, texts)
    assert tokens == len(counted)
    assert found == pytest.approx(float(expected) / (2 * tokens), rel=1e-4)
    assert short.elsewhere.weight.grad.abs().max() > 0


@pytest.mark.parametrize("objective", ["imitation", "penalized"])
def test_exits_learn_and_nothing_else_changes(made, tmp_path: Path, objective: str) -> None:
    """P6: the backbone has no gradient and the same bytes; every part of every head has moved."""
    model = made(seed=1)
    before = {name: value.clone() for name, value in model.transformer.state_dict().items()}
    recipe = RECIPE.model_copy(update={"objective": objective, "penalty": 0.1})
    rows = stretches(TEXTS, 32)
    start, _ = measured(model.transformer, rows, recipe)
    model.zero_grad()
    record = train_exits(model.transformer, TEXTS, recipe, tmp_path / "work", quiet=True)
    end, _ = measured(model.transformer, rows, recipe)
    assert end < 0.8 * start
    assert record["steps"] == 30
    assert record["ended_by"] == "steps"
    assert not model.training
    for name, value in model.transformer.state_dict().items():
        learns = name.startswith("language_exits.") and not name.endswith("cut")
        assert torch.equal(value, before[name]) != learns, name
    backbone = [p for n, p in model.transformer.named_parameters() if not n.startswith("language_exits.")]
    assert all(parameter.grad is None for parameter in backbone)


def test_a_stopped_run_goes_on_to_the_same_weights(made, tmp_path: Path, monkeypatch) -> None:
    whole, stopped, again = made(), made(), made()
    train_exits(whole.transformer, TEXTS, RECIPE, tmp_path / "whole", quiet=True)
    real, calls = language_exits.learn, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 11:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(language_exits, "learn", interrupted)
    with pytest.raises(Interrupted, match="after step 11"):
        train_exits(stopped.transformer, TEXTS, RECIPE, tmp_path / "work", quiet=True)
    record = train_exits(again.transformer, TEXTS, RECIPE, tmp_path / "work", quiet=True)
    assert (record["resumed"], record["steps"], len(calls)) == (True, 30, 30)
    expected = heads(whole)
    for name, value in heads(again).items():
        assert torch.equal(value, expected[name]), name


def test_time_ends_a_run_with_its_rate_at_zero(made, tmp_path: Path, monkeypatch) -> None:
    clock = iter(range(0, 10**6, 5))
    monkeypatch.setattr(language_exits.time, "monotonic", lambda: float(next(clock)))
    rates = []
    real = torch.optim.AdamW.step

    def step(self, *arguments):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    recipe = RECIPE.model_copy(update={"steps": 10_000, "time_limit": 100.0})
    record = train_exits(made().transformer, TEXTS, recipe, tmp_path, quiet=True)
    assert record["ended_by"] == "time"
    assert record["seconds"] >= 100
    assert record["steps"] < 30
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * recipe.learning_rate


def test_bfloat16_backbone_teaches_nearly_the_same(made, monkeypatch) -> None:
    """Eight bits of mantissa: losses within 2 %."""
    model = made().transformer
    rows = stretches(TEXTS, 32)
    exact, _ = measured(model, rows)
    monkeypatch.setattr(language_exits, "_pays", lambda: True)
    rounded, _ = measured(model, rows)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.02)


def test_documents_are_cut_into_stretches() -> None:
    parts = stretches([list(range(10)), [5], [1, 2]], 4)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [1, 2]]


def test_no_text_is_refused(made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text"):
        train_exits(made().transformer, [[1]], RECIPE, tmp_path)


@pytest.mark.parametrize("name", ["imitation", "penalized"])
def test_a_loss_that_is_no_number_ends_training(made, name: str, tmp_path: Path) -> None:
    model = made().transformer
    model.layers[0].attention.output.weight.data[0, 0] = float("nan")
    recipe = RECIPE.model_copy(update={"objective": name})
    with pytest.raises(LessenError, match="the loss of step 1 is nan, not a finite number"):
        train_exits(model, TEXTS, recipe, tmp_path / "work", quiet=True)
    assert not (tmp_path / "work").exists()
