"""Layers in one call equal the same layers one by one, and step aside where they must."""

import ctypes
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import early_generator, median_rule, ragged_ids, tiny_generator

import lessen
from lessen.errors import LessenError
from lessen.model.linear import FEW_TOKENS
from lessen.model.rotary import Turns, rotation
from lessen.model.rows import following, pack
from lessen.model.stretch import Stretch
from lessen.native import native
from lessen.native.layer import Heads
from lessen.runtime.cache import KeyValueCache
from lessen.runtime.decoding import Decoding
from lessen.runtime.generation import generate
from lessen.runtime.sampling import likeliest

pytestmark = pytest.mark.skipif(native() is None, reason="the kernels are not built")


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Layers of each call of the kernel."""
    kernels, found = native(), []
    plain = type(kernels).decoder_layers

    def counted(self, layers, *rest, **options):
        found.append(len(layers))
        return plain(self, layers, *rest, **options)

    monkeypatch.setattr(type(kernels), "decoder_layers", counted)
    return found


def stretch_of(model, layers: range | None = None) -> Stretch:
    rotary = model.architecture.rotary
    return Stretch(model, layers or range(model.depth), None if rotary is None else Turns(rotary))


@torch.no_grad()
def entered(model, lengths: list[int]):
    ids, rows = pack(ragged_ids(lengths))
    return model.embeddings(ids, rows), rows, KeyValueCache(model, len(lengths), max(lengths) + 8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int8-weights", "int4"])
def test_it_equals_the_layers_one_by_one(generator: str, precision, calls, tmp_path: Path) -> None:
    """Both compute the same; but for the last norm, which torch computes there: 1e-5, in bfloat16 1e-2."""
    tiny_generator(generator).save_pretrained(tmp_path)
    model = lessen.load(tmp_path, precision=precision).transformer
    hidden, rows, cache = entered(model, [3, 1, 9])
    with torch.no_grad():
        found = stretch_of(model).run(hidden, rows, cache.memory)
        assert calls == [model.depth]
        beside = KeyValueCache(model, 3, 17)
        expected, _ = model.stack(hidden, rows, memory=beside.memory)
    assert calls == [model.depth] + [1] * model.depth
    assert found.dtype == expected.dtype
    limit = 1e-2 if precision == "bfloat16" else 1e-5
    assert (found - expected).abs().max() <= limit * expected.abs().max()
    for one, other in zip(cache.layers, beside.layers, strict=True):
        assert one.lengths == other.lengths
        for row, length in enumerate(one.lengths):
            assert torch.equal(one.keys[row, :, :length], other.keys[row, :, :length])


@torch.no_grad()
def test_it_steps_aside(tmp_path: Path) -> None:
    """For more tokens than the kernels are faster for, watched modules, gradients; nothing is remembered."""
    tiny_generator("llama").save_pretrained(tmp_path)
    model = lessen.load(tmp_path).transformer
    hidden, rows, cache = entered(model, [FEW_TOKENS + 1])
    assert stretch_of(model).run(hidden, rows, cache.memory) is None
    hidden, rows, cache = entered(model, [5])
    with torch.enable_grad():
        assert stretch_of(model).run(hidden, rows, cache.memory) is None
    for part in (model.layers[1].feed_forward.down, model.final_norm):
        watch = part.register_forward_hook(lambda *_: None)
        assert stretch_of(model).run(hidden, rows, cache.memory) is None
        watch.remove()
    assert cache.layers[0].lengths == [0]
    assert stretch_of(model).run(hidden, rows, cache.memory) is not None
    few = lessen.load(tmp_path, precision="int4").transformer
    hidden, rows, cache = entered(few, [FEW_TOKENS + 1])
    assert stretch_of(few).run(hidden, rows, cache.memory) is not None


@torch.no_grad()
def test_a_token_takes_one_call_for_each_stretch(calls, tmp_path: Path) -> None:
    model = early_generator(tmp_path).float().transformer
    rule = median_rule(model)
    plain = [list(step.values()) for step in generate(model, [[1, 2, 3]], max_new_tokens=6)]
    assert calls == [model.depth] * 6
    calls.clear()
    drafts = generate(model, [[1, 2, 3]], max_new_tokens=6, decoding=Decoding("spec", rule))
    assert [list(step.values()) for step in drafts] == plain
    ends = [0, *(layer for layer in model.shape.exit_layers if rule.at(layer) is not None), model.depth]
    assert set(calls) <= {stop - start for start, stop in pairwise(ends)}


def test_turns_are_those_of_the_positions(tmp_path: Path) -> None:
    tiny_generator("llama").save_pretrained(tmp_path)
    rotary = lessen.load(tmp_path).transformer.architecture.rotary
    turns = Turns(rotary)
    for lengths in ([2, 7], [600], [3]):
        _, rows = pack(ragged_ids(lengths))
        found, expected = turns.at(rows, torch.float32), rotation(rotary, rows.positions, torch.float32)
        assert torch.equal(found.cosine, expected.cosine)
        assert torch.equal(found.sine, expected.sine)


@torch.no_grad()
@pytest.mark.parametrize("width", [1, 15, 16, 1030, 49152])
def test_the_likeliest_is_the_first_of_the_largest(width: int) -> None:
    logits = torch.randn(5, width, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    logits[3] = float("-inf")
    logits[3, width // 2] = -1e30
    assert likeliest(logits) == [int((row == row.max()).nonzero()[0]) for row in logits]
    logits[4, width // 3] = float("nan")
    with pytest.raises(LessenError, match="not numbers"):
        likeliest(logits)


def test_memory_that_runs_out_is_an_error_and_not_the_end() -> None:
    kernels, one, heads = native(), torch.zeros(1), 1 << 45
    lengths, place = (ctypes.c_int64 * 1)(1), one.data_ptr()
    many = Heads(place, place, place, 4 * heads, 4 * heads, heads, heads, 4, False, 1.0)
    with pytest.raises(LessenError, match="out of memory in the kernels"):
        kernels._attention(ctypes.addressof(many), lengths, 1, None, place, place, 1, 2)


@torch.no_grad()
@pytest.mark.parametrize("precision", ["float32", "int4"])
def test_a_long_prompt_is_what_its_tokens_are_one_by_one(precision, tmp_path: Path) -> None:
    """Queries go a few at a time, with the keys before them. Inputs of 4-bit weights may round either way."""
    tiny_generator("llama-grouped").save_pretrained(tmp_path)
    model = lessen.load(tmp_path, precision=precision).transformer
    count = 66 if precision == "int4" else FEW_TOKENS
    hidden, rows, cache = entered(model, [count])
    found = stretch_of(model).run(hidden, rows, cache.memory)
    beside, alone = KeyValueCache(model, 1, count), stretch_of(model)
    for place in range(count):
        ids, rows = pack([ragged_ids([count])[0][place : place + 1]])
        rows = following(rows, [place])
        one = alone.run(model.embeddings(ids, rows), rows, beside.memory)
        limit = (2e-2 if precision == "int4" else 1e-5) * found.abs().max()
        assert (one[0] - found[place]).abs().max() <= limit, place
