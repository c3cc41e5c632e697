"""Encoder-decoder models in few bits: both stacks, as defined, decoded and saved as such."""

import json
from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, run, tiny_seq2seq

import lessen
from lessen.errors import PlanError
from lessen.model.cross import Source
from lessen.model.few_bits import FewBits
from lessen.model.rows import pack
from lessen.plan import Shape
from lessen.reshaping import with_shape
from lessen.runtime.answers import score_answers
from lessen.runtime.generation import generate

PRECISIONS = ("int8", "int8-weights", "int4")
ANSWERS = [[5, 1], [6, 7, 1], [9]]


def logits(model) -> torch.Tensor:
    """Of a decoder after prompts, in one pass without a cache."""
    inner = model.transformer
    source = Source(*inner(*pack(ragged_ids([1, 9, 5]))))
    hidden, _ = inner.write(*pack(ragged_ids([4, 2, 7])), source=source)
    return inner.next_token(hidden)


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_stacks_are_converted(seq2seq: str, precision: str, tmp_path: Path) -> None:
    """Logits near to the real ones, by how much is rounded."""
    tiny_seq2seq(seq2seq).save_pretrained(tmp_path)
    model, small = lessen.load(tmp_path), lessen.load(tmp_path, precision=precision)
    assert small.precision == precision
    for block in (*small.transformer.layers, *small.transformer.decoder.layers):
        matrices = [part for part in block.modules() if getattr(part, "weight", torch.empty(0)).dim() == 2]
        assert matrices
        assert all(isinstance(part, FewBits) for part in matrices)
    exact = logits(model)
    off = float((logits(small) - exact).norm() / exact.norm())
    assert 0 < off < {"int8": 0.1, "int8-weights": 0.05, "int4": 0.5}[precision]


@torch.no_grad()
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_cached_decoder_names_what_one_pass_names(seq2seq: str, precision: str, tmp_path: Path) -> None:
    """To 1e-4 of a logit's size; rows do not depend on their neighbours."""
    tiny_seq2seq(seq2seq).save_pretrained(tmp_path)
    inner = lessen.load(tmp_path, precision=precision).transformer
    prompts = [ids.tolist() for ids in ragged_ids([6, 1, 13])]
    steps = list(generate(inner, prompts, max_new_tokens=7))
    for row, prompt in enumerate(prompts):
        source = Source(*inner(*pack([torch.tensor(prompt)])))
        tokens = [step[row] for step in steps]
        text = torch.tensor([inner.architecture.decoder_start_token_id, *tokens[:-1]])
        named = inner.next_token(inner.write(*pack([text]), source=source)[0])
        behind = named.amax(-1) - named.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        assert (behind <= 1e-4 * named.abs().amax(-1)).all()
    together = score_answers(inner, prompts, ANSWERS)
    alone = torch.cat([score_answers(inner, [prompt], ANSWERS) for prompt in prompts])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_is_saved_loaded_and_inspected_as_what_it_is(precision: str, tmp_path: Path) -> None:
    tiny_seq2seq("t5-v1.1").save_pretrained(tmp_path / "m")
    small = lessen.load(tmp_path / "m", precision=precision)
    small.save_pretrained(tmp_path / "small")
    again = lessen.load(tmp_path / "small")
    assert again.precision == precision
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    whole = (tmp_path / "m" / "model.safetensors").stat().st_size
    assert (tmp_path / "small" / "model.safetensors").stat().st_size < whole
    with pytest.raises(PlanError, match="load it in"):
        lessen.load(tmp_path / "small", precision="float32")
    code, out, err = run("inspect", tmp_path / "small", "--json")
    assert code == 0, err
    bits = 4 if precision == "int4" else 8
    assert {row["bits"] for row in json.loads(out)["layers"]} == {bits}


def test_a_decoder_that_reads_has_no_signs_for_weights(tmp_path: Path) -> None:
    tiny_seq2seq("t5").save_pretrained(tmp_path)
    model = lessen.load(tmp_path)
    form = model.config.form().model_dump(mode="json")
    form["decoder_layers"][0] |= {"bits": 1}
    with pytest.raises(PlanError, match="decoder_layers: a decoder that reads"):
        with_shape(model, Shape.model_validate(form), model.transformer.state_dict())
    form["decoder_layers"][0] |= {"bits": 4}
    with pytest.raises(PlanError, match=r"decoder_layers\[0\]: weights of 4 bits times activations of 32"):
        with_shape(model, Shape.model_validate(form), model.transformer.state_dict())
