"""ROUGE-L (Lin 2004): how much of a wanted text another says, in the same order.

Words are runs of letters and digits in lower case, not stemmed, as in the package rouge-score. It is simple
enough to be exact here, and no package has to be kept for it.
"""

from __future__ import annotations

import re

WORD = re.compile(r"[a-z0-9]+")


def rouge_l(said: str, wanted: str) -> float:
    """The F1 of the longest common subsequence of words, from 0 to 1; 0 where either text has none."""
    ours, theirs = (WORD.findall(text.lower()) for text in (said, wanted))
    common = longest_common(ours, theirs)
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def longest_common(first: list[str], second: list[str]) -> int:
    """Words of the longest sequence that both have in this order, with gaps or without."""
    before = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(row[place], before[place + 1]))
        before = row
    return before[-1]
