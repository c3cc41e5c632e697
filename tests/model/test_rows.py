"""The ragged layout: packing, padding, compaction and order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lessen.errors import InputError
from lessen.model.attention import attend, attend_reference, attend_scored, received
from lessen.model.heads import pool
from lessen.model.rows import pack, rows_of_mask, scatter

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=9)


def numbered(lengths: list[int]) -> list[torch.Tensor]:
    """Row r holds r * 100, r * 100 + 1, ..."""
    return [torch.arange(n) + 100 * row for row, n in enumerate(lengths)]


@given(LENGTHS)
def test_restore_brings_back_the_callers_order(lengths: list[int]) -> None:
    values, rows = pack(numbered(lengths))
    assert rows.restore(values[rows.first]).tolist() == [100 * r for r in range(len(lengths))]
    assert rows.restore(values[rows.last]).tolist() == [100 * r + n - 1 for r, n in enumerate(lengths)]
    assert list(rows.lengths) == sorted(lengths)
    assert rows.tokens == sum(lengths)


@given(LENGTHS, st.data())
def test_gather_keeps_exactly_the_staying_rows(lengths: list[int], data: st.DataObject) -> None:
    values, rows = pack(numbered(lengths))
    stay = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    left = rows.select(stay)
    kept = rows.gather(values, stay).tolist()
    expected = [
        v for i, s in zip(rows.original, stay, strict=True) if s for v in numbered(lengths)[i].tolist()
    ]
    assert kept == expected
    assert left.tokens == len(kept)


@given(LENGTHS)
def test_pad_and_unpad_are_inverse(lengths: list[int]) -> None:
    values, rows = pack([row.float() for row in numbered(lengths)])
    padded = rows.pad(values)
    assert padded.shape == (len(lengths), max(lengths))
    assert torch.equal(rows.unpad(padded), values)
    assert int(torch.isinf(rows.key_mask).sum()) == len(lengths) * max(lengths) - sum(lengths)


@given(LENGTHS, st.booleans())
def test_a_padded_batch_packs_to_its_real_tokens(lengths: list[int], left: bool) -> None:
    width = max(lengths) + 2
    ids = torch.full((len(lengths), width), -1)
    for row, sequence in enumerate(numbered(lengths)):
        start = width - len(sequence) if left else 0
        ids[row, start : start + len(sequence)] = sequence
    index, rows = rows_of_mask(ids >= 0)
    values, expected = pack(numbered(lengths))
    assert torch.equal(ids.flatten()[index], values)
    assert rows.lengths == expected.lengths
    assert rows.original == expected.original
    assert torch.equal(scatter(values + 1, index, (len(lengths), width)), (ids + 1))


def test_a_row_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="at least one token"):
        rows_of_mask(torch.tensor([[1, 1], [0, 0]]))


@given(LENGTHS, st.booleans(), st.booleans())
def test_every_attention_equals_the_definition(lengths: list[int], with_bias: bool, gradients: bool) -> None:
    torch.manual_seed(sum(lengths))
    qkv, rows = pack([torch.randn(n, 3, 4, 8, dtype=torch.float64) for n in lengths])
    bias = torch.randn(4, max(lengths), max(lengths), dtype=torch.float64) if with_bias else None
    with torch.set_grad_enabled(gradients):
        found = attend(qkv.requires_grad_(gradients), rows, bias)
    assert torch.allclose(found, attend_reference(qkv, rows, bias), atol=1e-12)


@pytest.mark.parametrize("lengths", [(1, 5, 5, 9), (7,) * 6, (3, 3, 4, 8, 8, 8, 8, 8, 11)])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_gradients_equal_the_definitions(
    dtype: torch.dtype, with_bias: bool, lengths: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    qkv, rows = pack([torch.randn(n, 3, 4, 8) for n in lengths])
    bias = torch.randn(4, max(lengths), max(lengths)) if with_bias else None
    weights = torch.randn(qkv.shape[0], 4, 8)
    fast, slow = qkv.clone().to(dtype).requires_grad_(), qkv.clone().requires_grad_()
    (attend(fast, rows, None if bias is None else bias.to(dtype)).float() * weights).sum().backward()
    (attend_reference(slow, rows, bias) * weights).sum().backward()
    assert fast.grad is not None
    assert slow.grad is not None
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    assert (fast.grad - slow.grad).abs().max() <= tolerance * slow.grad.abs().max()


@given(LENGTHS, st.booleans())
def test_scores_are_the_same_with_gradients_and_without(lengths: list[int], with_bias: bool) -> None:
    """Parts of a few rows, and one call for each length, and our kernel: float32 to 1e-5."""
    torch.manual_seed(sum(lengths))
    qkv, rows = pack([torch.randn(n, 3, 4, 8) for n in lengths])
    bias = torch.randn(4, max(lengths), max(lengths)) if with_bias else None
    learning, scores = attend_scored(qkv.clone().requires_grad_(), rows, received, bias)
    with torch.no_grad():
        resting, expected = attend_scored(qkv, rows, received, bias)
    assert torch.allclose(learning, resting, atol=1e-5)
    assert torch.allclose(scores, expected, atol=1e-5)
    assert not scores.requires_grad


@given(LENGTHS)
def test_pooling(lengths: list[int]) -> None:
    values, rows = pack([row.double()[:, None] for row in numbered(lengths)])
    expected = {
        "cls": [100.0 * r for r in range(len(lengths))],
        "last": [100.0 * r + n - 1 for r, n in enumerate(lengths)],
        "mean": [100.0 * r + (n - 1) / 2 for r, n in enumerate(lengths)],
    }
    for how, answer in expected.items():
        assert rows.restore(pool(values, rows, how))[:, 0].tolist() == pytest.approx(answer)
