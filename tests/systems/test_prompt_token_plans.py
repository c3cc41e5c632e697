"""What is learned from rows put into words: room to write, ends that are ends, and what is asked."""

from pathlib import Path

import pytest
from conftest import tiny_generator, tiny_seq2seq
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

import lessen
from lessen.builtin import model_folder
from lessen.data.prompts import TEMPLATES
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.promise.prompts import Prompting
from lessen.runtime.answers import score_own
from lessen.systems.prompt_tokens import ReadingPlan, _asked, lessons_of, read_parts

POSITIONS = 66
LONG = "a fine film that goes on and on " * 40
REVIEWS = Table("rows", [f"{LONG}. Good.", "Short. Good."], [0, 1], "single_label_classification", ["0", "1"])


@pytest.fixture(scope="module", params=["gpt2", "t5"])
def model(request: pytest.FixtureRequest, tmp_path_factory):
    """With words, and [SEP] at the end of what a T5 writes."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    end = tokenizer.sep_token_id
    ends = {"single": "$A [SEP]" if request.param == "t5" else "$A", "special_tokens": [("[SEP]", end)]}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(**ends)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    made = tiny_seq2seq if request.param == "t5" else tiny_generator
    made(request.param, vocab_size=len(tokenizer), eos_token_id=end).save_pretrained(folder)
    return lessen.load(folder)


def plan(prompt: str, **lengths: int) -> ReadingPlan:
    return ReadingPlan(model="m", data="d", prompt=prompt, prompting=Prompting(**lengths))


@pytest.mark.parametrize("prompt", ["sentiment", "first-sentence"])
def test_prompts_leave_room_for_what_is_written(model, prompt: str) -> None:
    """Of a model that continues: 66 positions, of which the last token written needs none."""
    lessons = lessons_of(model, REVIEWS, plan(prompt, prompt_tokens=100, new_tokens=20))
    longest = max(len(each.answer) for each in lessons)
    most = 100 if model.transformer.decoder is not None else POSITIONS - longest + 1
    assert most - 4 <= max(len(each.prompt) for each in lessons) <= most
    prompts, answers = [each.prompt for each in lessons], [each.answer for each in lessons]
    assert len(score_own(model.transformer, prompts, answers)) == len(lessons)
    lessons = lessons_of(model, REVIEWS, plan(prompt, prompt_tokens=30, new_tokens=20))
    assert 26 <= max(len(each.prompt) for each in lessons) <= 30


def test_what_is_asked_after_a_long_text_is_read(model) -> None:
    lessons = lessons_of(model, REVIEWS, plan("sentiment", prompt_tokens=30, new_tokens=20))
    said = [model.tokenizer.decode(each.prompt, skip_special_tokens=True) for each in lessons]
    assert [text.endswith("did they like it?") for text in said] == [False] * 4 + [True] * 2
    texts = _asked(model, REVIEWS, plan("sentiment", prompt_tokens=30, new_tokens=20)).texts
    assert [text.endswith("Did they like it?") for text in texts] == [False] * 4 + [True] * 2
    assert len(texts) == 2 * len(TEMPLATES["sentiment"])


def test_a_sentence_that_was_cut_does_not_end_there(model) -> None:
    end = model.tokenizer.eos_token_id
    long, short, *_ = lessons_of(model, REVIEWS, plan("first-sentence", prompt_tokens=40, new_tokens=8))
    assert len(long.answer) == 8
    assert end not in long.answer
    assert short.answer[-1] == end


def test_an_answer_that_would_be_cut_is_refused_before_anything_is_trained(model) -> None:
    """It is learned whole and compared whole, or not at all."""
    table = Table("rows", ["a film"], [0], "single_label_classification", ["0", "1"])
    answers = ("0=fair", f"1={'very ' * 30}")
    asked = plan("{text} It was", prompt_tokens=30, new_tokens=20).model_copy(update={"answers": answers})
    with pytest.raises(InputError, match=r"answer 'very very .* tokens, and --new-tokens is 20; raise it"):
        lessons_of(model, table, asked)


def test_test_rows_with_fewer_labels_are_still_asked_for_all(tmp_path: Path) -> None:
    """Chance is one in three, not one in two."""
    for name, labels in (("train", ["calm", "glad", "sad"]), ("test", ["sad", "glad"])):
        rows = [f"{name} text {row},{labels[row % len(labels)]}" for row in range(60)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "\n".join(rows))
    data, test = (str(tmp_path / f"{name}.csv") for name in ("train", "test"))
    tables = read_parts(ReadingPlan(model="m", data=data, test_data=test, prompt="{text} How is it?"))
    assert tables["test"].label_names == tables["train"].label_names == ["calm", "glad", "sad"]
    assert set(tables["test"].labels) == {1, 2}
