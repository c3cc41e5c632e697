"""Profiles fall with alpha and depth; solving finds the speed-up asked for; the page's numbers come out."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessen.errors import PlanError
from lessen.model.architecture import Architecture
from lessen.model.macs import row_macs
from lessen.plan import ExitShape, RetentionProfile, dense_shape
from lessen.tokens.elimination import left_after_layers
from lessen.tokens.profile import in_reach, most, retention_of, shares_of_scores, solve, speedup_of

FAMILIES = ("acc", "envelope", "explicit", "geometric", "tilt")
BASE = tuple(float(share) for share in np.linspace(0.9, 0.3, 12))


def bert_base() -> Architecture:
    return Architecture(
        family="bert", vocab_size=10, hidden_size=768, embedding_size=768, num_hidden_layers=12,
        num_attention_heads=12, num_key_value_heads=12, head_dim=64, intermediate_size=3072,
        max_position_embeddings=512, type_vocab_size=2, position="learned", norm_place="post",
        norm_eps=1e-12, hidden_act="gelu", pad_token_id=0, dropout=0.1, attention_dropout=0.1,
    )  # fmt: skip


SHAPE = dense_shape(12, 12, 3072, exits=(ExitShape(layer=12),))


def macs(tokens: int, left: list[int] | None) -> float:
    head = 2 * 768
    return row_macs(bert_base(), SHAPE, 2, tokens, left=left) - head


def pages_macs(tokens: int, left: list[int] | None) -> float:
    """The page's own formula (1.7), which counts the output projection on the tokens that enter."""
    leaving = [tokens] * 12 if left is None else left
    entering = [tokens, *leaving[:-1]]
    return sum(
        4 * 768**2 * a + 2 * 768 * a**2 + 2 * 768 * 3072 * b for a, b in zip(entering, leaving, strict=True)
    )


@pytest.mark.parametrize("family", FAMILIES)
@given(one=st.floats(0, 5), other=st.floats(0, 5))
def test_shares_fall_with_alpha_and_depth(family: str, one: float, other: float) -> None:
    profile = RetentionProfile(family=family, base=BASE)
    less, more = sorted((one, other))
    first, second = retention_of(profile, less), retention_of(profile, more)
    assert all(a >= b for a, b in zip(first, second, strict=True))
    assert all(a >= b for a, b in itertools.pairwise(first))
    assert retention_of(profile, 0.0) == (1.0,) * 12


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("speedup", [1.0, 1.5, 2.0, 3.0, 4.8])
def test_solving_reaches_what_is_asked_and_not_much_more(family: str, speedup: float) -> None:
    profile = RetentionProfile(family=family, base=BASE)
    lengths = (40, 80, 128)
    alpha = solve(profile, speedup, lengths, macs)
    found = speedup_of(profile, alpha, lengths, macs)
    assert speedup <= found <= 1.03 * speedup
    if speedup == 1.0:
        assert alpha == 0.0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [(7,), (128,), (3, 40, 512)])
def test_6_speedups_rise_and_counts_fall_with_alpha(family: str, lengths: tuple[int, ...]) -> None:
    """Over a grid from 0 to where hardly a token is left, in steps finer than the counts."""
    profile = RetentionProfile(family=family, base=BASE)
    grid = [0.0, *np.geomspace(1e-3, 1e4, 150).tolist()]
    speedups = [speedup_of(profile, alpha, lengths, macs) for alpha in grid]
    assert speedups[0] == 1.0
    assert all(a <= b for a, b in itertools.pairwise(speedups))
    assert speedups[-1] == most(profile, lengths, macs) > 3
    counts = [left_after_layers(retention_of(profile, alpha), max(lengths)) for alpha in grid]
    for more, less in itertools.pairwise(counts):
        assert all(a >= b for a, b in zip(more, less, strict=True)), "in alpha"
        assert all(a >= b for a, b in itertools.pairwise(less)), "in depth"


def test_the_smallest_alpha_where_cost_falls_with_alpha() -> None:
    profile = RetentionProfile(base=BASE)
    for speedup in (1.01, 1.7, 4.8):
        alpha = solve(profile, speedup, (128,), macs)
        assert speedup_of(profile, alpha, (128,), macs) >= speedup
        smaller = np.linspace(0, alpha * (1 - 1e-9), 300)
        assert all(speedup_of(profile, each, (128,), macs) < speedup for each in smaller)


def test_a_cost_that_rises_before_it_falls_is_solved_too() -> None:
    """As in ms, where a layer that tokens leave costs as much as some tokens; whole rows are costed once."""
    asked_whole = []

    def ms(tokens: int, left: list[int] | None) -> float:
        leaving = [tokens] * 12 if left is None else left
        if left is None:
            asked_whole.append(tokens)
        steps = sum(a != b for a, b in itertools.pairwise([tokens, *leaving]))
        return sum(leaving) + 10 * steps

    profile = RetentionProfile(base=BASE)
    assert speedup_of(profile, 0.05, (40, 80), ms) < 1, "it rises"
    asked_whole.clear()
    alpha = solve(profile, 2.0, (40, 80), ms)
    assert asked_whole == [40, 80]
    assert (
        speedup_of(profile, alpha, (40, 80), ms) >= 2 > speedup_of(profile, alpha * (1 - 1e-9), (40, 80), ms)
    )


def test_the_cap_itself_is_reached() -> None:
    """A base so near 1 that all of the range of alpha is needed."""
    profile = RetentionProfile(family="explicit", base=(0.9995,) * 12)
    cap = most(profile, (128,), macs)
    assert speedup_of(profile, solve(profile, cap, (128,), macs), (128,), macs) == cap
    with pytest.raises(PlanError, match=f"reaches a speed-up of {in_reach(cap):.2f} at most"):
        solve(profile, cap + 0.01, (128,), macs)


@pytest.mark.parametrize("length", range(10, 26))
def test_the_most_that_is_said_can_be_reached(length: int) -> None:
    """Of 16 lengths, about half of whose caps would be rounded up."""
    profile = RetentionProfile(base=BASE)
    with pytest.raises(PlanError) as refused:
        solve(profile, 1000.0, (length,), macs)
    said = float(re.findall(r"a speed-up of (\S+) at most", str(refused.value))[0])
    assert most(profile, (length,), macs) - 0.01 < said
    assert speedup_of(profile, solve(profile, said, (length,), macs), (length,), macs) >= said


def test_what_cannot_be_reached_names_what_can() -> None:
    with pytest.raises(PlanError, match=r"reaches a speed-up of \d+\.\d+ at most"):
        solve(RetentionProfile(base=BASE), 100.0, (128,), macs)


@pytest.mark.parametrize(
    ("speedup", "kept"),
    [
        (2.0, [113, 99, 88, 77, 68, 60, 52, 46, 41, 36, 32, 28]),
        (3.0, [103, 82, 65, 52, 42, 33, 27, 21, 17, 14, 11, 9]),
        (4.8, [88, 60, 41, 29, 20, 14, 9, 7, 5, 3, 2, 2]),
    ],
)
def test_the_pages_geometric_examples(speedup: float, kept: list[int]) -> None:
    profile = RetentionProfile(family="geometric", base=(1.0,) * 12)
    alpha = solve(profile, speedup, (128,), pages_macs)
    assert left_after_layers(retention_of(profile, alpha), 128) == kept


def test_the_pages_golden_macs() -> None:
    """Latency-adjustable page, 1.7; full rows cost the same in both ways of counting."""
    assert macs(128, None) == pages_macs(128, None) == 11_173_625_856
    assert macs(512, None) == 48_318_382_080
    assert pages_macs(128, None) / pages_macs(128, [64] * 12) == pytest.approx(1.9668, abs=1e-4)
    assert pages_macs(128, None) / pages_macs(128, [128] * 6 + [64] * 6) == pytest.approx(1.3126, abs=1e-4)
    assert macs(128, [64] * 12) < pages_macs(128, [64] * 12), "the output projection sees only survivors"


def test_shares_from_scores() -> None:
    """Two rows of five tokens: beside [CLS], one token has half of the rest in layer 1 and all of it in 2."""
    row = [[0.5, 0.25, 0.15, 0.05, 0.05], [0.2, 0.8, 0.0, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]]
    shares = shares_of_scores([row, row], 0.5, envelope=True)
    assert shares.tolist() == [0.4, 0.4, 0.4], "the last layer spreads out again, the profile does not"
    assert shares_of_scores([row], 1.0, envelope=True).tolist() == [1.0, 0.4, 0.4]
    assert shares_of_scores([row, row], 0.5).tolist() == pytest.approx([0.4, 0.4**3, 0.4**5 * 0.6])
    assert shares_of_scores([row], 1.0).tolist() == pytest.approx([1.0, 0.4, 0.16])
    with pytest.raises(PlanError, match="more than one token"):
        shares_of_scores([[[1.0]]], 0.5)


def test_shares_of_many_layers_are_never_nothing():
    """Of 60 layers that each need a hundredth, the last would need 1e-3660 of the tokens."""
    scores = np.zeros((60, 200))
    scores[:, 100] = 1.0
    shares = shares_of_scores([scores], 0.9)
    assert shares.min() > 0
    assert (np.diff(shares) <= 0).all()
    RetentionProfile(family="acc", base=tuple(shares.clip(max=0.99)))
