"""Prompts that are too long lose the ends of their texts, never what is asked, nor the room of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lessen.builtin import model_folder
from lessen.data.prompts import TEMPLATES, Template
from lessen.errors import InputError
from lessen.runtime.asking import encode_prompts, fitted, shortened
from lessen.runtime.text import encode

WAYS = [way for ways in TEMPLATES.values() for way in ways]
LONG = "Unbelievably fine acting, naïve plot... 3.5 stars! " * 60
ROOM = 40


@pytest.fixture(scope="module", params=["minilm-l6", "smollm2-135m"])
def tokenizer(request: pytest.FixtureRequest):
    """Pieces of words, and bytes of characters."""
    import lessen

    if request.param == "minilm-l6":
        return AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    return lessen.load(f"builtin:{request.param}").tokenizer


def texts_of(way: Template, *parts: str):
    return parts if "pair" in way.names else parts[0]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.prompt)
def test_what_stands_around_texts_stays(tokenizer, way: Template) -> None:
    (prompt,) = fitted(tokenizer, way, [texts_of(way, LONG, LONG)], ROOM)
    around = [part for part in way.prompt.replace("{pair}", "{text}").split("{text}") if part]
    assert all(part in prompt for part in around)
    assert prompt.endswith(around[-1]) or way.prompt.endswith("}")
    (row,) = encode_prompts(tokenizer, way, [texts_of(way, LONG, LONG)], ROOM)
    assert row.truncated
    assert ROOM - 4 <= len(row.ids) <= ROOM
    (whole,) = encode(tokenizer, [way.filled(texts_of(way, "x", "x"))], ROOM)
    if not way.prompt.endswith("}"):
        assert row.ids[-3:] == whole.ids[-3:]  # the template's last token, and what ends a text


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.prompt)
def test_what_fits_is_as_it_was(tokenizer, way: Template) -> None:
    texts = [texts_of(way, "a  {fine} film\n", "dull"), texts_of(way, "short", "")]
    prompts = [way.filled(text) for text in texts]
    assert fitted(tokenizer, way, texts, ROOM) == prompts
    assert encode_prompts(tokenizer, way, texts, ROOM) == encode(tokenizer, prompts, ROOM)


def test_the_longer_text_of_a_pair_goes_first(tokenizer) -> None:
    way = Template("{text} ## {pair}?")
    for short, row in (("so it is", (LONG, "so it is")), ("so it is", ("so it is", LONG))):
        (prompt,) = fitted(tokenizer, way, [row], ROOM)
        assert short in prompt
    first, second = fitted(tokenizer, way, [(LONG, LONG)], ROOM)[0].removesuffix("?").split(" ## ")
    assert abs(len(tokenizer(first)["input_ids"]) - len(tokenizer(second)["input_ids"])) <= 2


def test_a_text_that_stands_twice(tokenizer) -> None:
    way = Template("{text} Again: {text} Good?")
    (row,) = encode_prompts(tokenizer, way, [LONG], ROOM)
    assert ROOM - 8 <= len(row.ids) <= ROOM


def test_no_room_and_no_cutting_are_said(tokenizer) -> None:
    way = Template("Is that a film one would like to see again? {text}")
    with pytest.raises(InputError, match="without any text; there is room for 6"):
        fitted(tokenizer, way, ["dull"], 6)
    with pytest.raises(InputError, match="text 2 has"):
        fitted(tokenizer, way, ["dull", LONG], ROOM, strict=True)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 120))
def test_lengths_lose_as_many_as_they_have_to(first: int, second: int, by: int) -> None:
    left = shortened(first, second, by)
    assert sum(left) == max(0, first + second - by)
    assert 0 <= left[0] <= first
    assert 0 <= left[1] <= second
    lost = left[0] < first, left[1] < second
    if lost == (True, False):
        assert left[0] >= left[1]
    if lost == (False, True):
        assert left[1] + 1 >= left[0]
    if lost == (True, True):
        assert abs(left[0] - left[1]) <= 1
