"""Our own loop: the tokens transformers generates, rows that do not feel one another, and where rows end."""

from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, rows_of, tiny_generator
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import lessen
from lessen.errors import InputError, LessenError
from lessen.runtime.completion import Pieces
from lessen.runtime.drafts import verified
from lessen.runtime.sampling import Sampling, probabilities

LENGTHS = [1, 9, 4, 4]


def both(family: str, folder: Path):
    theirs = tiny_generator(family)
    theirs.save_pretrained(folder)
    return theirs.double(), lessen.load(folder).double().transformer


def test_greedy_tokens_are_those_of_transformers(generator: str, tmp_path: Path) -> None:
    theirs, ours = both(generator, tmp_path)
    prompts = [ids.tolist() for ids in ragged_ids(LENGTHS)]
    found = rows_of(ours, prompts, max_new_tokens=20, stop={2})[0]
    for prompt, tokens in zip(prompts, found, strict=True):
        expected = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=2, pad_token_id=0
        )
        assert tokens == expected[0, len(prompt) :].tolist()


def test_a_row_is_the_same_alone(tmp_path: Path) -> None:
    _, model = both("llama-grouped", tmp_path)
    prompts = [ids.tolist() for ids in ragged_ids(LENGTHS)]
    options = {"max_new_tokens": 15, "stop": {5, 6, 7, 8, 9, 10}}
    together = rows_of(model, prompts, sampling=Sampling(1.0, 40, 0.95, seed=3), **options)[0]
    for row, prompt in enumerate(prompts):
        alone = rows_of(model, [prompt], sampling=Sampling(1.0, 40, 0.95, seed=3 + row), **options)[0]
        assert alone[0] == together[row]
    assert len({len(tokens) for tokens in together}) > 1, "rows should end at different steps"


def test_rows_end_after_a_stop_token(tmp_path: Path) -> None:
    _, model = both("gpt2", tmp_path)
    (endless,) = rows_of(model, [[3, 4]], max_new_tokens=10)[0]
    assert len(endless) == 10
    end = endless[4]
    (ended,) = rows_of(model, [[3, 4]], max_new_tokens=10, stop={end})[0]
    assert ended == endless[: endless.index(end) + 1]


def test_positions_may_be_used_up(generator: str, tmp_path: Path) -> None:
    """66 positions: a prompt of 66 tokens gets one more, which needs no position of its own."""
    _, model = both(generator, tmp_path)
    full, nearly = (ids.tolist() for ids in ragged_ids([66, 64]))
    assert [len(tokens) for tokens in rows_of(model, [full, nearly], max_new_tokens=50)[0]] == [1, 3]
    with pytest.raises(InputError, match="the prompt has 67 tokens, the model takes 66"):
        rows_of(model, [[*full, 1]], max_new_tokens=1)


def test_what_cannot_be_continued_is_refused(tmp_path: Path) -> None:
    _, model = both("gpt2", tmp_path)
    with pytest.raises(InputError, match="the prompt is empty"):
        rows_of(model, [[3], []], max_new_tokens=1)
    with pytest.raises(InputError, match=r"max_new_tokens 2\.5: must be a whole number"):
        rows_of(model, [[3]], max_new_tokens=2.5)
    with pytest.raises(InputError, match="max_new_tokens 0"):
        rows_of(model, [[3]], max_new_tokens=0)
    assert rows_of(model, [], max_new_tokens=1)[0] == []
    most = model.architecture.vocab_size
    for token in (-1, most):
        with pytest.raises(
            InputError, match=f"token 2 of the prompt is {token}; the model's tokens are 0 to"
        ):
            rows_of(model, [[3], [most - 1, token]], max_new_tokens=1)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_that_are_no_numbers_are_said_to_be(temperature: float, dtype, tmp_path: Path) -> None:
    """float64 takes torch's way in place of the kernels'; one weight of one token is enough."""
    _, model = both("gpt2", tmp_path)
    model.to(dtype).vocabulary_matrix.data[7, 3] = float("nan")
    with pytest.raises(LessenError, match="logits are not numbers"):
        rows_of(
            model,
            [[3, 5]],
            max_new_tokens=2,
            sampling=Sampling(temperature, top_k=4 if temperature else None),
        )


SETTINGS = [(0.7, None, None), (1.3, 5, None), (1.0, None, 0.6), (0.5, 20, 0.9), (1.0, 1, 0.01)]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), SETTINGS)
def test_tokens_are_drawn_from_what_transformers_draws_from(temperature, top_k, top_p) -> None:
    logits = torch.randn(7, 60, generator=torch.Generator().manual_seed(0)).double() * 3
    wrap = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    wrap += [TopKLogitsWarper(top_k)] if top_k else []
    wrap += [TopPLogitsWarper(top_p)] if top_p else []
    expected = wrap(torch.zeros(7, 1, dtype=torch.long), logits.clone()).softmax(-1)
    found = probabilities(logits, Sampling(temperature, top_k, top_p))
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_drawn_tokens_follow_their_probabilities() -> None:
    """40,000 draws: each share within five standard errors."""
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    sampling = Sampling(temperature=1.5, seed=1)
    shares, (draw,) = probabilities(logits, sampling)[0], sampling.draws(1)
    count = 40_000
    found = torch.tensor([verified(logits, [], sampling, draw)[0] for _ in range(count)]).bincount(
        minlength=4
    )
    assert ((found / count - shares).abs() <= 5 * (shares * (1 - shares) / count).sqrt()).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"temperature": -1.0}, "temperature"), ({"top_k": 0}, "top_k"), ({"top_p": 1.5}, "top_p")],
)
def test_options_that_make_no_sense_are_refused(options: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Sampling(**options)


class Bytes:
    """A tokenizer whose tokens are bytes; 256 is special."""

    def decode(self, tokens, skip_special_tokens):
        assert skip_special_tokens
        return bytes(token for token in tokens if token < 256).decode("utf-8", errors="replace")


def test_pieces_are_whole_characters_and_nothing_is_lost() -> None:
    text = "naïve — 你好 🙂!"
    pieces = Pieces(Bytes())
    said = [pieces.add(token) for token in [*text.encode(), 256]]
    assert "".join(said) == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(said)
    torn = Pieces(Bytes())
    assert [torn.add(token) for token in "é".encode()[:1]] == [""]
    assert torn.rest() == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "changes", [{"seed": 2**32}, {"seed": -1}, {"seed": 0.5}, {"top_k": 2.5}, {"top_p": "1"}]
)
def test_sampling_is_told_in_numbers_that_can_be(changes: dict) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        Sampling(temperature=1.0, **changes)
