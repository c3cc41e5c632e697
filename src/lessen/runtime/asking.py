"""Prompts as tokens: what is too long loses the ends of its texts, so that what is asked of them stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lessen.data.prompts import Template
from lessen.data.table import Text
from lessen.errors import InputError
from lessen.runtime.text import Encoded, encode


def fitted(
    tokenizer: Any, template: Template, texts: Sequence[Text], most: int, *, strict: bool = False
) -> list[str]:
    """The prompt of each row, with as much of its texts as there is room for; what fits stays as it is.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        template: What stands around the texts, and is never cut.
        texts: Of each row one, or a pair, of which the longer one is cut first.
        most: Tokens of a prompt, special ones included.
        strict: Refuse a longer prompt instead of cutting it.

    Raises:
        InputError: When the template alone is longer; with `strict`, naming the first prompt that is too
            long; or when there is no tokenizer that says where its tokens stand.
    """
    prompts = [template.filled(text) for text in texts]
    for row, each in enumerate(encode(tokenizer, prompts, most, strict=strict)):
        if each.truncated:
            prompts[row] = _cut(tokenizer, template, texts[row], most)
    return prompts


def encode_prompts(
    tokenizer: Any, template: Template, texts: Sequence[Text], most: int, *, strict: bool = False
) -> list[Encoded]:
    """Tokens of each prompt, as `fitted` makes it, and whether its texts were cut; arguments are the same."""
    prompts = fitted(tokenizer, template, texts, most, strict=strict)
    rows = zip(encode(tokenizer, prompts, most), prompts, texts, strict=True)
    return [replace(row, truncated=prompt != template.filled(text)) for row, prompt, text in rows]


def shortened(first: int, second: int, by: int) -> tuple[int, int]:
    """Two lengths that together lose `by`: the longer one until they are equal, then both."""
    left = max(0, first + second - by)
    stays = min(first, max(left - second, (left + 1) // 2))
    return stays, left - stays


def _cut(tokenizer: Any, template: Template, text: Text, most: int) -> str:
    """The prompt of a row that is too long. Where a text ends, tokens may join or split, so it is tried."""
    parts = (text, "") if isinstance(text, str) else text
    ends = [_ends(tokenizer, part) for part in parts]
    kept = len(ends[0]), len(ends[1])
    often = max(template.names.count(name) for name in template.names)
    prompt = template.filled(text)
    while (over := len(tokenizer(prompt, verbose=False)["input_ids"]) - most) > 0:
        if not any(kept):
            raise InputError(
                f"the prompt {template.prompt!r} takes {over + most} tokens without any text; there is room "
                f"for {most}"
            )
        kept = shortened(*kept, -(-over // often))
        first, second = (
            part[: places[count - 1]] if count else ""
            for part, places, count in zip(parts, ends, kept, strict=True)
        )
        prompt = template.filled((first, second))
    return prompt


def _ends(tokenizer: Any, text: str) -> list[int]:
    """Where each token of a text ends, in characters."""
    if not tokenizer.is_fast:
        raise InputError("texts are too long, and this tokenizer does not say where to cut; shorten them")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [end for _, end in found["offset_mapping"]]
