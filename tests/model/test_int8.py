"""Weights of 8 bits: close to float32, the same for every row alone, saved as such, and not trainable."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, CharacterTokenizer, lively, ragged_ids, run, tiny_hugging_face

import lessen
from lessen.depth.exits import every_exit
from lessen.errors import PlanError
from lessen.loading import load
from lessen.model.few_bits import Int8Linear
from lessen.model.rows import pack
from lessen.plan import Rank
from lessen.reshaping import in_few_bits, in_latents, in_signs, with_exits, with_shape
from lessen.width.removal import Units, narrowed, with_ranks


@pytest.fixture(params=sorted(TINY))
def model(request, tmp_path: Path):
    tiny_hugging_face(request.param).save_pretrained(tmp_path / "m")
    return lively(with_exits(load(tmp_path / "m"), exits=None))


def answers(model, lengths):
    ids, rows = pack(ragged_ids(lengths))
    with torch.no_grad():
        return torch.stack(every_exit(model.transformer, ids, rows))


def test_answers_stay_close_and_rows_do_not_feel_each_other(model):
    small = in_few_bits(model, "int8")
    assert small.precision == "int8"
    assert isinstance(small.transformer.layers[0].attention.qkv, Int8Linear)
    lengths = [1, 5, 5, 17]
    exact, found = answers(model, lengths), answers(small, lengths)
    assert (found - exact).norm() < 0.1 * exact.norm()
    sequences = ragged_ids(lengths)
    for row, sequence in enumerate(sequences):
        with torch.no_grad():
            alone = torch.stack(every_exit(small.transformer, *pack([sequence])))
        torch.testing.assert_close(found[:, row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_it_is_saved_and_loaded_in_8_bits(model, tmp_path: Path):
    small = in_few_bits(model, "int8")
    small.save_pretrained(tmp_path / "small")
    model.save_pretrained(tmp_path / "float")
    again = lessen.load(tmp_path / "small")
    assert again.precision == "int8"
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert tensor.dtype == again.state_dict()[name].dtype
    assert torch.equal(answers(small, [3, 9]), answers(again, [3, 9]))
    with pytest.raises(PlanError, match="saved with weights of 8 bits"):
        lessen.load(tmp_path / "small", precision="float32")
    loaded = lessen.load(tmp_path / "float", precision="int8")
    assert torch.equal(answers(loaded, [3, 9]), answers(small, [3, 9]))
    facts = json.loads(run("inspect", tmp_path / "small", "--json")[1])
    assert {layer["bits"] for layer in facts["layers"]} == {8}
    assert facts["bytes"] == (tmp_path / "small" / "model.safetensors").stat().st_size


def test_slim_layers_and_products_too(model):
    state, form = with_ranks(model.transformer.state_dict(), model.config.form(), [Rank(up=8)] * 3)
    kept = [Units((), (0, 5)), Units((1,), ()), Units((0, 2), (1, 2, 3))]
    state, form = narrowed(model.config.facts(), state, form, kept)
    slim = with_shape(model, form, state)
    exact, found = answers(slim, [2, 7]), answers(in_few_bits(slim, "int8"), [2, 7])
    assert (found - exact).norm() < 0.1 * exact.norm()
    assert (answers(in_few_bits(slim, "int4"), [2, 7]) - exact).norm() < 0.3 * exact.norm()
    for bits in (32, 8):  # sums of a few signs are often 0, which rounding in training gives a sign
        latent = in_latents(slim, activation_bits=bits)
        learned, packed = answers(latent, [2, 7]), answers(in_signs(latent), [2, 7])
        torch.testing.assert_close(packed, learned, rtol=1e-3, atol=1e-3)


def test_it_does_not_train(model):
    small = in_few_bits(model, "int8").train()
    ids, rows = pack(ragged_ids([4, 4]))
    with pytest.raises(PlanError, match="cannot be trained"):
        every_exit(small.transformer, ids, rows)


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4"])
def test_it_answers_where_gradients_are_on_and_asks_for_none(model, precision):
    small = in_few_bits(model, precision).eval()
    ids, rows = pack(ragged_ids([4, 4]))
    found = torch.stack(every_exit(small.transformer, ids, rows))
    assert not found.requires_grad
    torch.testing.assert_close(found, answers(small, [4, 4]), rtol=1e-4, atol=1e-4)


def test_points_stay_and_predictions_come(small: Path, tmp_path: Path):
    whole, few = lessen.load(small), lessen.load(small, precision="int8")
    assert list(few.points) == list(whole.points)
    assert few.config.point == whole.config.point
    assert all(point.promise is None or point.promise.kind != "certified" for point in few.points.values())
    texts = ["a good film", "a bad film"]
    same = [a.label == b.label for a, b in zip(few.predict(texts), whole.predict(texts), strict=True)]
    assert all(same)
    assert run("predict", small, "a good film", "--precision", "int8")[0] == 0


def test_embeddings_of_sentences(tmp_path: Path):
    tiny_hugging_face("bert", head=False).save_pretrained(tmp_path / "m")
    encoder, few = load(tmp_path / "m"), load(tmp_path / "m", precision="int8")
    for each in (encoder, few):
        each.tokenizer = CharacterTokenizer()
    a, b = encoder.embed(["some words"]), few.embed(["some words"])
    assert torch.cosine_similarity(torch.as_tensor(a), torch.as_tensor(b)).min() > 0.99
