"""What every table of accuracies is held against: the most frequent label, and a bag of words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lessen.data.reading import read

PATTERNS = (r"(?u)\b\w\w+\b", r"[^ ]+")
"""Words of two letters or more, or whatever stands between spaces."""


def baselines(files: Mapping[str, Path]) -> dict[str, float]:
    """Test accuracy of the most frequent label, and of TF-IDF with logistic regression.

    Its strength and its words are chosen on tuning rows. The two texts of a pair are joined.

    Args:
        files: The `train`, `tune` and `test` rows.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train = read(str(files["train"]))
    tune, test = (read(str(files[part])).with_labels_of(train.label_names) for part in ("tune", "test"))
    labels = test.labels or []
    frequent = max(set(train.labels or []), key=(train.labels or []).count)
    best = max(
        (
            make_pipeline(
                TfidfVectorizer(ngram_range=(1, 2), min_df=1, sublinear_tf=True, token_pattern=pattern),
                LogisticRegression(max_iter=1000, C=strength),
            ).fit(joined(train.texts), train.labels)
            for strength in (3, 10, 30)
            for pattern in PATTERNS
        ),
        key=lambda words: words.score(joined(tune.texts), tune.labels),
    )
    return {
        "most frequent label": labels.count(frequent) / len(labels),
        "TF-IDF + logistic regression": best.score(joined(test.texts), labels),
    }


def joined(texts: list[Any]) -> list[str]:
    """Pairs as one text each."""
    return [text if isinstance(text, str) else " ".join(text) for text in texts]
