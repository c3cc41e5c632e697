"""Tables read in one call: the numbers of the modules, and only where it may stand in."""

import copy
from functools import partial

import pytest
import torch
from conftest import TINY, ragged_ids, tiny_hugging_face

from lessen.errors import InputError
from lessen.loading import load
from lessen.model.embeddings import Embeddings
from lessen.model.rows import pack
from lessen.native import Native, native
from lessen.reshaping import in_few_bits, in_latents, in_signs, with_exits, with_shape
from lessen.width.removal import with_embedding_rank

pytestmark = pytest.mark.skipif(native() is None, reason="the kernels are not built")
LENGTHS = [1, 7, 40]


def of_rank(model, rank):
    state, shape = with_embedding_rank(model.transformer.state_dict(), model.config.form(), rank)
    return with_shape(model, shape, state)


MADE = {
    "float32": lambda model: model,
    "int8": partial(in_few_bits, precision="int8"),
    "one bit": lambda model: in_signs(in_latents(model)),
    "low rank": lambda model: of_rank(model, 9),
    "low rank in int8": lambda model: in_few_bits(of_rank(model, 9), "int8"),
}


@pytest.fixture
def calls(monkeypatch):
    """Of the kernels for tables."""
    read, seen = Native.embedded, []

    def counted(self, *given):
        seen.append(1)
        return read(self, *given)

    monkeypatch.setattr(Native, "embedded", counted)
    return seen


def of_family(family, tmp_path, **changes):
    tiny_hugging_face(family, **changes).save_pretrained(tmp_path / "m")
    return with_exits(load(tmp_path / "m"), exits=None).eval()


def read(model, lengths=LENGTHS, segments=None):
    ids, rows = pack(ragged_ids(list(lengths)))
    with torch.no_grad():
        return model.transformer.embeddings(ids, rows, segments)


def by_modules(model, monkeypatch, **how):
    with monkeypatch.context() as patch:
        patch.setattr(Embeddings, "_read", lambda *_: None)
        return read(model, **how)


@pytest.mark.parametrize("family", sorted(TINY))
def test_every_family(family, tmp_path, calls, monkeypatch):
    model = of_family(family, tmp_path)
    torch.testing.assert_close(read(model), by_modules(model, monkeypatch), rtol=1e-5, atol=1e-5)
    assert calls


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_kind_of_table(made, threads, tmp_path, calls, monkeypatch):
    model = MADE[made](of_family("bert", tmp_path))
    segments = torch.arange(sum(LENGTHS)) % 2
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for how in ({}, {"segments": segments}, {"lengths": [40] * 50}):
            torch.testing.assert_close(
                read(model, **how), by_modules(model, monkeypatch, **how), rtol=1e-5, atol=1e-5
            )
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 3


def test_what_no_table_has_is_refused(tmp_path, calls):
    model = of_family("bert", tmp_path)
    read(model, [model.config.facts().max_position_embeddings])
    too_long = r"a row of 67 tokens is longer than the model's \d+ positions"
    for lengths, segments, what in (
        ([67], None, too_long),
        ([2], torch.tensor([0, 9]), "token type 9: the model knows 0 to 1"),
        ([2], torch.tensor([0, -1]), "token type -1"),
    ):
        with pytest.raises(InputError, match=what):
            read(model, lengths, segments)
    ids, rows = pack([torch.tensor([5, 101]), torch.tensor([-1, 3, 4])])
    for wrong, what in ((ids, 101), (ids.flip(0), -1)):
        with torch.no_grad(), pytest.raises(InputError, match=f"token id {what}: the model knows 0 to 100"):
            model.transformer.embeddings(wrong, rows)
    assert len(calls) == 6


def test_what_the_kernels_cannot_read_goes_by_modules(tmp_path, calls):
    model = of_family("bert", tmp_path)
    tables, expected = model.transformer.embeddings, read(model)
    ids, rows = pack(ragged_ids(LENGTHS))
    segments = torch.zeros_like(ids)
    calls.clear()
    with torch.no_grad():
        assert torch.equal(tables(ids.int(), rows, segments), tables(ids, rows, segments.int()))
        torch.testing.assert_close(tables(ids.int(), rows), expected, rtol=1e-5, atol=1e-5)
        assert tables._read(ids.to("meta"), rows, None) is None
        with pytest.raises(RuntimeError):
            tables(torch.cat([ids, ids]), rows)
    assert not calls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_type_changes_nothing(dtype, tmp_path):
    model = of_family("bert", tmp_path)
    expected = read(model)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(read(model), expected)
    finally:
        torch.set_default_dtype(torch.float32)


REPLACED = {
    "bfloat16": lambda tables: setattr(tables, "position", torch.nn.Embedding(66, 32).bfloat16()),
    "transposed": lambda tables: setattr(
        tables.position, "weight", torch.nn.Parameter(torch.randn(32, 66).t())
    ),
    "token table": lambda tables: setattr(tables, "token", torch.nn.Embedding(101, 32)),
    "one number wide": lambda tables: setattr(tables, "segment", torch.nn.Embedding(2, 1)),
    "no bias": lambda tables: setattr(tables, "norm", torch.nn.LayerNorm(32, bias=False)),
    "no weights": lambda tables: setattr(tables, "norm", torch.nn.LayerNorm(32, elementwise_affine=False)),
    "eps": lambda tables: setattr(tables.norm, "eps", 0.5),
}


@pytest.mark.parametrize("replaced", REPLACED)
def test_what_is_replaced_is_noticed(replaced, tmp_path, monkeypatch):
    model = of_family("bert", tmp_path)
    before = read(model)
    REPLACED[replaced](model.transformer.embeddings)
    found = read(model)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(found, by_modules(model, monkeypatch), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        model.transformer.embeddings.token.weight = torch.nn.Parameter(torch.randn(101, 32))
    torch.testing.assert_close(read(model), by_modules(model, monkeypatch), rtol=1e-5, atol=1e-5)


def test_a_shorter_table_has_fewer_rows(tmp_path):
    model = of_family("bert", tmp_path)
    read(model)
    tables = model.transformer.embeddings
    tables.token.weight = torch.nn.Parameter(tables.token.weight[:50].clone())
    with torch.no_grad(), pytest.raises(InputError, match="token id 90: the model knows 0 to 49"):
        tables(*pack([torch.tensor([3, 90])]))


def test_dropout_in_training_drops(tmp_path):
    model = of_family("bert", tmp_path)
    read(model)
    model.transformer.embeddings.dropout.p = 0.5
    model.transformer.embeddings.dropout.train()
    assert not torch.equal(read(model), read(model))


def test_changes_are_noticed(tmp_path, calls, monkeypatch):
    model = of_family("bert", tmp_path)
    first, other = read(model), copy.deepcopy(model)
    tables = model.transformer.embeddings
    tables.position = torch.nn.Embedding(66, 32)
    with torch.no_grad():
        tables.norm.weight.mul_(2)
    assert not torch.allclose(read(model), first)
    torch.testing.assert_close(read(model), by_modules(model, monkeypatch), rtol=1e-5, atol=1e-5)
    assert torch.equal(read(other), first)
    calls.clear()
    handle = tables.token.register_forward_hook(lambda *_: calls.append("seen"))
    read(model)
    handle.remove()
    model.train()
    read(model)
    assert calls == ["seen"]
