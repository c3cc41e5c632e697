"""T5 in both versions equals Hugging Face's: fp32 to 1e-5 of the largest logit, fp64 to 1e-9."""

from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, tiny_seq2seq
from torch import nn

import lessen
from lessen.model.cross import Source
from lessen.model.rows import pack
from lessen.reshaping import export_hugging_face

SOURCES = [1, 40, 7, 7, 2, 23, 60]
TARGETS = [9, 1, 12, 30, 12, 2, 5]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


def both(family: str, folder: Path, dtype: torch.dtype = torch.float32, **changes):
    """Theirs and ours with the same weights."""
    theirs = tiny_seq2seq(family, **changes)
    theirs.save_pretrained(folder)
    return in_full(theirs.to(dtype)), lessen.load(folder).to(dtype)


def in_full(model):
    """transformers norms in float32 even in a float64 model, which alone would differ by 1e-7: not here."""
    for part in model.modules():
        if type(part).__name__ == "T5LayerNorm":
            plain = nn.RMSNorm(part.weight.shape, eps=part.variance_epsilon, dtype=part.weight.dtype)
            plain.weight = part.weight
            part.forward = plain.forward
    return model


def sides(side: str = "right"):
    (ids, mask), (target, of_target) = (
        padded(ragged_ids(lengths, seed), 0, side) for seed, lengths in enumerate((SOURCES, TARGETS))
    )
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "decoder_input_ids": target,
        "decoder_attention_mask": of_target,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_logits_equal_hugging_face(seq2seq: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs, ours = both(seq2seq, tmp_path, dtype)
    batch = sides()
    sources, targets = ragged_ids(SOURCES, 0), ragged_ids(TARGETS, 1)
    with torch.no_grad():
        expected = theirs(**batch).logits * batch["decoder_attention_mask"][..., None]
        from_padded = ours(**batch).logits
        source = Source(*ours.transformer(*pack(sources)))
        hidden, rows = ours.transformer.write(*pack(targets), source=source)
        pad_free = ours.transformer.next_token(hidden[rows.last])
    scale = expected.abs().max()
    assert (from_padded - expected).abs().max() <= TOLERANCE[dtype] * scale
    last = expected[torch.arange(len(sources)), torch.tensor(TARGETS) - 1]
    assert (rows.restore(pad_free) - last).abs().max() <= TOLERANCE[dtype] * scale


def test_padding_side_does_not_matter(tmp_path: Path) -> None:
    _, ours = both("t5", tmp_path)
    right, left = sides("right"), sides("left")
    with torch.no_grad():
        a, b = (ours(**batch).logits[batch["decoder_attention_mask"].bool()] for batch in (right, left))
    assert torch.equal(a, b)


def test_loss_and_gradients_equal_hugging_face(seq2seq: str, tmp_path: Path) -> None:
    theirs, ours = both(seq2seq, tmp_path, torch.float64)
    batch = sides()
    labels = batch.pop("decoder_input_ids").masked_fill(batch.pop("decoder_attention_mask") == 0, -100)
    expected, found = (model(**batch, labels=labels).loss for model in (theirs, ours))
    assert abs(found - expected) <= 1e-9 * expected
    for loss in (expected, found):
        loss.backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for part in ours.parameters():
        part.data = part.grad
    compared = 0
    for name, gradient in export_hugging_face(ours).items():
        if (known := gradients.get(name)) is not None:
            assert (gradient - known).abs().max() <= 1e-9 * max(known.abs().max(), 1e-3), name
            compared += 1
    assert compared == len(gradients)


def test_export_gives_the_checkpoint_back(seq2seq: str, tmp_path: Path) -> None:
    theirs = tiny_seq2seq(seq2seq)
    theirs.save_pretrained(tmp_path)
    state, expected = export_hugging_face(lessen.load(tmp_path)), theirs.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name]), name


def test_the_head_is_read_off_the_weights(tmp_path: Path) -> None:
    """transformers calls both tied; whether they are is one thing, whether states are scaled another."""
    for family, kind, scale in (("t5", "tied", 1 / 6), ("t5-v1.1", "own", 1.0)):
        tiny_seq2seq(family).save_pretrained(tmp_path / family)
        facts = lessen.load(tmp_path / family).config.facts()
        assert (facts.language_head, facts.language_head_scale) == (kind, pytest.approx(scale))


@pytest.mark.parametrize("acts", ["relu", "gated-gelu", "gated-silu", "silu"])
def test_the_other_feed_forward_halves(acts: str, tmp_path: Path) -> None:
    theirs, ours = both("t5", tmp_path, feed_forward_proj=acts)
    batch = sides()
    with torch.no_grad():
        expected = theirs(**batch).logits * batch["decoder_attention_mask"][..., None]
        assert (ours(**batch).logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_real_shapes(tmp_path: Path) -> None:
    """flan-t5-small: 8 + 8 layers, 512 wide, heads that are together narrower; a smaller vocabulary."""
    theirs, ours = both(
        "t5-v1.1", tmp_path, vocab_size=2000, d_model=512, d_kv=64, d_ff=1024, num_layers=8,
        num_decoder_layers=8, num_heads=6, relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
    )  # fmt: skip
    for model in (theirs, ours):
        for part in model.parameters():
            part.data.mul_(0.2)
    (ids, mask), (target, _) = padded(ragged_ids([150, 3]), 0), padded(ragged_ids([6, 6], 1), 0)
    with torch.no_grad():
        expected, found = (
            m(ids, attention_mask=mask, decoder_input_ids=target).logits for m in (theirs, ours)
        )
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_lost_language_head_is_noticed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny_seq2seq("t5").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    lost = "decoder.block.1.layer.1.EncDecAttention.k.weight"
    del state[lost]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(lessen.LessenError, match=rf"lack {lost}"):
        lessen.load(tmp_path)
