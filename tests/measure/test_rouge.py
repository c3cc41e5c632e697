"""ROUGE-L against its definition, by all subsequences of short texts, and by hand."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessen.measure.rouge import longest_common, rouge_l

WORDS = st.lists(st.sampled_from("abc"), max_size=6)


def by_definition(first: list[str], second: list[str]) -> int:
    parts = [
        {tuple(words[place] for place in places) for size in range(len(words) + 1)
         for places in combinations(range(len(words)), size)}
        for words in (first, second)
    ]  # fmt: skip
    return max(map(len, parts[0] & parts[1]))


@given(WORDS, WORDS)
def test_the_longest_common_sequence(first: list[str], second: list[str]) -> None:
    assert longest_common(first, second) == by_definition(first, second)


@pytest.mark.parametrize(
    ("said", "wanted", "score"),
    [
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("The gunman, kill police!", "police killed the gunman", 2 / 4),
        ("a b c d", "a b", 2 * 0.5 * 1 / 1.5),
        ("", "a", 0.0),
        ("!", "a", 0.0),
    ],
)
def test_by_hand(said: str, wanted: str, score: float) -> None:
    """The first two are of Lin 2004, section 3; words that differ in their ending are different."""
    assert rouge_l(said, wanted) == pytest.approx(score)
    assert rouge_l(wanted, said) == pytest.approx(score)
