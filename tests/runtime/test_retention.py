"""Measured profiles and offline tuning: no weight changes, every speed-up is met, or refused with the cap."""

import itertools
import json

import numpy as np
import pytest
import torch
from conftest import lively, ragged_ids

import lessen
from lessen.errors import PlanError
from lessen.machine import processor
from lessen.measure.evaluation import macs_ratio
from lessen.model.macs import head_macs
from lessen.model.rows import pack
from lessen.plan import Point, RetentionProfile
from lessen.runtime.engine import run
from lessen.runtime.latency_model import FILE, Fit, LatencyModel, fit, milliseconds, ms_cost, terms_of
from lessen.runtime.retention import macs_cost, measured_profile, point_for, point_within, typical
from lessen.runtime.text import Encoded

PROFILE = RetentionProfile(base=(0.8, 0.5, 0.3), lengths=(10, 20, 40))


def encoded(lengths: list[int]) -> list[Encoded]:
    return [Encoded(ids.tolist(), None, False) for ids in ragged_ids(lengths)]


def test_a_measured_profile_falls_and_does_not_depend_on_the_batch(tiny_classifier) -> None:
    model = lively(tiny_classifier).transformer
    rows = encoded([9, 30, 17, 2, 64, 1, 30])
    profile = measured_profile(model, rows)
    assert len(profile.base) == 3
    assert all(a >= b for a, b in itertools.pairwise(profile.base))
    alone = measured_profile(model, rows, batch_size=1)
    assert profile.base == pytest.approx(alone.base)
    assert profile.lengths == (1, 2, 9, 17, 30, 30, 64)
    assert sum(measured_profile(model, rows, mass=0.9).base) > sum(profile.base)
    envelope = measured_profile(model, rows, envelope=True)
    assert (profile.family, envelope.family) == ("acc", "envelope")
    assert sum(envelope.base) > sum(profile.base)
    widest = measured_profile(model, rows, mass=0.999999)
    assert max(widest.base) < 1, "a share of 1 could never fall"
    assert point_for(model, widest, 3.0).retention is not None
    with pytest.raises(PlanError, match="more than one token"):
        measured_profile(model, encoded([1, 1]))


def test_typical_lengths_are_quantiles() -> None:
    assert typical([3, 1, 2]) == (1, 2, 3)
    many = typical(list(range(1, 1001)))
    assert len(many) == 32
    assert np.mean(many) == pytest.approx(500, rel=0.01)


@pytest.mark.parametrize("speedup", [1.0, 1.1, 1.5, 2.0, 2.7])
def test_6_a_speedup_is_met_and_hardly_overshot(tiny_classifier, speedup: float) -> None:
    model = lively(tiny_classifier).transformer
    point = point_for(model, PROFILE, speedup)
    rows = encoded(list(PROFILE.lengths))
    found = macs_ratio(model, rows, [3] * len(rows), point)
    assert found >= speedup - 1e-9
    assert found <= speedup * 1.1


def test_dialling_1_is_the_plain_model_to_the_bit(adjustable) -> None:
    model = lessen.load(adjustable)
    texts = ["good fine film number 3", "bad", "a great story number 1200 and more"]
    plain = model.predict(texts, point="full")
    assert model.dial(speedup=1).point.name == "full"
    assert model.predict(texts) == plain
    assert model.dial(speedup=1.0000001).point.name == "speedup-1x"


def test_the_dial_turns_without_training_and_names_the_cap(adjustable) -> None:
    model = lessen.load(adjustable)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shares = [model.dial(speedup=s).point.retention for s in (1.2, 1.5, 1.8)]
    assert all(sum(a) > sum(b) for a, b in itertools.pairwise(shares))
    assert model.point.promise.kind == "uncertified"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(PlanError, match=r"speed-up of \d+\.\d+ at most"):
        model.dial(speedup=1000)


def test_rows_of_only_special_tokens(tiny_checkpoint) -> None:
    """Nothing but [CLS] and [SEP], alone and beside real texts: [CLS] stays, and answers as it does alone."""
    model = lively(lessen.with_exits(lessen.load(tiny_checkpoint), labels=["a", "b"], exits=None))
    model.use(Point(name="x", retention=(0.5, 0.3, 0.2)))
    for empty, text, read in (
        ("", "a gripping film", [("[CLS]", 3), ("[SEP]", 0)]),
        (("", ""), ("a gripping film", "about nothing"), [("[CLS]", 3), ("[SEP]", 1), ("[SEP]", 0)]),
    ):
        alone = model.predict([empty], explain=True)[0]
        assert [name for name, _ in alone.read] == [name for name, _ in read]
        assert sorted(layers for _, layers in alone.read) == sorted(layers for _, layers in read)
        assert alone.read[0] == ("[CLS]", 3)
        together = model.predict([empty, text, empty, text], explain=True)
        for each in (together[0], together[2]):
            assert each.read == alone.read
            assert each.probability == pytest.approx(alone.probability, abs=1e-5)
        assert together[1].read != alone.read


@pytest.mark.parametrize("lengths", [[1], [2], [2, 2, 2], [512], [1, 512]])
def test_rows_of_extreme_lengths(lengths: list[int]) -> None:
    """Of one token, of two, and of 512."""
    from lessen.model.architecture import Architecture
    from lessen.model.transformer import Transformer
    from lessen.plan import ExitShape, dense_shape

    sizes = {"vocab_size": 101, "hidden_size": 32, "embedding_size": 32, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "intermediate_size": 64}
    facts = Architecture(family="bert", max_position_embeddings=512, **sizes, **heads)
    torch.manual_seed(0)
    model = Transformer(facts, dense_shape(3, 4, 64, (ExitShape(layer=3),)), 2).eval()
    point = point_for(model, PROFILE, 2.0)
    texts = ragged_ids(lengths)
    together = run(model, *pack(texts), point=point)
    assert together.logits.isfinite().all()
    for row, text in enumerate(texts):
        alone = run(model, *pack([text]), point=point)
        assert torch.allclose(alone.logits[0], together.logits[row], atol=1e-5)
    for _, rows in together.kept:
        assert min(rows.lengths) >= 1
        assert (rows.kept[rows.first] == 0).all(), "the first token never leaves"


def test_fitting_finds_the_factors_again() -> None:
    generator = np.random.default_rng(0)
    factors = np.array([0.5, 0.2, 0.1, 0.05, 2.0, 3.0])
    table = generator.uniform(1, 5, (40, 6))
    found, error = fit(table, table @ factors)
    assert list(found) == pytest.approx(factors.tolist(), rel=1e-6)
    assert error < 1e-9
    found, error = fit(table, table @ factors * generator.uniform(0.95, 1.05, 40))
    assert all(each >= 0 for each in found)
    assert error < 0.08


def test_terms_count_what_runs(tiny_classifier) -> None:
    model = lively(tiny_classifier).transformer
    whole = terms_of(model, [10, 20], [None, None])
    assert whole[:4] == [1.0, 3.0, 0.0, 6.0]
    macs = sum(macs_cost(model)(length, None) for length in (10, 20)) / 1e6
    heads = 2 * head_macs(model.architecture, model.shape.exits[-1], model.outputs) / 1e6
    assert whole[4] + whole[5] == pytest.approx(macs - heads)
    some = terms_of(model, [10, 20], [[5, 5, 2], [10, 10, 4]])
    assert some[:4] == [1.0, 3.0, 2.0, 6.0]
    assert some[4] < whole[4]


def test_offline_tuning_by_latency(tiny_classifier, tmp_path) -> None:
    model = lively(tiny_classifier)
    one = Fit(threads=1, precision="float32", batch=1, factors=(0.1, 0.1, 0.0, 0.0, 20.0, 20.0), error=0.1)
    cost = ms_cost(model.transformer, one)
    whole = cost(40, None)
    assert whole == pytest.approx(milliseconds(one, terms_of(model.transformer, [40], [None])))
    point = point_within(model.transformer, PROFILE, whole / 1.5, 40, cost)
    left = [round(share * 40 + 0.4999) for share in point.retention]
    assert cost(40, left) <= whole / 1.5
    assert point_within(model.transformer, PROFILE, whole, 40, cost).name == "full"
    with pytest.raises(PlanError, match=r"0\.2 ms cannot be kept: 40 tokens take .* whole, and taking"):
        point_within(model.transformer, PROFILE, 0.2, 40, cost)


def test_the_dial_uses_fitted_latencies(adjustable, tmp_path) -> None:
    model = lessen.load(adjustable)
    with pytest.raises(PlanError, match="run lessen bench --fit"):
        model.dial(speedup=1.5, by="latency")
    with pytest.raises(PlanError, match="by is 'macs' or 'latency', not 'clock'"):
        model.dial(speedup=1.5, by="clock")
    threads = torch.get_num_threads()
    fits = [
        {"threads": threads, "precision": "float32", "batch": 1, "error": 0.1,
         "factors": [0.0, 0.3, 0.0, 0.0, 20.0, 20.0]},
    ]  # fmt: skip
    model.folder = tmp_path
    record = {"version": 1, "processor": processor(), "date": "2026-11-22", "fits": fits}
    (tmp_path / FILE).write_text(json.dumps(record))
    by_macs = model.dial(speedup=1.3).point
    by_time = model.dial(speedup=1.3, by="latency").point
    assert sum(by_time.retention) < sum(by_macs.retention), "layers cost time whatever leaves"
    assert model.dial(latency_ms=1000).point.name == "full"
    assert model.dial(latency_ms=12, tokens=40).point.retention is not None
    model = model.bfloat16()
    model.folder = tmp_path
    with pytest.raises(PlanError, match=r"no latency was fitted for .* bfloat16, batch 1"):
        model.dial(speedup=1.3, by="latency")
    (tmp_path / FILE).write_text(json.dumps(record | {"processor": "abacus"}))
    with pytest.raises(PlanError, match=r"another machine \(abacus\); run lessen bench --fit here"):
        model.dial(latency_ms=1)
    (tmp_path / FILE).write_text("{")
    assert model.dial(max_drop=0.0).point.name == "full", "only a wish for time reads the latencies"
    with pytest.raises(lessen.LessenError, match=r"latency\.json: cannot be read"):
        model.dial(latency_ms=1)


def test_a_latency_file_refuses_what_it_does_not_know() -> None:
    from lessen.records import parse

    with pytest.raises(PlanError, match="newer lessen"):
        parse(LatencyModel, {"version": 2, "fits": []}, "latency.json")
