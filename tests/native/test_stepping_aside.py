"""The kernels step aside: for changed, watched and replaced parts, other types, and torch's own modes."""

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import early_generator, lively, ragged_ids, tiny_generator, tiny_hugging_face, tiny_seq2seq
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import lessen
from lessen.bits.ops import OPERATORS
from lessen.bits.products import reference
from lessen.bits.quantized import quantized
from lessen.depth.exits import every_exit
from lessen.model.feed_forward import FeedForward
from lessen.model.few_bits import Int4Linear, Int8Linear
from lessen.model.fused import Fused
from lessen.model.linear import Linear
from lessen.model.rows import pack
from lessen.native import native
from lessen.reshaping import in_few_bits, with_exits
from lessen.runtime.answers import score_answers
from lessen.runtime.generation import generate

pytestmark = pytest.mark.skipif(native() is None, reason="the kernels are not built")
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]
ANSWERS = [[5, 9, 11], [6]]


@pytest.fixture
def modules(monkeypatch) -> Callable:
    """Calls something with every layer computed module by module."""

    def by_modules(function, *given):
        with monkeypatch.context() as patch:
            for name in ("whole", "rest", "step"):
                patch.setattr(Fused, name, lambda *_: None)
            return function(*given)

    return by_modules


def scores(model) -> torch.Tensor:
    return score_answers(model.transformer, PROMPTS, ANSWERS)


def same(model, modules: Callable, limit: float = 1e-4) -> None:
    """Scores by the kernels, which know each other's cache, and by modules."""
    torch.testing.assert_close(scores(model), modules(scores, model), rtol=limit, atol=limit)


def loaded(kind: str, folder: Path, precision: str | None = None):
    (tiny_seq2seq("t5-v1.1") if kind == "t5" else tiny_generator(kind)).save_pretrained(folder)
    return lessen.load(folder, precision=precision)


@pytest.mark.parametrize("kind", ["t5", "gpt2", "llama-grouped"])
@pytest.mark.parametrize("precision", ["float32", "int8", "int8-weights", "int4"])
def test_scores_of_answers_are_those_of_modules(kind, precision, modules, tmp_path) -> None:
    same(loaded(kind, tmp_path, precision), modules)


@pytest.mark.parametrize("kind", ["t5", "llama-grouped"])
@pytest.mark.parametrize("precision", ["int8", "int8-weights"])
def test_few_bits_cast_to_bfloat16_are_not_read_as_float32(kind, precision, tmp_path) -> None:
    model = loaded(kind, tmp_path, precision)
    wide = scores(model)
    narrow = scores(model.to(torch.bfloat16))
    assert (narrow - wide).norm() < 0.2 * wide.norm()


def int8(outputs: int = 6, inputs: int = 40, seed: int = 0) -> Int8Linear:
    torch.manual_seed(seed)
    part = Int8Linear(inputs, outputs)
    whole, steps = quantized(torch.randn(outputs, inputs))
    part.load_state_dict(
        {"weight": whole.to(torch.int8), "scales": steps[:, 0], "bias": torch.randn(outputs)}
    )
    return part


@torch.no_grad()
def test_weights_of_few_bits_changed_in_place_are_noticed() -> None:
    """By the module, and by the operator compiled graphs have."""
    values, part = torch.randn(3, 40), int8()
    ways = (part, lambda given: OPERATORS["w8a8"](given, part.weight, part.scales, part.bias))
    before = [way(values) for way in ways]
    part.load_state_dict(int8(seed=1).state_dict())
    expected = reference("w8a8", values, part.weight, part.scales, part.bias)
    for way, old in zip(ways, before, strict=True):
        torch.testing.assert_close(way(values), expected)
        assert not torch.allclose(old, expected)
    part.weight.zero_()
    for way in ways:
        torch.testing.assert_close(way(values), part.bias.expand(3, -1))


@torch.no_grad()
def test_in_place_changes_reach_whole_layers(modules, tmp_path) -> None:
    model = loaded("llama-grouped", tmp_path, "int8")
    before = scores(model)
    model.transformer.layers[1].feed_forward.down.weight.neg_()
    same(model, modules)
    assert not torch.allclose(scores(model), before, atol=1e-2)


@pytest.mark.parametrize("kind", ["gpt2", "llama-grouped", "t5"])
def test_a_hook_on_a_decoders_layer_sees_every_token(kind, tmp_path) -> None:
    inner, seen = loaded(kind, tmp_path).transformer, []
    inner.writer.layers[0].register_forward_hook(lambda *_: seen.append(1))
    assert len(list(generate(inner, [[1, 2, 3]], max_new_tokens=5))) == len(seen) == 5


class Silent(FeedForward):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(hidden)


def silence(block: nn.Module, how: str) -> None:
    """Make the feed-forward half of a layer say nothing."""
    if how == "subclass":
        block.feed_forward = copy.copy(block.feed_forward)
        block.feed_forward.__class__ = Silent
    elif how == "forward of the half":
        block.feed_forward.forward = torch.zeros_like
    elif how == "forward of a part":
        down = block.feed_forward.down
        down.forward = lambda values: values.new_zeros(len(values), down.out_features)
    elif how == "forward of the layer":
        block.forward = lambda hidden, rows, *_: (hidden, rows)


HOWS = ("subclass", "forward of the half", "forward of a part", "forward of the layer")


@torch.no_grad()
@pytest.mark.parametrize("how", HOWS)
def test_what_somebody_put_in_a_parts_place_is_called(how, modules, tmp_path) -> None:
    """In a decoder, and in an encoder, whether it was computed before or not."""
    model = loaded("gpt2", tmp_path / "g")
    before = scores(model)
    silence(model.transformer.layers[1], how)
    same(model, modules)
    assert not torch.allclose(scores(model), before, atol=1e-2)
    tiny_hugging_face("bert").save_pretrained(tmp_path / "e")
    encoder = lively(with_exits(lessen.load(tmp_path / "e"), exits=None))
    ids, rows = pack(ragged_ids([1, 5, 9]))

    def answers() -> torch.Tensor:
        return torch.stack(every_exit(encoder.transformer, ids, rows))

    before = answers()
    silence(encoder.transformer.layers[1], how)
    found = answers()
    torch.testing.assert_close(found, modules(answers), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-2)


@torch.no_grad()
def test_torchs_modes_see_its_operators() -> None:
    part, values = Linear(64, 8), torch.randn(3, 64)
    graph = make_fx(part)(values)
    other = torch.randn(3, 64)
    torch.testing.assert_close(graph(other), part(other))
    with FlopCounterMode(display=False) as counter:
        part(values)
    assert counter.get_total_flops() == 2 * 3 * 64 * 8
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert part(mode.from_tensor(values)).shape == (3, 8)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Linear, Int8Linear, Int4Linear])
@pytest.mark.parametrize("tokens", [3, 80])
def test_values_of_another_width_are_refused(kind: type[nn.Module], tokens: int) -> None:
    with pytest.raises(RuntimeError):
        kind(64, 8)(torch.randn(tokens, 32))


@torch.no_grad()
def test_matrices_cut_by_hand_go_by_their_own_size(modules, tmp_path) -> None:
    model = loaded("gpt2", tmp_path)
    half = model.transformer.layers[0].feed_forward
    half.up.weight = nn.Parameter(half.up.weight[:50].clone())
    half.up.bias = nn.Parameter(half.up.bias[:50].clone())
    half.down.weight = nn.Parameter(half.down.weight[:, :50].clone())
    same(model, modules)
    half.down.weight = nn.Parameter(half.down.weight[:, :49].clone())
    with pytest.raises(RuntimeError):
        scores(model)


@torch.no_grad()
def test_a_narrow_bias_beside_wide_weights_is_torchs_to_refuse() -> None:
    part = Linear(64, 8)
    part.bias.data = part.bias.data.to(torch.bfloat16)
    with pytest.raises(RuntimeError):
        part(torch.randn(3, 64))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_dropout_of_attention_is_there_without_gradients(kind: str, tmp_path) -> None:
    """Where somebody trains without them, or lets a model vote with itself (Gal and Ghahramani 2016)."""
    made = {"bert": tiny_hugging_face, "gpt2": tiny_generator, "t5": tiny_seq2seq}[kind](kind)
    made.save_pretrained(tmp_path)
    inner = lessen.load(tmp_path).transformer
    ids, rows = pack(ragged_ids([7, 9]))
    for block in inner.layers:
        block.attention.train()
        block.attention.dropout = 0.5
    first, second = (inner(ids, rows)[0] for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-3)


@torch.no_grad()
def test_norms_of_two_kinds_in_a_layer(modules, tmp_path) -> None:
    model = loaded("gpt2", tmp_path)
    layer = model.transformer.layers[1]
    width = len(layer.attention_norm.weight)
    for norm in (nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width), nn.RMSNorm(width, elementwise_affine=False)):
        layer.attention_norm = norm
        same(model, modules)


@torch.no_grad()
def test_settings_of_heads_norms_are_noticed(modules, tmp_path) -> None:
    model = loaded("qwen3", tmp_path)
    before = scores(model)
    for layer in model.transformer.layers:
        layer.attention.query_norm.eps = 10.0
    same(model, modules)
    assert not torch.allclose(scores(model), before, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("ran", [False, True])
def test_a_model_goes_when_nobody_needs_it(ran: bool, tmp_path) -> None:
    """Its float weights must not stay beside those in few bits until the next collection."""
    model = loaded("gpt2", tmp_path).transformer
    encoder = in_few_bits(
        lively(with_exits(lessen.load(saved_bert(tmp_path)), exits=None)), "int8"
    ).transformer
    if ran:
        list(generate(model, [[1, 2, 3]], max_new_tokens=3))
        every_exit(encoder, *pack(ragged_ids([3, 5])))
    gone = [weakref.ref(each) for each in (model, encoder, model.layers[0], encoder.layers[0])]
    gc.collect()
    gc.disable()
    try:
        del model, encoder
        assert [each() for each in gone] == [None] * 4
    finally:
        gc.enable()


def saved_bert(folder: Path) -> Path:
    tiny_hugging_face("bert").save_pretrained(folder / "bert")
    return folder / "bert"


@torch.no_grad()
def test_a_short_list_follows_the_matrix(tmp_path) -> None:
    inner = early_generator(tmp_path, kind="shortlist").float().transformer
    head, hidden = inner.language_exits["3"], torch.randn(5, inner.architecture.hidden_size)
    corrected = head.corrected(hidden)
    head.judged(corrected, inner.vocabulary)
    inner.embeddings.token.weight.data = torch.randn_like(inner.embeddings.token.weight)
    judged = head.judged(corrected, inner.vocabulary)
    torch.testing.assert_close(judged[:, :-1], inner.next_token(corrected)[:, head.words])
