"""Words are hidden as they should be and guessed better; a stopped training goes on to the same weights."""

from pathlib import Path

import pytest
import torch
from conftest import GOOD

import lessen
from lessen.errors import InputError, Interrupted, LessenError
from lessen.reshaping import in_latents
from lessen.train import fine_tuning
from lessen.train.fine_tuning import Recipe
from lessen.train.masked_words import Guessing, Vocabulary, guessed, learn_words, pieces

TEXTS = [f"{text} number {i}" for i in range(60) for text in GOOD]
RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=5e-3, seed=1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return in_latents(lessen.load("builtin:beexformer-test"))


def vocabulary(model) -> Vocabulary:
    return Vocabulary(model.tokenizer, 1000)


def test_words_are_hidden_and_special_tokens_never_are(model) -> None:
    known = vocabulary(model)
    ids = torch.cat([torch.tensor(piece.ids) for piece in pieces(model.tokenizer, TEXTS * 20, 64)])
    shown, chosen = known.hide(ids, 0.15, torch.Generator().manual_seed(0))
    special = torch.isin(ids, torch.tensor(model.tokenizer.all_special_ids))
    assert special.any()
    assert not chosen[special].any()
    assert torch.equal(shown[~chosen], ids[~chosen])
    ordinary = (~special).sum()
    assert chosen.sum() / ordinary == pytest.approx(0.15, abs=0.01)
    masked, same = shown[chosen] == model.tokenizer.mask_token_id, shown[chosen] == ids[chosen]
    assert masked.float().mean() == pytest.approx(0.8, abs=0.02)
    assert same.float().mean() == pytest.approx(0.1, abs=0.02)
    others = shown[chosen][~masked]
    assert not torch.isin(others, torch.tensor(model.tokenizer.all_special_ids)).any()
    assert others.max() < len(model.tokenizer)


def test_pieces_leave_nothing_out(model) -> None:
    text = " ".join(TEXTS[:30])
    whole = model.tokenizer(text)["input_ids"][1:-1]
    cut = pieces(model.tokenizer, [text, ("a pair", "of texts")], 20)
    assert max(len(piece.ids) for piece in cut) == 20
    assert [number for piece in cut[:-2] for number in piece.ids[1:-1]] == whole
    assert [piece.ids[0] for piece in cut] == [model.tokenizer.cls_token_id] * len(cut)
    assert cut[-1].ids == model.tokenizer("of texts")["input_ids"]


def test_hidden_words_are_guessed_better_and_the_head_is_not_kept(model, tmp_path: Path) -> None:
    encoded = pieces(model.tokenizer, TEXTS, 64)
    before = guessed(Guessing(model.transformer, vocabulary(model), 0.15).eval(), encoded)
    names = set(model.state_dict())
    _, guessing = learn_words(model, encoded, RECIPE, 0.15, tmp_path, quiet=True)
    after = guessed(guessing, encoded)
    assert after["words"] == before["words"] > 100
    assert after["loss"] < 0.6 * before["loss"]
    assert after["accuracy"] > before["accuracy"] + 0.2
    assert set(model.state_dict()) == names


def test_a_stopped_training_goes_on_to_the_same_weights(model, tmp_path: Path, monkeypatch) -> None:
    encoded = pieces(model.tokenizer, TEXTS, 64)
    begin = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learn_words(model, encoded, RECIPE, 0.15, tmp_path / "whole", quiet=True)
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(begin)

    class Stopping(fine_tuning.StopAtStepEnd):
        def on_step_end(self, args, state, control, **kwargs):
            self.asked = state.global_step == 20
            return super().on_step_end(args, state, control, **kwargs)

    monkeypatch.setattr(fine_tuning, "StopAtStepEnd", Stopping)
    with pytest.raises(Interrupted, match="stopped after step 20"):
        learn_words(model, encoded, RECIPE, 0.15, tmp_path / "parts", quiet=True)
    monkeypatch.undo()
    model.load_state_dict(begin)
    record, _ = learn_words(model, encoded, RECIPE, 0.15, tmp_path / "parts", quiet=True)
    assert record["resumed"]
    assert all(torch.equal(tensor, whole[name]) for name, tensor in model.state_dict().items())


def test_a_loss_that_is_no_number_ends_training(model, tmp_path: Path) -> None:
    model.transformer.layers[0].attention.output.bias.data[0] = float("nan")
    with pytest.raises(LessenError, match="the loss of step 1 is nan, not a finite number"):
        learn_words(model, pieces(model.tokenizer, TEXTS, 32), RECIPE, 0.15, tmp_path, quiet=True)


def test_a_tokenizer_without_a_mask_is_refused(model) -> None:
    model.tokenizer.mask_token = None
    with pytest.raises(InputError, match="no mask token"):
        vocabulary(model)
