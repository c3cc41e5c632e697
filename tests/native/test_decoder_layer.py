"""A decoder's layer in one call equals the modules, and steps aside where it must.

float32 against float64 in torch: within 1e-5 of the largest value.
"""

from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, tiny_generator

import lessen
from lessen.model.rows import following, pack
from lessen.native import native
from lessen.runtime.cache import KeyValueCache

pytestmark = pytest.mark.skipif(native() is None, reason="the kernels are not built")


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Tokens of each call of the kernel."""
    kernels, found = native(), []
    plain = type(kernels).decoder_layers

    def counted(self, layers, rooms, turning, hidden, **options):
        found.append(len(hidden))
        return plain(self, layers, rooms, turning, hidden, **options)

    monkeypatch.setattr(type(kernels), "decoder_layers", counted)
    return found


def loaded(family: str, folder: Path, **changes):
    tiny_generator(family, **changes).save_pretrained(folder)
    return lessen.load(folder)


@torch.no_grad()
def stepped(model, sequences, first: int):
    """Last hidden states of ragged rows: some tokens of each as prompts, then the others of all at once."""
    cache = KeyValueCache(model, len(sequences), max(map(len, sequences)))
    model(*pack([row[:first] for row in sequences]), memory=cache.memory)
    for layer in cache.layers:  # what is not held yet must not be read
        layer.keys[:, :, first:] = layer.values[:, :, first:] = float("nan")
    ids, rows = pack([row[first:] for row in sequences])
    hidden, _ = model(ids, following(rows, [first] * len(sequences)), memory=cache.memory)
    return hidden


@pytest.mark.parametrize("threads", [1, 2])
def test_it_equals_the_modules(generator: str, threads: int, calls, tmp_path: Path) -> None:
    model = loaded(generator, tmp_path)
    sequences = ragged_ids([21, 20, 32])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = stepped(model.transformer, sequences, 19)
    finally:
        torch.set_num_threads(before)
    assert calls == [16] * len(model.transformer.layers)  # 57 tokens of prompts are too many, 16 are not
    expected = stepped(model.double().transformer, sequences, 19)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_heads_of_any_width(calls, tmp_path: Path) -> None:
    model = loaded("qwen3", tmp_path, head_dim=26, hidden_size=30, intermediate_size=17)
    sequences = ragged_ids([9, 4])
    found = stepped(model.transformer, sequences, 1)
    expected = stepped(model.double().transformer, sequences, 1)
    assert calls
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_weights_of_8_bits_take_the_same_way(calls, tmp_path: Path, monkeypatch) -> None:
    """Rounding to whole numbers may fall either way once in a while, so 2 % are allowed here."""
    loaded("llama-grouped", tmp_path)
    model = lessen.load(tmp_path, precision="int8").transformer
    sequences = ragged_ids([9, 4])
    found = stepped(model, sequences, 1)
    assert len(calls) == 6
    monkeypatch.setattr("lessen.runtime.cache.LayerCache.room", lambda self, rows: None)
    expected = stepped(model, sequences, 1)
    assert len(calls) == 6
    assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


def test_bfloat16_weights_are_read_as_they_are(generator: str, calls, tmp_path: Path) -> None:
    """Between layers 8 bits of a number are left: within 3 % of the largest value, as in torch."""
    exact = loaded(generator, tmp_path)
    model = exact.to(torch.bfloat16)
    sequences = ragged_ids([9, 4])
    found = stepped(model.transformer, sequences, 2)
    assert len(calls) == 2 * len(model.transformer.layers)
    assert found.dtype == torch.bfloat16
    expected = stepped(model.double().transformer, sequences, 2)
    assert (found - expected).abs().max() <= 0.03 * expected.abs().max()
    logits = model.to(torch.bfloat16).transformer.next_token(found)
    assert logits.dtype == torch.float32


def test_changed_norms_of_bfloat16_are_noticed(tmp_path: Path) -> None:
    model = loaded("llama", tmp_path).to(torch.bfloat16).transformer
    (sequence,) = ragged_ids([6])
    before = stepped(model, [sequence], 5)
    with torch.no_grad():
        model.layers[1].feed_forward_norm.weight.mul_(0.0)
    after = stepped(model, [sequence], 5)
    assert (before - after).abs().max() > 0.05 * before.abs().max()


def test_rows_do_not_feel_one_another(tmp_path: Path) -> None:
    model = loaded("llama-grouped", tmp_path).transformer
    sequences = ragged_ids([5, 5, 5])
    together = stepped(model, sequences, 4)
    for row, sequence in enumerate(sequences):
        alone = stepped(model, [sequence], 4)
        assert torch.equal(alone[0], together[row])


def test_changed_weights_are_noticed(calls, tmp_path: Path) -> None:
    model = loaded("llama", tmp_path).transformer
    (sequence,) = ragged_ids([6])
    stepped(model, [sequence], 5)
    with torch.no_grad():
        model.layers[1].feed_forward.up.weight.mul_(0.5)
        model.layers[2].attention.qkv.weight = torch.nn.Parameter(model.layers[2].attention.qkv.weight * 0.5)
    found = stepped(model, [sequence], 5)
    expected = stepped(model.double(), [sequence], 5)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_watched_and_replaced_modules_are_called(calls, tmp_path: Path) -> None:
    model = loaded("llama", tmp_path).transformer
    seen = []
    model.layers[0].feed_forward.down.register_forward_hook(lambda *_: seen.append(0))
    model.layers[1].attention.output = torch.nn.Linear(40, 40, bias=False)
    (sequence,) = ragged_ids([6])
    stepped(model, [sequence], 5)
    assert len(seen) == 2
    assert len(calls) == 2  # only the third layer, for the prompt and for the step
