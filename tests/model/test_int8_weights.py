"""Weights of 8 bits alone: the product as defined, nearer to the real model than `int8`, saved as such."""

import json
from pathlib import Path

import pytest
import torch
from conftest import early_generator, ragged_ids, run, tiny_generator

import lessen
from lessen.bits.conversion import with_int8
from lessen.bits.quantized import quantized
from lessen.errors import PlanError
from lessen.model.few_bits import Int8Weights
from lessen.model.rows import pack
from lessen.reshaping import in_few_bits, with_shape


@pytest.mark.parametrize("tokens", [1, 3, 64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_product_is_that_of_the_weights_it_stands_for(tokens: int, bias: bool, dtype) -> None:
    """Odd sizes; to 1e-5 of the largest value in float32, 1e-12 in float64."""
    generator = torch.Generator().manual_seed(0)
    part = Int8Weights(63, 41, bias=bias).eval()
    whole, steps = quantized(torch.randn(41, 63, generator=generator))
    part.weight.data, part.scales.data = whole.to(torch.int8), steps.squeeze(1)
    if bias:
        part.bias.data = torch.randn(41, generator=generator)
    values = torch.randn(tokens, 63, generator=generator).to(dtype)
    expected = values.double() @ (whole.double() * steps.double()).T + (part.bias.double() if bias else 0)
    found = part(values)
    assert found.dtype == dtype
    limit = 1e-5 if dtype == torch.float32 else 1e-12
    assert (found - expected).abs().max() <= limit * expected.abs().max()
    alone = torch.cat([part(values[row : row + 1]) for row in range(tokens)])
    assert (found - alone).abs().max() <= limit * expected.abs().max()


@torch.no_grad()
def test_logits_are_nearer_to_the_real_ones_than_with_rounded_inputs(generator: str, tmp_path: Path) -> None:
    """Within a twentieth, table and head of 8 bits included; with those of `int8` the layers are nearer."""
    tiny_generator(generator).save_pretrained(tmp_path)
    model, small = lessen.load(tmp_path), lessen.load(tmp_path, precision="int8-weights")
    assert small.precision == "int8-weights"
    assert small.transformer.vocabulary_matrix.dtype == torch.int8
    ids, rows = pack(ragged_ids([1, 20, 7]))
    state, form = model.transformer.state_dict(), model.config.form()
    layers = [with_shape(model, shape, made) for made, shape in (with_int8(state, form, b) for b in (8, 32))]
    logits = [inner.next_token(inner(ids, rows)[0]) for inner in (each.transformer for each in layers)]
    exact = model.transformer.next_token(model.transformer(ids, rows)[0])
    found = small.transformer.next_token(small.transformer(ids, rows)[0])
    assert (found - exact).norm() < 0.05 * exact.norm()
    rounded, alone = ((each - exact).norm() for each in logits)
    assert alone < rounded


def test_it_is_saved_loaded_inspected_and_timed_as_what_it_is(tmp_path: Path) -> None:
    model = early_generator(tmp_path / "m").float()
    small = in_few_bits(model, "int8-weights")
    small.save_pretrained(tmp_path / "small")
    again = lessen.load(tmp_path / "small")
    assert again.precision == "int8-weights"
    assert again.transformer.layers[0].attention.qkv.weight.dtype == torch.int8
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    for other in ("float32", "int8"):
        with pytest.raises(PlanError, match="saved with weights of 8 bits; load it in int8-weights"):
            lessen.load(tmp_path / "small", precision=other)
    code, out, err = run("inspect", tmp_path / "small", "--json")
    assert code == 0, err
    assert {(row["bits"], row["activation_bits"]) for row in json.loads(out)["layers"]} == {(8, 32)}
    with pytest.raises(PlanError, match="cannot be trained"):
        again.transformer.layers[0].feed_forward.down(torch.randn(2, 48, requires_grad=True))


@torch.no_grad()
def test_encoders_have_it_too(tiny_classifier) -> None:
    """Answers within a hundredth of the real ones, and nearer than with inputs of 8 bits."""
    from lessen.depth.exits import every_exit

    ids, rows = pack(ragged_ids([1, 5, 17]))
    exact, rounded, weights = (
        torch.stack(every_exit(model.transformer, ids, rows))
        for model in (
            tiny_classifier.eval(),
            in_few_bits(tiny_classifier, "int8"),
            in_few_bits(tiny_classifier, "int8-weights"),
        )
    )
    assert (weights - exact).norm() < 0.02 * exact.norm()
    assert (weights - exact).norm() < (rounded - exact).norm()


@torch.no_grad()
@pytest.mark.parametrize("precision", ["int8-weights", "int4"])
def test_a_short_list_keeps_its_rows_in_8_bits(precision: str, tmp_path: Path) -> None:
    """What it says of its words is what the table of 8 bits says, added up in another order: 1e-5."""
    early_generator(tmp_path, kind="shortlist").float().save_pretrained(tmp_path / "made")
    inner = lessen.load(tmp_path / "made", precision=precision).transformer
    head, hidden = inner.language_exits["3"], torch.randn(5, inner.architecture.hidden_size)
    corrected = head.corrected(hidden)
    judged = head.judged(corrected, inner.vocabulary)
    whole = inner.next_token(corrected)
    assert (judged[:, :-1] - whole[:, head.words]).abs().max() <= 1e-5 * whole.abs().max()
    rows = inner.vocabulary.listed(head.words).rows
    assert isinstance(rows, Int8Weights)
    assert rows.weight.dtype == torch.int8
