"""Every family equals its Hugging Face model: fp32 to 1e-5 of the largest logit, fp64 to 1e-9."""

from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, tiny_hugging_face

import lessen
from lessen.model.rows import pack
from lessen.runtime.engine import run

LENGTHS = [1, 64, 7, 7, 2, 33, 1, 50]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


def saved(family: str, folder: Path, **changes):
    model = tiny_hugging_face(family, **changes)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_equal_hugging_face(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = saved(family, tmp_path).to(dtype)
    ours = lessen.load(tmp_path).to(dtype)
    sequences = ragged_ids(LENGTHS)
    ids, mask = padded(sequences, theirs.config.pad_token_id)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).logits
        from_padded = ours(input_ids=ids, attention_mask=mask).logits
        pad_free = run(ours.transformer, *pack(sequences)).logits
    scale = expected.abs().max()
    assert (from_padded - expected).abs().max() <= TOLERANCE[dtype] * scale
    assert (pad_free - expected).abs().max() <= TOLERANCE[dtype] * scale


def test_hidden_states_equal_hugging_face(family: str, tmp_path: Path) -> None:
    theirs = saved(family, tmp_path, head=False)
    ours = lessen.load(tmp_path)
    ids, mask = padded(ragged_ids(LENGTHS), theirs.config.pad_token_id)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
        found = ours(input_ids=ids, attention_mask=mask).last_hidden_state
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_segments_reach_the_embeddings(family: str, tmp_path: Path) -> None:
    theirs = saved(family, tmp_path)
    ours = lessen.load(tmp_path)
    ids, mask = padded(ragged_ids(LENGTHS), 0)
    segments = (torch.arange(ids.shape[1]) > 3).long().expand_as(ids)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=segments).logits
        found = ours(input_ids=ids, attention_mask=mask, token_type_ids=segments).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_padding_side_does_not_matter(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    ours = lessen.load(tmp_path)
    right, left = (padded(ragged_ids(LENGTHS), 0, side) for side in ("right", "left"))
    with torch.no_grad():
        a, b = (ours(input_ids=ids, attention_mask=mask).logits for ids, mask in (right, left))
    assert torch.equal(a, b)


def test_gradients_equal_hugging_face(family: str, tmp_path: Path) -> None:
    theirs = saved(family, tmp_path).double()
    ours = lessen.load(tmp_path).double()
    ids, mask = padded(ragged_ids(LENGTHS), theirs.config.pad_token_id)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    theirs(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    ours.train()
    for module in ours.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    ours(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    expected = theirs.get_input_embeddings().weight.grad
    found = ours.get_input_embeddings().weight.grad
    assert expected is not None
    assert found is not None
    expected[theirs.config.pad_token_id] = 0
    found[theirs.config.pad_token_id] = 0
    assert (found - expected).abs().max() <= 1e-9 * expected.abs().max()
