"""The loop that generates: all prompts at once, then a token for each row that goes on, with one cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch

from lessen.errors import InputError
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point
from lessen.runtime.prefill import begin
from lessen.runtime.sampling import GREEDY, Sampling, choose


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


@torch.no_grad()
def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Collection[int] = (),
    sampling: Sampling = GREEDY,
    point: Point = FULL,
) -> Iterator[dict[int, int]]:
    """Continue prompts at full depth.

    A row's tokens do not depend on the other rows: in float32 up to ties within rounding. A row ends after a
    stop token, after `max_new_tokens`, or when the model's positions are used up.

    Args:
        model: A causal model, or one whose decoder answers what its encoder read, in evaluation mode.
        prompts: Token ids of each row.
        max_new_tokens: For each row at most.
        stop: Tokens that end a row; they are given out as its last.
        sampling: How tokens are chosen.
        point: How many tokens of the prompts leave on the way.

    Yields:
        For each step the new token of each row (by its place in `prompts`) that had not ended.

    Raises:
        InputError: For a prompt that is empty or too long, or no tokens wanted.
    """
    most = model.architecture.max_tokens
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens {max_new_tokens}: must be 1 or more")
    for prompt in prompts:
        check_prompt(prompt, most)
    if not prompts:
        return
    start = begin(model, prompts, max_new_tokens, point)
    cache, ids, rows, in_layer, left = start.cache, start.ids, start.rows, start.in_layer, start.left
    draws = sampling.draws(len(prompts))
    while True:
        hidden, rows = model.write(ids, rows, in_layer, cache.memory)
        in_layer = None
        hidden = hidden if rows.tokens == len(rows) else hidden.index_select(0, rows.last)
        tokens = choose(model.next_token(hidden), sampling, [draws[row] for row in rows.original])
        found = dict(zip(rows.original, tokens, strict=True))
        yield found
        for row in found:
            left[row] -= 1
        going = [row for row, token in found.items() if left[row] > 0 and token not in stop]
        if not going:
            return
        ids, rows = torch.tensor([found[row] for row in going], device=ids.device), cache.step(going)
