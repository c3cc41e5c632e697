"""From texts to ragged token batches: no padding, rows of similar length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lessen.data.table import Text
from lessen.errors import InputError
from lessen.model.rows import Rows, pack

WHOLE = 1 << 40
"""More tokens than a text has: it is not cut."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one text, its segment ids (None if all zero), and whether it was cut to fit the model."""

    ids: list[int]
    segments: list[int] | None
    truncated: bool


def encode(tokenizer: Any, texts: Sequence[Text], max_tokens: int, *, strict: bool = False) -> list[Encoded]:
    """Tokenize texts or pairs, cutting each to `max_tokens`.

    Args:
        tokenizer: A Hugging Face tokenizer.
        texts: Texts or pairs; empty texts are allowed.
        max_tokens: Longest input the model takes, special tokens included.
        strict: Refuse a longer text instead of cutting it.

    Raises:
        InputError: With `strict`, naming the first text that is too long; when there is no tokenizer, one
            text in place of several, or something that is neither a text nor a pair.
    """
    if isinstance(texts, str):
        raise InputError("texts: a sequence of texts, not one text")
    if tokenizer is None:
        raise InputError("the model has no tokenizer: put its tokenizer.json or vocab.txt into its folder")
    if not texts:
        return []
    for row, text in enumerate(texts, start=1):
        pair = isinstance(text, tuple | list) and len(text) == 2 and all(isinstance(t, str) for t in text)
        if not isinstance(text, str) and not pair:
            raise InputError(f"text {row} is neither a text nor a pair of texts: {text!r:.60}")
        try:
            (text if isinstance(text, str) else "".join(text)).encode()
        except UnicodeEncodeError:
            raise InputError(f"text {row} is not UTF-8 text: {text!r:.60}; convert it first") from None
    first = [t if isinstance(t, str) else t[0] for t in texts]
    second = [t[1] for t in texts if not isinstance(t, str)]
    if second and len(second) != len(texts):
        raise InputError("texts mix single texts and pairs; give one kind")
    if max_tokens < (own := tokenizer.num_special_tokens_to_add(pair=bool(second))):
        raise InputError(f"texts cannot be cut to {max_tokens} tokens: the tokenizer adds {own} of its own")
    batch = tokenizer(
        first,
        second or None,
        truncation=True,
        max_length=max_tokens,
        return_overflowing_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=bool(second),
        verbose=False,
    )
    segments = batch.get("token_type_ids") if second else None
    encoded = []
    for row, ids in enumerate(batch["input_ids"]):
        truncated = len(ids) == max_tokens and _untruncated_length(tokenizer, first, second, row) > max_tokens
        if truncated and strict:
            raise InputError(
                f"text {row + 1} has {_untruncated_length(tokenizer, first, second, row)} tokens, "
                f"the model takes {max_tokens}; shorten it or allow truncation"
            )
        encoded.append(Encoded(ids, segments[row] if segments else None, truncated))
    return encoded


def _untruncated_length(tokenizer: Any, first: list[str], second: list[str], row: int) -> int:
    pair = second[row] if second else None
    return len(tokenizer(first[row], pair, truncation=False, verbose=False)["input_ids"])


def joined_pieces(tokens: Sequence[str]) -> list[str]:
    """A tokenizer's tokens as they follow one another in a line, whichever way it marks words."""
    marks = ("Ġ", "▁")
    marked = any(token.startswith(marks) for token in tokens)
    pieces = []
    for place, token in enumerate(tokens):
        glued = not token.startswith(marks) if marked else token.startswith("##")
        bare = token.lstrip("".join(marks)) if marked else token.removeprefix("##")
        pieces.append(bare if glued or place == 0 else f" {bare}")
    return pieces


def batches(encoded: Sequence[Encoded], size: int) -> Iterator[list[int]]:
    """Indices of `encoded` in batches of `size`, rows of similar length together.

    Raises:
        InputError: When the size is no whole number of at least 1.
    """
    if not isinstance(size, int) or size < 1:
        raise InputError(f"batch_size {size!r}: a whole number of at least 1")
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def stretches(texts: Sequence[Sequence[int]], longest: int) -> list[Tensor]:
    """Documents cut into stretches of at most `longest` tokens; those of a single one teach nothing."""
    cut = (list(text[start : start + longest]) for text in texts for start in range(0, len(text), longest))
    return [torch.tensor(part) for part in cut if len(part) > 1]


def collate(encoded: Sequence[Encoded], device: torch.device) -> tuple[Tensor, Rows, Tensor | None]:
    """One ragged batch: ids `[tokens]`, layout, segments `[tokens]` or None."""
    ids, rows = pack([torch.tensor(e.ids, device=device) for e in encoded])
    if all(e.segments is None for e in encoded):
        return ids, rows, None
    segments, _ = pack([torch.tensor(e.segments, device=device) for e in encoded])
    return ids, rows, segments
