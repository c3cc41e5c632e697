"""A layer, or the rest of it, in one call: the numbers of its modules, and only where it may stand in."""

import copy
import itertools

import pytest
import torch
from conftest import TINY, lively, ragged_ids, tiny_hugging_face

from lessen.depth.exits import every_exit
from lessen.loading import load
from lessen.model.block import Block
from lessen.model.fused import Fused
from lessen.model.rows import pack
from lessen.native import Native, native
from lessen.reshaping import in_few_bits, in_latents, in_signs, with_exits

pytestmark = pytest.mark.skipif(native() is None, reason="the kernels are not built")
CALLS = {name: getattr(Fused, name) for name in ("rest", "whole")}


def answers(model, lengths=(1, 3, 9)):
    ids, rows = pack(ragged_ids(list(lengths)))
    with torch.no_grad():
        return torch.stack(every_exit(model.transformer, ids, rows))


@pytest.fixture(params=CALLS)
def calls(request, monkeypatch):
    """How many layers went through the one call; that of the rest is tried without that of the whole."""
    seen = []

    def counted(*given):
        made = CALLS[request.param](*given)
        seen.append(made is not None)
        return made

    monkeypatch.setattr(Fused, "whole", lambda *_: None)
    monkeypatch.setattr(Fused, request.param, counted)
    return seen


def noted(name, seen):
    """One of the calls, and of each whether the kernels can do it."""

    def call(*given):
        made = CALLS[name](*given)
        seen.append((name, made is not None))
        return made

    return call


def by_modules(model, monkeypatch, lengths=(1, 3, 9)):
    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(Fused, name, lambda *_: None)
        return answers(model, lengths)


def of_family(family, tmp_path, **changes):
    tiny_hugging_face(family, **changes).save_pretrained(tmp_path / "m")
    return lively(with_exits(load(tmp_path / "m"), exits=None))


@pytest.mark.parametrize("family", sorted(TINY))
def test_every_family_in_float32(family, tmp_path, calls, monkeypatch):
    model = of_family(family, tmp_path)
    exact = by_modules(model, monkeypatch)
    torch.testing.assert_close(answers(model), exact, rtol=1e-4, atol=1e-4)
    assert calls == [True] * 3


def test_the_whole_is_its_parts(tmp_path, monkeypatch):
    """To the last bit, for rows that leave one by one, in every precision."""
    for model in (of_family("bert", tmp_path), in_few_bits(of_family("bert", tmp_path), "int8")):
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr(Fused, "whole", noted("whole", seen))
            whole = answers(model, (2, 5, 40))
            patch.setattr(Fused, "whole", lambda *_: None)
            patch.setattr(Fused, "rest", noted("rest", seen))
            assert torch.equal(answers(model, (2, 5, 40)), whole)
        assert seen == [("whole", True)] * 3 + [("rest", True)] * 3


def test_long_rows_have_torchs_attention(tmp_path, monkeypatch):
    model = in_few_bits(of_family("bert", tmp_path), "int8")
    monkeypatch.setattr("lessen.model.stack.is_long", lambda rows: rows.lengths[-1] >= 9)
    seen = []
    monkeypatch.setattr(Fused, "whole", lambda *given: seen.append(CALLS["whole"](*given)))
    answers(model, (3, 8))
    answers(model, (3, 9))
    assert [each is not None for each in seen] == [True] * 3


@pytest.fixture
def at_once(monkeypatch):
    """How many layers went through each call."""
    together, seen = Native.encoder_layers, []

    def counted(self, layers, *given):
        seen.append(len(layers))
        return together(self, layers, *given)

    monkeypatch.setattr(Native, "encoder_layers", counted)
    return seen


def test_layers_between_questions_are_one_call(tmp_path, at_once):
    """To the last bit what they are one by one, with one thread and with two."""
    model = in_few_bits(of_family("bert", tmp_path), "int8").transformer
    ids, rows = pack(ragged_ids([2, 5, 60]))
    after = []

    def noted(layer, hidden, rows):
        after.append((layer, hidden))
        return hidden, rows

    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.no_grad():
                model(ids, rows, after_layer=noted)
                for asked in ([3], [2, 3]):
                    model(ids, rows, after_layer=noted, asked=asked)
                last, _ = model(ids, rows)
                begun = model.embeddings(ids, rows)
                middle, _ = model.stack(begun, rows, noted, layers=range(2), asked=[3])
    finally:
        torch.set_num_threads(threads)
    assert at_once == [1, 1, 1, 3, 2, 1, 3, 2] * 2
    states = dict(after[:3])
    assert [layer for layer, _ in after] == [1, 2, 3, 3, 2, 3] * 2
    assert all(torch.equal(hidden, states[layer]) for layer, hidden in (*after, (3, last), (2, middle)))


def test_a_watched_layer_is_between_others(tmp_path, at_once):
    model = in_few_bits(of_family("bert", tmp_path), "int8").transformer
    ids, rows = pack(ragged_ids([2, 5]))
    watched = []
    with torch.no_grad():
        expected, _ = model(ids, rows)
        model.layers[1].register_forward_hook(lambda *_: watched.append(1))
        found, _ = model(ids, rows)
    assert (at_once, watched) == ([3, 1, 1], [1])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_layer_of_somebody_elses_is_called(tmp_path, at_once):
    model = in_few_bits(of_family("bert", tmp_path), "int8").transformer
    ids, rows = pack(ragged_ids([2, 5]))
    forward, seen = model.layers[1].forward, []

    def patched(*given):
        seen.append("patched")
        return forward(*given)

    class Other(Block):
        def forward(self, *given):
            seen.append("subclass")
            return super().forward(*given)

    model.layers[1].forward = patched
    model.layers[2].__class__ = Other
    with torch.no_grad():
        model(ids, rows)
    assert (at_once, seen) == ([1], ["patched", "subclass"])


def test_settings_and_dropout_of_a_layer_are_noticed(tmp_path, monkeypatch):
    model = of_family("bert", tmp_path, hidden_dropout_prob=0.5)
    layer, seen = model.transformer.layers[0], [answers(model)]
    layer.feed_forward.activation = "relu"
    seen.append(answers(model))
    layer.attention_norm.eps = 0.5
    seen.append(answers(model))
    torch.testing.assert_close(seen[-1], by_modules(model, monkeypatch), rtol=1e-4, atol=1e-4)
    layer.dropout.train()
    seen += [answers(model), answers(model)]
    assert all(not torch.allclose(one, other, atol=1e-4) for one, other in itertools.pairwise(seen))


def test_numbers_that_are_none_stay_none(tmp_path):
    """A NaN of one weight is in every answer, and not in a softmax that forgets it."""
    for model in (of_family("bert", tmp_path), of_family("roberta", tmp_path)):
        with torch.no_grad():
            model.transformer.layers[0].attention.qkv.weight[0, 0] = float("nan")
        assert answers(model).isnan().all()


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_every_activation(activation, tmp_path, calls, monkeypatch):
    model = of_family("bert", tmp_path, hidden_act=activation)
    torch.testing.assert_close(answers(model), by_modules(model, monkeypatch), rtol=1e-4, atol=1e-4)
    assert calls == [True] * 3


def test_an_activation_the_kernels_lack(tmp_path, calls):
    answers(of_family("bert", tmp_path, hidden_act="mish"))
    assert calls == [False] * 3


@pytest.mark.parametrize("bits", [8, 1])
@pytest.mark.parametrize("activation_bits", [32, 8, 1])
def test_few_bits(bits, activation_bits, tmp_path, calls, monkeypatch):
    model = of_family("bert", tmp_path)
    few = (
        in_few_bits(model, "int8")
        if bits == 8
        else in_signs(in_latents(model, activation_bits=activation_bits))
    )
    found, exact = answers(few, (2, 30, 60)), by_modules(few, monkeypatch, (2, 30, 60))
    assert calls == [True] * 3
    apart = (found - exact).abs()
    assert apart.median() < 1e-3 * exact.abs().max()  # a number or sign may be rounded the other way


def test_slfn(calls, monkeypatch):
    torch.manual_seed(0)
    model = with_exits(load("builtin:beexformer-test"), labels=["a", "b"])
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    torch.testing.assert_close(answers(model), by_modules(model, monkeypatch), rtol=1e-4, atol=1e-4)
    packed = in_signs(in_latents(model))
    torch.testing.assert_close(answers(packed), by_modules(packed, monkeypatch), rtol=1e-3, atol=1e-3)
    assert calls == [True] * 8


def test_changed_weights_are_noticed(tmp_path, calls, monkeypatch):
    model = of_family("bert", tmp_path)
    before = answers(model)
    with torch.no_grad():
        model.transformer.layers[1].feed_forward.down.weight.mul_(-1)
        model.transformer.layers[2].feed_forward_norm.weight = torch.nn.Parameter(torch.full((32,), 2.0))
    after = answers(model)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, by_modules(model, monkeypatch), rtol=1e-4, atol=1e-4)
    halves = model.to(torch.bfloat16).to(torch.float32)
    torch.testing.assert_close(answers(halves), by_modules(halves, monkeypatch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 1])
def test_other_weights_of_few_bits_are_noticed(bits, tmp_path, monkeypatch):
    model = of_family("bert", tmp_path)

    def few(seed):
        torch.manual_seed(seed)
        for parameter in model.transformer.layers.parameters():
            parameter.data.normal_(std=0.3)
        return in_few_bits(model, "int8") if bits == 8 else in_signs(in_latents(model))

    first, second = few(0), few(1)
    before = answers(first)
    first.load_state_dict(second.state_dict())
    assert not torch.allclose(answers(first), before)
    assert torch.equal(answers(first), answers(second))


def test_watched_replaced_and_many_tokens_go_module_by_module(tmp_path, calls):
    model = of_family("bert", tmp_path)
    seen = []
    for part in (model.transformer.layers[0].feed_forward, model.transformer.layers[0].attention.output):
        handle = part.register_forward_hook(lambda *_: seen.append(1))
        answers(model)
        handle.remove()
    assert seen == [1, 1]
    model.transformer.layers[1].attention.output = torch.nn.Linear(32, 32)
    answers(model)
    answers(model, (60, 60, 60, 60))
    assert calls == [False, True, True] * 2 + [True, False, True] + [False] * 3


def test_a_copy_computes_for_itself(tmp_path):
    for model in (of_family("bert", tmp_path), in_few_bits(of_family("bert", tmp_path), "int8")):
        before = answers(model)
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.transformer.layers[0].attention_norm.weight.zero_()
        assert torch.equal(answers(model), before)
        assert not torch.allclose(answers(other), before)
