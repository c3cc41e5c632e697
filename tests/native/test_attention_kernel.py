"""The compiled attention: equal to the definition, what it counts equal to ACC, whatever the lengths."""

import pytest
import torch

from lessen.model.attention import (
    LONG,
    attend_by_kernels,
    attend_reference,
    attend_scored,
    received,
)
from lessen.model.causal import attend_causal, attend_causal_reference
from lessen.model.linear import mkl_packs
from lessen.model.relative import PositionBias, RelativeBias
from lessen.model.rows import Rows, pack
from lessen.native import native, why_not
from lessen.tokens.elimination import survivors
from lessen.tokens.score import SCORES

kernels = native()
pytestmark = pytest.mark.skipif(kernels is None, reason=f"no kernels: {why_not()}")

LENGTHS = [[1], [2], [31], [1, 1, 3, 200], [5] * 9, list(range(1, 40, 3)), [512]]


def batch(lengths, heads=3, dim=32, seed=0):
    _, rows = pack([torch.zeros(length, dtype=torch.long) for length in lengths])
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(sum(lengths), 3, heads, dim, generator=generator), rows


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("dim", [1, 7, 32, 64, 100])
def test_equals_the_definition(lengths, dim):
    qkv, rows = batch(lengths, dim=dim)
    context, gets = kernels.attention(*qkv.unbind(1), rows.lengths, listened=max(rows.lengths))
    torch.testing.assert_close(context, attend_reference(qkv, rows), rtol=1e-5, atol=2e-6)
    start = 0
    for length in rows.lengths:
        query, key, _ = qkv[start : start + length].permute(1, 2, 0, 3).double()
        weights = (query @ key.transpose(-1, -2) / dim**0.5).softmax(-1)
        expected = received(weights[None], None)[0]
        torch.testing.assert_close(gets[start : start + length].double(), expected, rtol=1e-4, atol=1e-7)
        start += length


def test_a_row_is_the_same_alone_and_in_a_batch():
    qkv, rows = batch([3, 17, 17, 130])
    together, gets = kernels.attention(*qkv.unbind(1), rows.lengths, listened=max(rows.lengths))
    start = 0
    for length in rows.lengths:
        part = slice(start, start + length)
        alone, gets_alone = kernels.attention(*qkv[part].unbind(1), [length], listened=length)
        assert torch.equal(alone, together[part])
        assert torch.equal(gets_alone, gets[part])
        start += length


@pytest.mark.parametrize("length", [1, 2, 3, 7, 17, 31, 33, 63, 100, 200, 511])
@pytest.mark.parametrize("score", ["mean", "max_head", "window"])
@pytest.mark.parametrize("gradients", [False, True])
def test_15_of_tokens_that_get_the_same_attention_the_earliest_stay(length, score, gradients):
    """Latency-adjustable page, 1.12: queries and keys of zeros, by our kernel and by torch."""
    qkv, rows = batch([length, length + 2])
    qkv[:, :2] = 0
    with torch.set_grad_enabled(gradients):
        found = attend_by_kernels(*qkv.unbind(1), rows, SCORES[score])
        gets = (found or attend_scored(qkv, rows, SCORES[score]))[1]
        assert (found is not None) == (score != "max_head" and not gradients)
    kept = max(1, length // 2)
    assert survivors(gets, rows, (kept, kept)).tolist() == [*range(kept), *range(length, length + kept)]


@pytest.mark.parametrize("shift", [-3000.0, 0.0, 3000.0])
def test_extreme_scores_stay_finite(shift):
    qkv, rows = batch([5, 21])
    qkv[:, 1] = qkv[:, 1] + shift
    qkv[:, 0] = qkv[:, 0].abs()
    context = kernels.attention(*qkv.unbind(1), rows.lengths)[0]
    assert context.isfinite().all()
    torch.testing.assert_close(context, attend_reference(qkv.double(), rows).float(), rtol=1e-2, atol=1e-2)


def test_who_computes_what():
    qkv, rows = batch([3, 20])
    assert attend_by_kernels(*qkv.unbind(1), rows) is None  # gradients are on
    with torch.no_grad():
        assert attend_by_kernels(*qkv.bfloat16().unbind(1), rows) is None
        long, at = batch([LONG])
        assert (attend_by_kernels(*long.unbind(1), at) is None) == mkl_packs()
        assert attend_by_kernels(*qkv.unbind(1), rows, SCORES["offdiag"]) is None
        context, gets = attend_by_kernels(*qkv.unbind(1), rows)
        assert gets is None
        found = attend_by_kernels(*qkv.unbind(1), rows, SCORES["mean"])
        assert torch.equal(found[0], context)
        for one, other in zip(found, attend_scored(qkv, rows, SCORES["mean"]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("lengths", LENGTHS[:-1])
@pytest.mark.parametrize("left", [False, True])
def test_a_bias_is_that_of_the_places(lengths, left):
    """Latency-adjustable page, 1.10: of what is left, both axes; here of two heads of four, stretched."""
    qkv, rows = batch(lengths, heads=2)
    bias = RelativeBias(8, 20, 4)
    bias.weight.mul_(50)
    if left:
        places = torch.cat(
            [torch.arange(length) * 3 % 7 + 7 * torch.arange(length) for length in rows.lengths]
        )
        full = tuple(7 * length for length in rows.lengths)
        rows = Rows(rows.lengths, rows.original, rows.device, full, places)
    near = PositionBias(bias, rows, torch.float32)
    context, gets = attend_by_kernels(*qkv.unbind(1), rows, received, near, [3, 1], 1.5)
    longer = qkv.double()
    longer[:, 0] *= 1.5
    expected = attend_reference(longer, rows, near.written_out([3, 1]).double())
    torch.testing.assert_close(context.double(), expected, rtol=1e-5, atol=2e-6)
    beside = attend_scored(longer, rows, received, near.written_out([3, 1]).double())[1]
    torch.testing.assert_close(gets.double(), beside, rtol=1e-4, atol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("shared", [1, 3])
@pytest.mark.parametrize("score", ["mean", "last_query", "window", "causal_norm"])
def test_causal_attention_and_what_it_counts(shared, score):
    """Against float64; rows shorter and longer than the window, heads that share keys."""
    generator = torch.Generator().manual_seed(1)
    _, rows = pack([torch.zeros(length, dtype=torch.long) for length in (1, 2, 9, 30, 101)])
    query = torch.randn(rows.tokens, 6, 20, generator=generator)
    key, value = torch.randn(2, rows.tokens, 6 // shared, 20, generator=generator)
    context, gets = attend_by_kernels(query, key, value, rows, SCORES[score], causal=True)
    expected = attend_causal_reference(query.double(), key.double(), value.double(), rows)
    torch.testing.assert_close(context.double(), expected, rtol=1e-5, atol=2e-6)
    assert torch.equal(attend_causal(query, key, value, rows), context)
    qkv = torch.stack([query, *(each.repeat_interleave(shared, 1) for each in (key, value))], 1).double()
    never = torch.full((1, 101, 101), float("-inf"), dtype=torch.float64).triu(1)
    found = attend_scored(qkv, rows, SCORES[score], never)[1]
    torch.testing.assert_close(gets.double(), found, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_values_of_another_type_are_torchs():
    qkv, rows = batch([3, 20])
    query, key, value = qkv.unbind(1)
    assert attend_by_kernels(query, key, value.bfloat16(), rows) is None
