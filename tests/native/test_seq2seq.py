"""T5 through the kernels equals its modules: the encoder, what is left of it, the decoder that reads that.

float32 against float64 in torch: within 1e-4 of the largest value, since layers add up.
"""

from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, tiny_seq2seq

import lessen
from lessen.errors import PlanError
from lessen.model.block import Block
from lessen.model.cross import Source
from lessen.model.rows import following, pack
from lessen.model.stretch import Stretch
from lessen.model.transformer import Transformer
from lessen.native import Native, native
from lessen.plan import Point
from lessen.runtime.cache import KeyValueCache
from lessen.runtime.decoding import Decoding
from lessen.runtime.engine import elimination_of
from lessen.runtime.generation import generate
from lessen.runtime.source import encoded

pytestmark = pytest.mark.skipif(native() is None, reason="the kernels are not built")

LENGTHS = [1, 2, 20, 9, 7, 9]
"""Together few enough for the kernels where torch has MKL, too."""


@pytest.fixture
def calls(monkeypatch) -> dict[str, list[int]]:
    """Layers of each call of the kernels, by what they do."""
    found: dict[str, list[int]] = {}

    def watch(name: str, count) -> None:
        plain, seen = getattr(Native, name), found.setdefault(name, [])

        def counted(self, first, *rest, **options):
            seen.append(count(first))
            return plain(self, first, *rest, **options)

        monkeypatch.setattr(Native, name, counted)

    watch("encoder_layers", len)
    watch("decoder_layers", len)
    watch("layer_rest", lambda rest: 1)
    watch("attention", lambda query: 1)
    return found


def loaded(family: str, folder: Path, heads: tuple[int, ...] = (0, 1, 2), **options) -> Transformer:
    """With these heads of all layers."""
    tiny_seq2seq(family).save_pretrained(folder)
    model = lessen.load(folder, **options).transformer
    if heads == (0, 1, 2):
        return model
    shape = model.shape
    layers, writing = (
        tuple(layer.model_copy(update={"heads": heads}) for layer in part)
        for part in (shape.layers, shape.decoder_layers)
    )
    slender = Transformer(
        model.architecture, shape.model_copy(update={"layers": layers, "decoder_layers": writing}), 0
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in slender.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return slender.eval()


def close(found: torch.Tensor, expected: torch.Tensor, share: float) -> bool:
    return bool((found - expected).abs().max() <= share * expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("heads", [(0, 1, 2), (0, 2), (1,)])
def test_the_encoder_is_one_call(seq2seq: str, heads, calls, tmp_path: Path) -> None:
    model = loaded(seq2seq, tmp_path, heads)
    ids, rows = pack(ragged_ids(LENGTHS))
    found, _ = model(ids, rows)
    assert calls["encoder_layers"] == [model.depth]
    assert close(found, model.double()(ids, rows)[0], 1e-4)


@torch.no_grad()
def test_layers_in_which_tokens_leave(seq2seq: str, calls, tmp_path: Path) -> None:
    """Attention with its bias, what each token gets, and the rest of the layer; then whole layers again."""
    model = loaded(seq2seq, tmp_path)
    shares = (0.7, *[0.4] * (model.depth - 1))
    ids, rows = pack(ragged_ids(LENGTHS))
    point = Point(name="some", retention=shares)
    found, left = model(ids, rows, None, None, elimination_of(point, model, ids, rows))
    assert calls["attention"] == calls["layer_rest"] == [1] * 2
    assert sum(calls["encoder_layers"]) == model.depth - 2
    model = model.double()
    expected, same = model(ids, rows, None, None, elimination_of(point, model, ids, rows))
    assert torch.equal(left.kept, same.kept)
    assert close(found, expected, 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("heads", [(0, 1, 2), (0, 2)])
@pytest.mark.parametrize("tokens", [1, 5])
def test_a_decoder_reads_in_the_same_call(seq2seq: str, heads, tokens: int, calls, tmp_path: Path) -> None:
    """Rows that read different sources, and go on at different places."""
    model = loaded(seq2seq, tmp_path, heads)
    prompts, texts = ragged_ids([7, 1, 30]), ragged_ids([9, 14, 11], seed=1)
    before = [len(text) - tokens for text in texts]
    layout = following(pack([text[-tokens:] for text in texts])[1], before)

    def last_states(model) -> torch.Tensor:
        cache = KeyValueCache(model, 3, 40, encoded(model, *pack(prompts)))
        first = pack([text[:-tokens] for text in texts])
        model.write(*first, None, cache.memory)
        ids = torch.cat([texts[row][-tokens:] for row in layout.original])
        hidden = model.embeddings(ids, layout)
        alone = Stretch(model.writer, range(model.writer.depth), None).run(hidden, layout, cache.memory)
        return model.writer.forward(hidden, layout, cache.memory)[0] if alone is None else alone

    found = last_states(model)
    assert calls["decoder_layers"][-1] == model.writer.depth
    calls["decoder_layers"].clear()
    expected = last_states(model.double())
    assert not calls["decoder_layers"]
    assert close(found, expected, 1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_written_is_that_of_the_modules(precision: str, calls, tmp_path: Path, monkeypatch) -> None:
    model = loaded("t5-v1.1", tmp_path, precision=precision)
    prompts = [row.tolist() for row in ragged_ids([7, 3, 30])]
    options = {"max_new_tokens": 8, "decoding": Decoding(prompts=Point(name="some", retention=(0.6, 0.3)))}

    def written() -> list[list[int]]:
        steps = list(generate(model, prompts, **options))
        return [[step[row] for step in steps] for row in range(3)]

    found = written()
    assert set(calls["decoder_layers"]) == {model.writer.depth}
    monkeypatch.setattr("lessen.runtime.cache.LayerCache.room", lambda self, rows: None)
    assert written() == found


@torch.no_grad()
def test_a_changed_bias_is_noticed(tmp_path: Path) -> None:
    model = loaded("t5", tmp_path)
    ids, rows = pack(ragged_ids(LENGTHS))
    model(ids, rows)
    model.relative_bias.weight.mul_(-2)
    found, _ = model(ids, rows)
    assert close(found, model.double()(ids, rows)[0], 1e-4)


@torch.no_grad()
def test_rows_longer_than_the_table_was(tmp_path: Path) -> None:
    model = loaded("t5", tmp_path)
    for lengths in ([3], [70], [5, 200], [64]):
        ids, rows = pack(ragged_ids(lengths))
        found, _ = model.float()(ids, rows)
        assert close(found, model.double()(ids, rows)[0], 1e-4)


@torch.no_grad()
def test_a_cache_without_a_source_is_refused(tmp_path: Path) -> None:
    model = loaded("t5", tmp_path)
    ids, rows = pack(ragged_ids([2]))
    cache = KeyValueCache(model, 1, 8)
    with pytest.raises(PlanError, match="no encoder's output"):
        model.write(ids, rows, None, cache.memory)


@torch.no_grad()
def test_watched_cross_attention_is_called(calls, tmp_path: Path) -> None:
    model = loaded("t5", tmp_path)
    seen: list[int] = []
    model.decoder.layers[0].cross.register_forward_hook(lambda *_: seen.append(0))
    source = encoded(model, *pack(ragged_ids([4])))
    assert isinstance(source, Source)
    cache = KeyValueCache(model, 1, 8, source)
    model.write(*pack(ragged_ids([2])), None, cache.memory)
    assert seen == [0]
    assert len(calls["decoder_layers"]) == model.writer.depth - 1
    assert all(isinstance(block, Block) for block in model.decoder.layers)


@torch.no_grad()
def test_a_layout_that_forgets_what_is_held_is_refused(tmp_path: Path) -> None:
    """The table of the bias is as long as layouts say."""
    model = loaded("t5", tmp_path)
    cache = KeyValueCache(model, 1, 90, encoded(model, *pack(ragged_ids([4]))))
    model.write(*pack(ragged_ids([40])), None, cache.memory)
    with pytest.raises(PlanError, match="a layout counts 40 tokens"):
        model.write(*pack(ragged_ids([40])), None, cache.memory)


@torch.no_grad()
def test_no_table_outlives_its_weights(tmp_path: Path) -> None:
    model = loaded("t5", tmp_path)
    bias, (ids, rows) = model.relative_bias, pack(ragged_ids(LENGTHS))
    model(ids, rows)
    bias.weight.data.mul_(3)  # which nobody sees
    model.train()
    model.eval()
    assert close(model(ids, rows)[0], model.double()(ids, rows)[0], 1e-4)
    model.float().relative_bias.weight.data = torch.full_like(bias.weight, 0.3001)
    before = bias.by_distance(3).clone()
    model.bfloat16().float()
    assert not torch.equal(bias.by_distance(3), before)
    with torch.inference_mode():
        bias.weight = torch.nn.Parameter(torch.ones(bias.weight.shape), requires_grad=False)
        first = bias.by_distance(3).clone()
        bias.weight.mul_(2)
        assert torch.equal(bias.by_distance(3), 2 * first)


@torch.no_grad()
def test_changed_stretch_and_eps_are_noticed(tmp_path: Path) -> None:
    model = loaded("t5-v1.1", tmp_path)
    ids, rows = pack(ragged_ids(LENGTHS))
    point = Point(name="some", retention=(0.7, *[0.4] * (model.depth - 1)))
    texts, source = pack(ragged_ids([5])), pack(ragged_ids([7]))

    def results(model: Transformer) -> list[torch.Tensor]:
        cache = KeyValueCache(model, 1, 8, encoded(model, *source))
        elimination = elimination_of(point, model, ids, rows)
        return [
            model(ids, rows)[0],
            model(ids, rows, None, None, elimination)[0],
            model.write(*texts, None, cache.memory)[0],
        ]

    results(model)
    for block in (*model.layers, *model.decoder.layers):
        block.attention.stretch *= 0.5
        block.attention_norm.eps = block.feed_forward_norm.eps = 0.3
    for block in model.decoder.layers:
        block.cross_norm.eps = 0.2
    found = results(model)
    for one, other in zip(found, results(model.double()), strict=True):
        assert close(one, other, 1e-4)


@torch.no_grad()
def test_branches_side_by_side_are_not_one_after_the_other(tmp_path: Path) -> None:
    """No family has such an encoder; its layers go through their modules."""
    model = loaded("t5-v1.1", tmp_path)
    for block in model.layers:
        block.parallel = True
    ids, rows = pack(ragged_ids(LENGTHS))
    found, _ = model(ids, rows)
    assert close(found, model.double()(ids, rows)[0], 1e-4)


def test_training_in_bfloat16_does_not_ask_what_is_faster(tmp_path: Path, monkeypatch) -> None:
    from lessen.model import linear

    monkeypatch.setattr(linear, "_is_intel", lambda: True)
    linear.mkl_packs.cache_clear()
    try:
        model = loaded("t5", tmp_path).train()
        with torch.autocast("cpu", torch.bfloat16):
            model(*pack(ragged_ids([200])))
            linear.mkl_packs()
    finally:
        linear.mkl_packs.cache_clear()
