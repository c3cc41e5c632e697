"""The loop that generates: all prompts at once, then a token for each row that goes on, with one cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from lessen.errors import InputError
from lessen.model.transformer import Transformer
from lessen.runtime.decoding import OFF, Decoding, check_exits
from lessen.runtime.drafts import Draft, drafted, verified
from lessen.runtime.prefill import begin
from lessen.runtime.sampling import GREEDY, Sampling
from lessen.runtime.tally import Tally, TextTally
from lessen.runtime.waterfall import Early, Waterfall


def check_prompt(ids: Sequence[int], most: int) -> None:
    """Refuse a prompt that cannot be continued.

    Args:
        ids: Its tokens.
        most: Tokens the model has positions for.

    Raises:
        InputError: When it is empty or longer than that.
    """
    if not ids:
        raise InputError("the prompt is empty; give at least one token to continue")
    if len(ids) > most:
        raise InputError(f"the prompt has {len(ids)} tokens, the model takes {most}; shorten it")


def check_tokens(ids: Sequence[int], vocabulary: int, of: str = "prompt") -> None:
    """Refuse tokens that do not exist.

    Args:
        ids: Of a prompt, or of what follows it.
        vocabulary: Tokens the model knows.
        of: What they are tokens of, in words.

    Raises:
        InputError: Naming the first of them.
    """
    for place, token in enumerate(ids, start=1):
        if not 0 <= token < vocabulary:
            raise InputError(
                f"token {place} of the {of} is {token}; the model's tokens are 0 to {vocabulary - 1}"
            )


@torch.no_grad()
def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Collection[int] = (),
    sampling: Sampling = GREEDY,
    decoding: Decoding = OFF,
    tally: Tally | None = None,
) -> Iterator[dict[int, int]]:
    """Continue prompts.

    A row's tokens do not depend on the other rows: in float32 up to ties within rounding. A row ends after a
    stop token, after `max_new_tokens`, or when the model's positions are used up.

    With `spec` the likeliest tokens are those of `off`, up to the same ties: the layers that verify compute
    several tokens at once. Drawn tokens follow the law of `off`, but are not the same for the same seed.

    Args:
        model: A causal model, or one whose decoder answers what its encoder read, in evaluation mode.
        prompts: Token ids of each row.
        max_new_tokens: For each row at most.
        stop: Tokens that end a row; they are given out as its last, and never named early.
        sampling: How tokens are chosen.
        decoding: At full depth, with tokens that leave early, or with drafts; and how many tokens of the
            prompts leave on the way.
        tally: Counts what it takes.

    Yields:
        The next token of each row (by its place in `prompts`) that has one: at full depth of all that had not
        ended; with drafts, what was verified at once comes one by one.

    Raises:
        InputError: For a prompt that is empty or too long or has tokens that do not exist, no tokens wanted,
            or tokens to be drawn early.
        LessenError: When the model's logits are no numbers.
        PlanError: For a mode with exits and a model without them.
    """
    most = model.architecture.max_tokens
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens {max_new_tokens!r}: must be a whole number, 1 or more")
    for prompt in prompts:
        check_prompt(prompt, most)
        check_tokens(prompt, model.architecture.vocab_size)
    check_decoding(model, decoding, sampling)
    if not prompts:
        return
    tally, depth = tally or Tally(), model.writer.depth
    start = begin(model, prompts, max_new_tokens, decoding.prompts)
    cache, given, in_layer = start.cache, start.given, start.in_layer
    tally.begin(model, [len(ids) for ids in given.values()], start.sources)
    layers = Waterfall(model, cache, decoding, stop, tally)
    texts = [
        _Text(decoding, sampling, draw, stop, left, tally.of(row))
        for row, (left, draw) in enumerate(zip(start.left, sampling.draws(len(prompts)), strict=True))
    ]
    if decoding.kv == "propagate" and in_layer is None:
        layers.read({row: ids[:-1] for row, ids in given.items() if len(ids) > 1})
        given = {row: ids[-1:] for row, ids in given.items()}
    while given:
        # A prompt waits where its last token leaves, like any other token. One of which tokens leave for good
        # is read to its end instead: none of what is left of it can wait.
        whole = {row for row in given if in_layer is not None or texts[row].must_be_whole}
        answers = layers.step(given, whole, {row: texts[row].wanted for row in given}, in_layer)
        in_layer = None
        found: dict[int, list[int]] = {}
        for answer in answers:
            if isinstance(answer, Early):
                for place, row in enumerate(answer.rows):
                    found[row] = texts[row].hear_early(answer, place)
                continue
            for row, logits in answer.by_row():
                found[row], rejected = texts[row].hear(logits, depth)
                if rejected:
                    cache.truncate(row, cache.next_position(row) - rejected)
        given = {row: [texts[row].last] for row in found if not texts[row].ended}
        for place in range(max(map(len, found.values()))):
            yield {row: tokens[place] for row, tokens in found.items() if place < len(tokens)}


class _Text:
    """One row: what of it may still come, and what is named early and not yet given out.

    Attributes:
        left: Tokens it may still have.
        last: The last token named, given out or drafted.
        ended: Whether nothing comes any more.
    """

    def __init__(
        self,
        decoding: Decoding,
        sampling: Sampling,
        draw: torch.Generator,
        stop: Collection[int],
        left: int,
        tally: TextTally,
    ) -> None:
        self.decoding, self.sampling, self.draw, self.stop = decoding, sampling, draw, stop
        self.left, self.tally = left, tally
        self.last, self.ended = -1, False
        self._early = 0
        self._drafts: list[Draft] = []

    @property
    def must_be_whole(self) -> bool:
        """Whether its next token has to go through all layers.

        A full queue has to be emptied; a draft is verified when it is long enough, fills the text, or ends
        it.
        """
        if self.decoding.mode == "spec" and (len(self._drafts) + 1 >= self.left or self.last in self.stop):
            return True
        return self.decoding.kv == "exact" and self._early >= self.decoding.most

    @property
    def wanted(self) -> int:
        """For how many tokens full depth is asked, if the next one gets there."""
        return len(self._drafts) + 1

    def hear_early(self, answer: Early, place: int) -> list[int]:
        """An exit names the next token: what of it is given out."""
        self._early += 1
        draft = drafted(answer.decision, place, answer.layer, self.sampling, self.draw)
        self.last = draft.token
        if self.decoding.mode == "spec":
            self._drafts.append(draft)
            return []
        return self._given([draft.token], [answer.layer])

    def hear(self, logits: Tensor, depth: int) -> tuple[list[int], int]:
        """Full depth names the next token, and verifies what was drafted.

        Args:
            logits: `[wanted, vocabulary]`.
            depth: Layers of the model.

        Returns:
            What is given out; and how many tokens were run for nothing, because those before them were not
            what had been drafted.
        """
        tokens = verified(logits, self._drafts, self.sampling, self.draw)
        stood = len(tokens) - 1
        rejected = len(self._drafts) - stood
        layers = [*(draft.layer for draft in self._drafts[:stood]), depth]
        if self._drafts:
            self.tally.drafts.append((len(self._drafts), stood))
        self._drafts, self._early, self.last = [], 0, tokens[-1]
        return self._given(tokens, layers), rejected

    def _given(self, tokens: list[int], layers: list[int]) -> list[int]:
        """Tokens up to the first that ends the text."""
        ends = [place for place, token in enumerate(tokens) if token in self.stop]
        tokens = tokens[: ends[0] + 1] if ends else tokens
        self.left -= len(tokens)
        self.tally.layers += layers[: len(tokens)]
        self.ended = bool(ends) or self.left == 0
        return tokens


def check_decoding(model: Transformer, decoding: Decoding, sampling: Sampling) -> None:
    """Refuse a way to decode that the model, or the way tokens are chosen, does not go with.

    Raises:
        InputError: For tokens that would be drawn early.
        PlanError: For a mode with exits and a model without them.
    """
    check_exits(model.shape, decoding.mode)
    if decoding.mode == "direct" and sampling.temperature > 0:
        raise InputError(
            "mode direct takes the likeliest token; use mode spec to draw tokens, or temperature 0"
        )
