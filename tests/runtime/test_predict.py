"""What is said of tokens that have left depends on what the answer reads."""

import pytest

from lessen.plan import ExitShape, dense_shape
from lessen.runtime.predict import after_leaving

READ = {"cls": "[CLS] alone", "last": "the last token alone", "mean": "the mean of all tokens"}


@pytest.mark.parametrize("pool", READ)
def test_what_the_answer_has_of_tokens_that_left(pool: str) -> None:
    said = after_leaving(dense_shape(2, 2, 8, exits=(ExitShape(layer=2, pool=pool),)))
    assert said.startswith(f"The answer reads {READ[pool]}")
    assert ("those that left on the way still count" in said) == (pool == "mean")
