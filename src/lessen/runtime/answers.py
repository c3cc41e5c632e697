"""Which of a few answers a model finds likeliest, by the tokens of each: nothing is generated.

A prompt is read once. Each answer then goes through the layers that write, after the same cache, which
forgets it again; tokens are named for all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lessen.errors import InputError, LessenError
from lessen.model.rows import following, pack
from lessen.model.transformer import Transformer
from lessen.plan import FULL, Point
from lessen.runtime.generation import check_prompt, check_tokens
from lessen.runtime.prefill import Beginning, begin
from lessen.runtime.sampling import NO_NUMBERS

NAMED_AT_ONCE = 256
"""States for which tokens are named together: each has as many logits as there are tokens."""

BEFORE = "a"
"""A word after which an answer has the tokens it has after any."""


def answer_ids(tokenizer: Any, answer: str, model: Transformer) -> list[int]:
    """Tokens of an answer.

    Of an encoder-decoder model they are a text's own, with what ends it. After a prompt that is continued
    they begin with a space, as after another word, and end nowhere.

    Raises:
        InputError: When there are none.
    """
    if model.decoder is not None:
        ids = tokenizer(answer, verbose=False)["input_ids"]
    else:
        before, both = (
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            for text in (BEFORE, f"{BEFORE} {answer}")
        )
        ids = both[len(before) :]
    if not ids:
        raise InputError(f"the answer {answer!r} has no tokens")
    return list(ids)


def room_of(model: Transformer, longest: int) -> int:
    """Tokens a prompt may have: where it is continued, all but the last of `longest` need positions too.

    Raises:
        InputError: When what is to be written is longer than the model has positions.
    """
    most = model.architecture.max_tokens
    if longest > most:
        raise InputError(f"{longest} tokens are to be written, the model takes {most}; give shorter answers")
    return most if model.decoder is not None else most - longest + 1


@torch.no_grad()
def score_answers(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    point: Point = FULL,
    *,
    batch_size: int = 16,
    per_token: bool = False,
    told: Callable[[int], None] | None = None,
) -> Tensor:
    """Log-probability of each answer after each prompt: the sum over its tokens.

    Args:
        model: A causal or encoder-decoder model, in evaluation mode.
        prompts: Token ids of each row.
        answers: Token ids of each answer.
        point: How many tokens of the prompts leave on the way.
        batch_size: Prompts read at once.
        per_token: The mean over an answer's tokens instead, which does not prefer short ones.
        told: Called after each batch with the number of its prompts.

    Returns:
        `[rows, answers]`, float32 or wider, on the CPU.

    Raises:
        InputError: For a prompt that is empty, or too long for the longest answer; for answers that are
            empty, or none; and for tokens that do not exist.
        LessenError: When a logit is no number.
    """
    _check_answers(model, answers)
    room = room_of(model, max(map(len, answers)))
    for prompt in prompts:
        check_prompt(prompt, room)
        check_tokens(prompt, model.architecture.vocab_size)
    if not prompts:
        return torch.zeros(0, len(answers))
    found = []
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), batch_size):
        batch = [prompts[row] for row in order[start : start + batch_size]]
        found.append(_numbers(_of_batch(model, batch, answers, point)))
        if told is not None:
            told(len(batch))
    scores = torch.cat(found)
    if per_token:
        scores = scores / torch.tensor([len(answer) for answer in answers])
    return torch.empty_like(scores).index_copy_(0, torch.tensor(order), scores)


def _of_batch(
    model: Transformer, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], point: Point
) -> Tensor:
    """All states are found first, and tokens named together: a matrix that large takes long to read."""
    start, count = begin(model, prompts, max(map(len, answers)), point), len(prompts)
    hidden, rows = model.write(*start.first_pass(), start.in_layer, start.cache.memory)
    first = rows.restore(hidden.index_select(0, rows.last))
    later = [_states_within(model, start, answer, count) for answer in answers if len(answer) > 1]
    named = sorted({id for answer in answers for id in answer})
    place = {id: column for column, id in enumerate(named)}
    likely = torch.cat(
        [
            model.next_token(states).log_softmax(-1)[:, named]
            for states in torch.cat([first, *later]).split(NAMED_AT_ONCE)
        ]
    )
    begins, *rests = likely.split([count, *(len(states) for states in later)])
    columns, left = [], iter(rests)
    for answer in answers:
        found = begins[:, place[answer[0]]]
        if len(answer) > 1:
            wanted = torch.tensor([place[id] for id in answer[1:]], device=likely.device)
            rest = next(left).unflatten(0, (count, -1))
            found = found + rest.gather(2, wanted.expand(count, -1)[..., None]).sum((1, 2))
        columns.append(found)
    return torch.stack(columns, 1).cpu()


@torch.no_grad()
def score_own(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    point: Point = FULL,
    *,
    batch_size: int = 8,
    told: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """Log-probability of each token of each prompt's own continuation, given those before it.

    Tokens of the prompt may have left, those of the continuation never do: what is scored is what decoding
    would see, token by token (latency-adjustable page, 1.9, second legal way).

    Args:
        model: As in `score_answers`.
        prompts: Token ids of each row.
        answers: What follows each, at least one token.
        point: As in `score_answers`.
        batch_size: Prompts read at once.
        told: As in `score_answers`.

    Returns:
        `[tokens]` of each row, float32 or wider, on the CPU.

    Raises:
        InputError: For a prompt that is empty, or too long for what follows; when nothing follows; and for
            tokens that do not exist.
        LessenError: When a logit is no number.
    """
    if prompts:
        _check_answers(model, answers)
    for prompt, answer in zip(prompts, answers, strict=True):
        check_prompt(prompt, room_of(model, len(answer)))
        check_tokens(prompt, model.architecture.vocab_size)
    found: dict[int, Tensor] = {}
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for begins in range(0, len(order), batch_size):
        batch = order[begins : begins + batch_size]
        its = [answers[row] for row in batch]
        start = begin(model, [prompts[row] for row in batch], max(map(len, its)), point)
        hidden, rows = model.write(*start.first_pass(), start.in_layer, start.cache.memory)
        last = hidden.index_select(0, rows.last).split(1)
        states = {row: [state] for row, state in zip(rows.original, last, strict=True)}
        if rest := {row: len(answer) - 1 for row, answer in enumerate(its) if len(answer) > 1}:
            rows = start.cache.layout(rest)
            ids = torch.tensor([id for row in rows.original for id in its[row][:-1]], device=rows.device)
            hidden, rows = model.write(ids, rows, None, start.cache.memory)
            for row, part in zip(rows.original, hidden.split(rows.lengths), strict=True):
                states[row].append(part)
        for row, answer in enumerate(its):
            likely = model.next_token(torch.cat(states[row])).log_softmax(-1).cpu()
            found[batch[row]] = _numbers(likely.gather(1, torch.tensor(answer)[:, None])[:, 0])
        if told is not None:
            told(len(batch))
    return [found[row] for row in range(len(prompts))]


def _check_answers(model: Transformer, answers: Sequence[Sequence[int]]) -> None:
    """Refuse what cannot be scored after a prompt."""
    if not answers or not all(answers):
        raise InputError("every answer needs at least one token, and there must be one")
    for answer in answers:
        check_tokens(answer, model.architecture.vocab_size, "answer")


def _numbers(scores: Tensor) -> Tensor:
    """Log-probabilities, if they are some; one NaN among the logits makes all of its row NaN."""
    if scores.isnan().any():
        raise LessenError(NO_NUMBERS)
    return scores


def _states_within(model: Transformer, start: Beginning, answer: Sequence[int], count: int) -> Tensor:
    """States after which an answer's tokens but the first are named; the cache is left as it was.

    Returns:
        `[rows * (tokens - 1), hidden]`, row after row.
    """
    device = start.cache.layers[0].keys.device
    before = [start.cache.next_position(row) for row in range(count)]
    ids, rows = pack([torch.tensor(answer[:-1], device=device)] * count)
    hidden, _ = model.write(ids, following(rows, before), None, start.cache.memory)
    for row, position in enumerate(before):
        start.cache.truncate(row, position)
    return hidden
