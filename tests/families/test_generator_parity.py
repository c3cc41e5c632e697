"""Every decoder equals its Hugging Face model: fp32 to 1e-5 of the largest logit, fp64 to 1e-9."""

from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, tiny_generator
from torch import nn

import lessen
from lessen.errors import UnsupportedModelError
from lessen.families.family import Family
from lessen.model.rows import pack
from lessen.reshaping import export_hugging_face

LENGTHS = [1, 64, 7, 7, 2, 33, 1, 50]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


def both(family: str, folder: Path, dtype: torch.dtype = torch.float32, **changes):
    """Theirs and ours with the same weights."""
    theirs = tiny_generator(family, **changes)
    theirs.save_pretrained(folder)
    return in_full(theirs.to(dtype)), lessen.load(folder).to(dtype)


def in_full(model):
    """transformers norms in float32 even in a float64 model, which alone would differ by 1e-7: not here."""
    for part in model.modules():
        if type(part).__name__.endswith("RMSNorm"):
            plain = nn.RMSNorm(part.weight.shape, eps=part.variance_epsilon, dtype=part.weight.dtype)
            plain.weight = part.weight
            part.forward = plain.forward
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_equal_hugging_face(generator: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs, ours = both(generator, tmp_path, dtype)
    sequences = ragged_ids(LENGTHS)
    ids, mask = padded(sequences, 0)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).logits * mask[..., None]
        from_padded = ours(input_ids=ids, attention_mask=mask).logits
        hidden, rows = ours.transformer(*pack(sequences))
        pad_free = ours.transformer.next_token(hidden[rows.last])
    scale = expected.abs().max()
    assert (from_padded - expected).abs().max() <= TOLERANCE[dtype] * scale
    last = expected[torch.arange(len(ids)), mask.sum(1) - 1]
    assert (rows.restore(pad_free) - last).abs().max() <= TOLERANCE[dtype] * scale


def test_left_padding_gives_the_same(tmp_path: Path) -> None:
    _, ours = both("llama-grouped", tmp_path)
    right, left = (padded(ragged_ids(LENGTHS), 0, side) for side in ("right", "left"))
    with torch.no_grad():
        a, b = (ours(input_ids=ids, attention_mask=mask).logits[mask.bool()] for ids, mask in (right, left))
    assert torch.equal(a, b)


def test_loss_and_gradients_equal_hugging_face(generator: str, tmp_path: Path) -> None:
    theirs, ours = both(generator, tmp_path, torch.float64)
    ids, mask = padded(ragged_ids(LENGTHS), 0)
    labels = ids.masked_fill(mask == 0, -100)
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    found = ours(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert abs(found - expected) <= 1e-6 * expected  # transformers computes this loss in float32
    for loss in (expected, found):
        loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for part in ours.parameters():
        part.data = part.grad
    for name, gradient in export_hugging_face(ours).items():
        if (known := gradients.get(name)) is not None:
            assert (gradient - known).abs().max() <= 1e-6 * max(known.abs().max(), 1e-3), name


def test_export_gives_the_checkpoint_back(generator: str, tmp_path: Path) -> None:
    theirs = tiny_generator(generator)
    theirs.save_pretrained(tmp_path)
    state, expected = export_hugging_face(lessen.load(tmp_path)), theirs.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name]), name


SCALED = {
    "linear": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    | {"original_max_position_embeddings": 16, "rope_theta": 1e4},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4},
}


@pytest.mark.parametrize("kind", sorted(SCALED))
def test_scaled_rotary_positions(kind: str, tmp_path: Path) -> None:
    theirs, ours = both("llama-grouped", tmp_path, rope_parameters=SCALED[kind])
    assert torch.tensor(ours.config.facts().rotary.inverse_frequencies).equal(
        theirs.model.rotary_emb.inv_freq
    )
    ids, mask = padded(ragged_ids([60, 3]), 0)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).logits * mask[..., None]
        found = ours(input_ids=ids, attention_mask=mask).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


REFUSED = [
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "'dynamic'"),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, "use_sliding_window=True"),
    ("qwen3", {"layer_types": ["sliding_attention"] * 3}, "sliding_attention"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
]


@pytest.mark.parametrize(("family", "changes", "named"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_cannot_be_run_is_refused(family: str, changes: dict, named: str, tmp_path: Path) -> None:
    tiny_generator(family, **changes).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=named):
        lessen.load(tmp_path)


def test_a_decoder_that_classifies_is_refused(tmp_path: Path) -> None:
    model = tiny_generator("gpt2")
    model.config.architectures = ["GPT2ForSequenceClassification"]
    model.config.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="classifies"):
        lessen.load(tmp_path)


def test_a_lost_language_head_is_noticed(tmp_path: Path) -> None:
    tiny_generator("llama").model.save_pretrained(tmp_path)
    with pytest.raises(lessen.LessenError, match=r"lack lm_head\.weight"):
        lessen.load(tmp_path)


def test_families_say_what_a_part_is_once() -> None:
    """Parts whose tensors are arranged in another way are parts there are."""
    from lessen.families import FAMILIES

    for family in FAMILIES.values():
        assert isinstance(family, Family)
        assert set(family.layouts) <= {*family.parts, *family.stem}
