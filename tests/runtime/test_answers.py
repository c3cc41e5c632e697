"""Scores of answers are those of the whole text at once, for both stacks and with prompt tokens gone."""

from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, tiny_generator, tiny_seq2seq
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Prepend, Replace, Sequence
from transformers import PreTrainedTokenizerFast

import lessen
from lessen.errors import InputError, LessenError
from lessen.model.cross import Source
from lessen.model.rows import pack
from lessen.plan import FULL, Point
from lessen.runtime import answers as scoring
from lessen.runtime.answers import answer_ids, room_of, score_answers, score_own
from lessen.runtime.prefill import begin
from lessen.runtime.source import encoded

ANSWERS = [[5], [6, 7, 8, 1], [6, 9]]
LENGTHS = [12, 1, 30, 12, 4]


def loaded(kind: str, folder: Path):
    (tiny_seq2seq("t5-v1.1") if kind == "t5" else tiny_generator(kind)).save_pretrained(folder)
    return lessen.load(folder).double().transformer


def by_hand(model, prompt: list[int], answer: list[int]) -> float:
    """One pass over everything."""
    if model.decoder is None:
        hidden, _ = model(*pack([torch.tensor([*prompt, *answer[:-1]])]))
        hidden = hidden[len(prompt) - 1 :]
    else:
        source = Source(*model(*pack([torch.tensor(prompt)])))
        hidden, _ = model.write(*pack([torch.tensor([0, *answer[:-1]])]), source=source)
    likely = model.next_token(hidden).log_softmax(-1)
    return sum(float(likely[place, token]) for place, token in enumerate(answer))


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("kind", ["t5", "gpt2", "llama-grouped"])
def test_scores_are_those_of_one_pass(kind: str, batch_size: int, tmp_path: Path, monkeypatch) -> None:
    model, prompts = loaded(kind, tmp_path), [ids.tolist() for ids in ragged_ids(LENGTHS)]
    found = score_answers(model, prompts, ANSWERS, batch_size=batch_size)
    for row, prompt in enumerate(prompts):
        for place, answer in enumerate(ANSWERS):
            assert abs(float(found[row, place]) - by_hand(model, prompt, answer)) <= 1e-9
    means = score_answers(model, prompts, ANSWERS, per_token=True)
    assert torch.allclose(means * torch.tensor([1, 4, 2]), found, atol=1e-9)
    monkeypatch.setattr(scoring, "NAMED_AT_ONCE", 3)
    assert torch.allclose(score_answers(model, prompts, ANSWERS, batch_size=batch_size), found, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["t5", "llama-grouped"])
def test_tokens_that_left_are_not_read(kind: str, tmp_path: Path) -> None:
    """Row by row, as it is in a batch; and differently from whole prompts."""
    model, prompts = loaded(kind, tmp_path), [ids.tolist() for ids in ragged_ids(LENGTHS)]
    point = Point(name="few", retention=(0.5,) * model.depth)
    found = score_answers(model, prompts, ANSWERS, point)
    alone = torch.cat([score_answers(model, [prompt], ANSWERS, point) for prompt in prompts])
    assert torch.allclose(found, alone, atol=1e-9)
    assert (found - score_answers(model, prompts, ANSWERS, FULL)).abs()[2].max() > 1e-3
    if kind == "t5":
        source = encoded(model, *pack([torch.tensor(prompts[2])]), point)
        assert source.rows.lengths == (15,)
        hidden, _ = model.write(*pack([torch.tensor([0])]), source=source)
        assert abs(model.next_token(hidden).log_softmax(-1)[0, 5] - found[2, 0]) <= 1e-9


def test_what_has_no_room_is_refused(tmp_path: Path) -> None:
    """66 positions; the longest answer's last token needs none."""
    model = loaded("gpt2", tmp_path)
    fits, too_long = (ids.tolist() for ids in ragged_ids([63, 64]))
    assert score_answers(model, [fits], ANSWERS).shape == (1, 3)
    with pytest.raises(InputError, match="64 tokens, the model takes 63"):
        score_answers(model, [too_long], ANSWERS)
    with pytest.raises(InputError, match="empty"):
        score_answers(model, [[]], ANSWERS)
    assert begin(model, [fits], 4).left == [4]


def test_a_continuation_needs_positions_of_its_own(tmp_path: Path) -> None:
    """66 positions, of which the last token written needs none; each row has its own continuation."""
    model = loaded("gpt2", tmp_path / "gpt2")
    prompts, answers = ([ids.tolist() for ids in ragged_ids(each)] for each in ([60, 66, 1], [7, 1, 66]))
    assert [len(found) for found in score_own(model, prompts, answers)] == [7, 1, 66]
    assert [room_of(model, len(answer)) for answer in answers] == [60, 66, 1]
    with pytest.raises(InputError, match="60 tokens, the model takes 59"):
        score_own(model, prompts[:1], [[*answers[0], 5]])
    answering = loaded("t5", tmp_path / "t5")
    assert room_of(answering, 9) == answering.architecture.max_tokens == 512
    full = ragged_ids([512])[0].tolist()
    assert len(score_own(answering, [full], [answers[0]])[0]) == 7


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_scores_that_are_no_numbers_are_said(kind: str, tmp_path: Path) -> None:
    model, prompts = loaded(kind, tmp_path), [[5, 6], [7]]
    layers = model.layers if model.decoder is None else model.decoder.layers
    layers[0].feed_forward.down.weight.data[0, 0] = float("nan")
    for score, answers in ((score_answers, ANSWERS), (score_own, ANSWERS[:2])):
        with pytest.raises(LessenError, match="not numbers"):
            score(model, prompts, answers)


class Letters:
    """A letter a token, after 1; 2 ends a text."""

    def __call__(self, text, add_special_tokens=True, verbose=True):
        ids = [ord(letter) % 90 for letter in text.strip()]
        return {"input_ids": [*ids, 2] if add_special_tokens else ids}


def test_answers_end_where_their_model_ends_texts(tmp_path: Path) -> None:
    assert answer_ids(Letters(), "no", loaded("t5", tmp_path / "a"))[-1] == 2
    assert 2 not in answer_ids(Letters(), "no", loaded("gpt2", tmp_path / "b"))
    with pytest.raises(InputError, match="no tokens"):
        answer_ids(Letters(), "", loaded("gpt2", tmp_path / "c"))


def test_answers_are_the_tokens_they_are_after_a_word(tmp_path: Path) -> None:
    """Llama's own normalizer puts a mark before every text: alone, an answer would begin with two."""
    pieces = {"<unk>": 0, "\u2581": 1, "\u2581a": 2, "\u2581n": 3, "\u2581no": 4, "a": 5, "n": 6, "o": 7}
    merges = [("\u2581", "a"), ("\u2581", "n"), ("\u2581n", "o")]
    fast = Tokenizer(BPE(vocab=pieces, merges=merges, unk_token="<unk>"))
    fast.normalizer = Sequence([Prepend("\u2581"), Replace(" ", "\u2581")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="<unk>")
    assert tokenizer(" no")["input_ids"] == [1, 4]
    assert answer_ids(tokenizer, "no", loaded("gpt2", tmp_path)) == [4]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "every answer needs at least one token"),
        ([[4], []], "every answer needs at least one token"),
        ([[4, -3]], "token 2 of the answer is -3; the model's tokens are 0 to"),
        ([[10**7]], "token 1 of the answer is 10000000"),
        ([[4] * 10_000], "10000 tokens are to be written, the model takes"),
    ],
)
def test_answers_that_cannot_be_scored_are_refused(
    tmp_path: Path, answers: list[list[int]], message: str
) -> None:
    model = loaded("gpt2", tmp_path)
    with pytest.raises(InputError, match=message):
        score_answers(model, [[5]], answers)
    if answers:
        with pytest.raises(InputError, match=message):
            score_own(model, [[5]] * len(answers), answers)


def test_no_prompts_have_no_scores(tmp_path: Path) -> None:
    model = loaded("gpt2", tmp_path)
    assert score_answers(model, [], [[4], [5]]).shape == (0, 2)
    assert score_own(model, [], []) == []
