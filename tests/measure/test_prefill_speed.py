"""Speed-ups of reading timed on generators and T5: what is compared, and what a fit is made of."""

from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, tiny_generator, tiny_seq2seq

import lessen
from lessen.errors import PlanError
from lessen.measure.generation_speed import is_greedy, ours, theirs
from lessen.measure.latency_fit import fit_folder, probes_of
from lessen.measure.prefill_speed import reading_rows
from lessen.measure.rivals.generator import generator_twin
from lessen.model.macs import attention_macs, decoder_token_macs, layer_macs, row_macs, source_macs
from lessen.plan import FULL, Point, RetentionProfile
from lessen.runtime.latency_model import Fit, terms_of
from lessen.runtime.retention import ratio_at
from lessen.runtime.text import Encoded
from lessen.tokens.elimination import left_after_layers


def loaded(family: str, folder: Path):
    made = tiny_seq2seq(family) if family.startswith("t5") else tiny_generator(family)
    made.save_pretrained(folder)
    model = lessen.load(folder)
    layers = len(model.config.form().layers)
    profile = RetentionProfile(family="explicit", base=(0.5,) * layers, lengths=(40,))
    model.config.profile = profile.model_dump(mode="json")
    return model


def test_the_twin_of_an_encoder_decoder_model_has_the_same_logits(seq2seq: str, tmp_path: Path) -> None:
    """fp32, within 1e-5 of the largest logit; the config is made from our facts alone."""
    model = loaded(seq2seq, tmp_path)
    twin = generator_twin(model)
    ids, mask = padded(ragged_ids([20, 7]), 0)
    target = torch.stack(ragged_ids([5, 5], 1))
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, decoder_input_ids=target).logits
        found = twin(input_ids=ids, attention_mask=mask, decoder_input_ids=target).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "t5-shallow-decoder"])
def test_rows_say_what_was_read_and_how_far_texts_agree(family: str, tmp_path: Path) -> None:
    model = loaded(family, tmp_path)
    points = {speedup: model.dial(speedup=speedup).point for speedup in (1.0, 1.4)}
    prompts = [ids.tolist() for ids in ragged_ids([40, 40])]
    rivals = {"transformers": theirs(generator_twin(model))}
    whole, less, other = reading_rows(
        model, points, prompts, kind="lessen", new_tokens=4, seconds=60, rivals=rivals
    )
    assert (whole.speedup, whole.macs_ratio, whole.same, whole.runs) == (1, 1, 1, 2)
    assert less.macs_ratio >= 1.4
    assert 0 < less.first_token_ms < less.total_ms
    assert (other.kind, other.same, other.macs_ratio) == ("transformers", 1, None)
    tokens = ours(model)(prompts[0], 4).tokens
    assert is_greedy(model, prompts[0], tokens)
    assert not is_greedy(model, prompts[0], [*tokens[:-1], (tokens[-1] + 1) % 101])


def test_terms_count_what_comes_before_the_first_token(tmp_path: Path) -> None:
    """Of a causal model half of the pairs; of T5 keys and values of what is left, and attention to it."""
    model = loaded("gpt2", tmp_path / "gpt2").transformer
    facts, shape = model.architecture, model.shape
    left = left_after_layers((0.8, 0.6, 0.5), 40, 8)
    *_, linear, attention = terms_of(model, [40], [left])
    now = [40, *left[:-1]]
    assert attention * 1e6 == sum(
        attention_macs(facts, layer, n) for layer, n in zip(shape.layers, now, strict=True)
    )
    assert attention_macs(facts, shape.layers[0], 40) == 2 * 36 * 40 * 41 // 2
    assert (linear + attention) * 1e6 == pytest.approx(row_macs(facts, shape, 0, 40, left=left))
    model = loaded("t5", tmp_path / "t5").transformer
    facts, shape = model.architecture, model.shape
    *_, linear, attention = terms_of(model, [40], [[20, 10]])
    made = 10 * source_macs(facts, shape)
    across = decoder_token_macs(facts, shape, 0, 10) - decoder_token_macs(facts, shape, 0, 0)
    whole = layer_macs(facts, shape.layers[0], 40, 20) + layer_macs(facts, shape.layers[1], 20, 10)
    assert (linear + attention) * 1e6 == pytest.approx(whole + made + across)


@pytest.mark.parametrize("family", ["llama-grouped", "t5"])
def test_a_fit_of_reading_is_kept_and_dialled(family: str, tmp_path: Path) -> None:
    loaded(family, tmp_path).save_pretrained(tmp_path / "own")
    model = lessen.load(tmp_path / "own")
    with pytest.raises(PlanError, match="no latencies fitted; run lessen bench --fit"):
        model.dial(latency_ms=5)
    encoded = [Encoded(ids.tolist(), None, False) for ids in ragged_ids([8, 20, 30, 40])]
    probes = probes_of(model, encoded, 1, [Point(name="half", retention=(0.5,) * model.transformer.depth)])
    assert len(probes) == 10
    for probe in probes.values():
        probe.run()
    ways = {"batch_sizes": [1], "thread_count": torch.get_num_threads(), "seconds": 0.2}
    (fit,) = fit_folder(tmp_path / "own", [model], encoded, **ways)
    assert isinstance(fit, Fit)
    model = lessen.load(tmp_path / "own")
    assert model.dial(latency_ms=1e6).point == FULL
    with pytest.raises(PlanError, match="one of speedup and latency_ms"):
        model.dial()
    with pytest.raises(PlanError, match="cannot be kept"):
        model.dial(latency_ms=1e-9, tokens=40)


def test_the_ratio_of_reading_is_that_of_macs(tmp_path: Path) -> None:
    model = loaded("gpt2", tmp_path)
    point = Point(name="less", retention=(0.8, 0.6, 0.5))
    facts, shape = model.config.facts(), model.config.form()
    expected = row_macs(facts, shape, 0, 40) / row_macs(facts, shape, 0, 40, left=[32, 24, 20])
    assert ratio_at(model.transformer, point, [40, 40]) == pytest.approx(expected)
