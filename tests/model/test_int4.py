"""Weights of 4 bits: what they were rounded to, in one call for each layer, saved and certified as such."""

import json
from pathlib import Path

import pytest
import torch
from conftest import early_generator, ragged_ids, run, tiny_generator
from safetensors.torch import load_file, save_file

import lessen
from lessen.bits import fours
from lessen.errors import ArtefactError, PlanError
from lessen.model.few_bits import Int4Linear
from lessen.model.rows import pack
from lessen.model.transformer import parameter_counts
from lessen.reshaping import in_few_bits


@torch.no_grad()
def test_it_computes_what_its_weights_stand_for(generator: str, tmp_path: Path) -> None:
    """As the float model with its matrices rounded, but for inputs of 8 bits: within a twentieth."""
    tiny_generator(generator).save_pretrained(tmp_path)
    model, small = lessen.load(tmp_path), lessen.load(tmp_path, precision="int4")
    assert small.precision == "int4"
    ids, rows = pack(ragged_ids([1, 20, 7]))
    for block in model.transformer.layers:
        for part in (
            block.attention.qkv,
            block.attention.output,
            block.feed_forward.up,
            block.feed_forward.down,
        ):
            part.weight.copy_(fours.unpack(fours.fit(part.weight), part.weight.shape[1]))
    exact, found = (each.transformer.next_token(each.transformer(ids, rows)[0]) for each in (model, small))
    assert 0 < (found - exact).norm() < 0.05 * exact.norm()


def test_it_is_saved_loaded_and_inspected_as_what_it_is(tmp_path: Path) -> None:
    small = in_few_bits(early_generator(tmp_path / "m").float(), "int4")
    small.save_pretrained(tmp_path / "small")
    again = lessen.load(tmp_path / "small")
    assert again.precision == "int4"
    part = again.transformer.layers[0].attention.qkv
    assert isinstance(part, Int4Linear)
    assert part.weight.shape == (part.out_features, fours.bytes_for(part.in_features))
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with pytest.raises(PlanError, match="saved with weights of 4 bits; load it in int4"):
        lessen.load(tmp_path / "small", precision="float32")
    code, out, err = run("inspect", tmp_path / "small", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert {(row["bits"], row["activation_bits"]) for row in facts["layers"]} == {(4, 8)}
    assert facts["embedding_bits"] == 8
    assert facts["parameters"] == parameter_counts(early_generator(tmp_path / "other").transformer)
    layers = (block.state_dict().items() for block in again.transformer.layers)
    blocks = sum(
        tensor.numel()
        for state in layers
        for name, tensor in state
        if name.endswith("weight") and tensor.dtype == torch.uint8
    )
    assert 0 <= facts["bytes_by_part"]["weights"] - blocks < 0.1 * blocks + 1  # biases, if there are any
    with pytest.raises(PlanError, match="4 bits cannot be trained"):
        part(torch.randn(2, part.in_features, requires_grad=True))


def test_damaged_blocks_are_refused(tmp_path: Path) -> None:
    in_few_bits(early_generator(tmp_path / "m").float(), "int4").save_pretrained(tmp_path / "small")
    file = tmp_path / "small" / "model.safetensors"
    state = load_file(file)
    state["transformer.layers.0.attention.qkv.weight"][0, 5] ^= 1
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ArtefactError, match=r"layers\.0\.attention\.qkv\.weight: its checksum"):
        lessen.load(tmp_path / "small", promises=False)


@torch.no_grad()
def test_encoders_have_it_too(tiny_classifier) -> None:
    """Answers within a fifth of the real ones (the model is of 4 bits and random), tables in float32."""
    from lessen.depth.exits import every_exit

    ids, rows = pack(ragged_ids([1, 5, 17]))
    small = in_few_bits(tiny_classifier.eval(), "int4")
    assert small.config.form().embedding_bits == 32
    exact, found = (torch.stack(every_exit(each.transformer, ids, rows)) for each in (tiny_classifier, small))
    assert (found - exact).norm() < 0.2 * exact.norm()
