"""Generation timed: the twin has our weights, and what is called identical was compared."""

from pathlib import Path

import pytest
import torch
from conftest import early_generator, padded, ragged_ids, tiny_generator

import lessen
from lessen.errors import InputError, PlanError
from lessen.measure.generation_speed import Run, compare, is_greedy, ours, row, theirs
from lessen.measure.rivals.dense import check_dense
from lessen.measure.rivals.generator import generator_twin
from lessen.plan import ExitRule, LayerShape, Shape
from lessen.runtime.decoding import Decoding


def loaded(family: str, folder: Path, **changes):
    tiny_generator(family, **changes).save_pretrained(folder)
    return lessen.load(folder)


def test_the_twin_has_the_same_logits(generator: str, tmp_path: Path) -> None:
    """fp32, within 1e-5 of the largest logit; the config is made from our facts alone."""
    model = loaded(generator, tmp_path)
    twin = generator_twin(model)
    ids, mask = padded(ragged_ids([20, 7]), 0)
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits
        found = twin(input_ids=ids, attention_mask=mask).logits * mask[..., None]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_twin_turns_as_far(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4}
    model = loaded("llama-grouped", tmp_path, rope_parameters=scaling)
    (ids,) = ragged_ids([60])
    with torch.no_grad():
        expected, found = model(ids[None]).logits, generator_twin(model)(input_ids=ids[None]).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_runs_are_compared(tmp_path: Path) -> None:
    model = loaded("llama-grouped", tmp_path)
    prompts = [ids.tolist() for ids in ragged_ids([3, 5])]
    candidates = {"off": ours(model), "transformers": theirs(generator_twin(model))}
    runs = compare(candidates, prompts, new_tokens=6, seconds=60)
    assert [run.tokens for run in runs["off"]] == [run.tokens for run in runs["transformers"]]
    for found in runs.values():
        assert all(len(run.tokens) == len(run.seconds) == 6 for run in found)
        assert all(list(run.seconds) == sorted(run.seconds) for run in found)
    tokens = runs["off"][0].tokens
    assert is_greedy(model, prompts[0], tokens)
    assert not is_greedy(model, prompts[0], [*tokens[:-1], (tokens[-1] + 1) % 101])


def test_a_line_says_what_was_measured(tmp_path: Path) -> None:
    from lessen.model.macs import token_macs

    model = loaded("gpt2", tmp_path)
    runs = [Run((1, 2, 3), (0.5, 0.6, 0.7)), Run((1, 2, 3), (0.3, 0.5, 0.7))]
    line = row(model, "off", "lessen", runs, [[1] * 10, [1] * 10], identical=True).as_dict()
    assert line["first_token_ms"] == 400.0
    assert line["tokens_per_s"] == 7.5
    assert line["macs_per_token"] == token_macs(model.config.facts(), model.config.form(), 10)
    assert line["acceptance"] is None
    assert (line["runs"], line["dtype"], line["weight_passes"]) == (2, "float32", 1.0)


def test_drafts_that_came_with_the_first_token_are_not_counted_as_fast() -> None:
    """Five tokens verified at once after a second, two more after another: two tokens in a second."""
    run = Run((1,) * 7, (1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0), None, 5)
    assert run.rate == pytest.approx(2.0)
    assert Run((1,) * 7, (1.0,) * 7, None, 7).rate == pytest.approx(7.0), "all at once: the prompt's time too"


@torch.no_grad()
def test_what_came_with_the_first_token_is_known(tmp_path: Path) -> None:
    """Exits that are right, sure, and draft four at a time; then none that is sure."""
    model = early_generator(tmp_path)
    for block in model.transformer.layers[1:]:
        for matrix in (block.attention.output, block.feed_forward.down):
            matrix.weight.zero_()
    for head in model.transformer.language_exits.values():
        head.norm.load_state_dict(model.transformer.final_norm.state_dict())
        head.output.weight.copy_(model.transformer.vocabulary_matrix)
    for threshold, expected in ((99.0, 5), (-1.0, 1)):
        rule = ExitRule(criterion="entropy", threshold=threshold)
        run = ours(model, Decoding("spec", rule, most=4))([3, 4], 10)
        assert run.at_once == expected
    assert (
        ours(model, Decoding("spec", ExitRule(criterion="entropy", threshold=99.0)))([3, 4], 3).at_once == 3
    )
    assert (
        ours(model, Decoding("direct", ExitRule(criterion="entropy", threshold=99.0)))([3, 4], 3).at_once == 1
    )


def test_macs_of_a_token_are_those_of_its_matrices(tmp_path: Path) -> None:
    """Weights of the matrices, once each, and two products with every token it sees."""
    from lessen.model.macs import token_macs

    model = loaded("llama-grouped", tmp_path)
    facts, shape = model.config.facts(), model.config.form()
    matrices = sum(p.numel() for n, p in model.transformer.named_parameters() if p.dim() == 2)
    assert token_macs(facts, shape, 9) == matrices + 3 * 2 * 36 * 10


def test_what_cannot_be_timed_is_refused(tmp_path: Path) -> None:
    model = loaded("gpt2", tmp_path)
    with pytest.raises(InputError, match="2 new tokens"):
        compare({"off": ours(model)}, [[1]], new_tokens=1, seconds=1)
    shape = model.config.form()
    fewer = LayerShape(layer=0, heads=(0, 1, 2), intermediate_size=144, bits=8, activation_bits=8)
    with pytest.raises(PlanError, match="only run the dense model"):
        check_dense(model.config.facts(), Shape(layers=(fewer, *shape.layers[1:])))
