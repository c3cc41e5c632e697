"""From prompts to text: tokens in, tokens out, and pieces of text as soon as they are whole characters."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lessen.errors import InputError
from lessen.model.transformer import Transformer
from lessen.runtime.decoding import OFF, Decoding
from lessen.runtime.generation import check_prompt, generate
from lessen.runtime.sampling import GREEDY, Sampling
from lessen.runtime.tally import Tally

Prompt = str | Sequence[int]
"""A text, or its token ids."""

TORN = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer makes of bytes that are no whole character yet."""


@dataclass(frozen=True)
class Completion:
    """What a prompt was continued with.

    Attributes:
        text: Without special tokens.
        tokens: Ids, the stop token included.
        prompt_tokens: Tokens of the prompt.
        ended: By a stop token, or because no more tokens were wanted or possible.
        layers: For each token, how many layers it went through before it was named, or drafted.
    """

    text: str
    tokens: list[int]
    prompt_tokens: int
    ended: Literal["stop", "length"]
    layers: list[int]


class Pieces:
    """Text of tokens that come one by one.

    What a token says can depend on the one before it (a space, bytes of a character), so it is decoded with
    those said last, and their text is taken off.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self._before = 0
        self._said = 0

    def add(self, token: int) -> str:
        """What one more token adds to the text; nothing while a character is torn."""
        self.tokens.append(token)
        new = self.rest()
        if new.endswith(TORN):
            return ""
        self._before, self._said = self._said, len(self.tokens)
        return new

    def rest(self) -> str:
        """What has not been said yet."""
        known = self._text(self.tokens[self._before : self._said])
        return self._text(self.tokens[self._before :])[len(known) :]

    def _text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


def check_text(prompt: str) -> None:
    """Refuse what is no text to continue.

    Raises:
        InputError: When it is empty, or has bytes that were not UTF-8, which Python makes lone surrogates of.
    """
    if not prompt:
        raise InputError("the prompt is empty; give a text to continue")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the prompt is not UTF-8 text (character {error.start + 1}); convert it first"
        ) from None


def prompt_ids(tokenizer: Any, prompt: Prompt, most: int) -> list[int]:
    """Token ids of a prompt.

    Args:
        tokenizer: A Hugging Face tokenizer.
        prompt: A text, or its ids.
        most: Tokens the model has positions for.

    Raises:
        InputError: When it is empty, too long, or not UTF-8.
    """
    if isinstance(prompt, str):
        check_text(prompt)
        ids = tokenizer(prompt, verbose=False)["input_ids"]
    else:
        try:
            ids = [operator.index(token) for token in prompt]
        except TypeError:
            raise InputError(f"the prompt {prompt!r} is neither a text nor token ids") from None
    check_prompt(ids, most)
    return ids


def complete(
    model: Transformer,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    stop: Collection[int] = (),
    sampling: Sampling = GREEDY,
    decoding: Decoding = OFF,
    tally: Tally | None = None,
) -> list[Completion]:
    """Continue prompts, all in one batch; arguments as in `generate`.

    Raises:
        InputError: When one text is given in place of a list.
    """
    if isinstance(prompts, str):
        raise InputError("prompts is one text, which would be read letter by letter; give a list: [text]")
    ids = [prompt_ids(tokenizer, prompt, model.architecture.max_tokens) for prompt in prompts]
    tokens: list[list[int]] = [[] for _ in prompts]
    tally = tally or Tally()
    options: dict[str, Any] = {"sampling": sampling, "decoding": decoding, "tally": tally}
    for step in generate(model, ids, max_new_tokens=max_new_tokens, stop=stop, **options):
        for row, token in step.items():
            tokens[row].append(token)
    return [
        Completion(
            text=tokenizer.decode(found, skip_special_tokens=True),
            tokens=found,
            prompt_tokens=len(given),
            ended="stop" if found[-1] in stop else "length",
            layers=tally.of(row).layers,
        )
        for row, (given, found) in enumerate(zip(ids, tokens, strict=True))
    ]


def stream(
    model: Transformer,
    tokenizer: Any,
    prompt: Prompt,
    *,
    max_new_tokens: int,
    stop: Collection[int] = (),
    sampling: Sampling = GREEDY,
    decoding: Decoding = OFF,
    tally: Tally | None = None,
) -> Iterator[tuple[int | None, str]]:
    """Continue one prompt; arguments as in `generate`.

    Yields:
        Each token with the text it adds, which is empty while a character is torn; at the end, without a
        token, what is left of one.
    """
    ids = prompt_ids(tokenizer, prompt, model.architecture.max_tokens)
    pieces = Pieces(tokenizer)
    options: dict[str, Any] = {"sampling": sampling, "decoding": decoding, "tally": tally}
    for step in generate(model, [ids], max_new_tokens=max_new_tokens, stop=stop, **options):
        yield step[0], pieces.add(step[0])
    if rest := pieces.rest():
        yield None, rest
