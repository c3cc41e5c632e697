"""A model that writes, judged by its likeliest answer: in Python and on the command line."""

import json
from pathlib import Path

import pytest
import torch
from conftest import run, tiny_seq2seq
from transformers import AutoTokenizer

import lessen
from lessen.builtin import model_folder
from lessen.data.prompts import Template
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.measure.answering import evaluate_answers
from lessen.plan import FULL, Point
from lessen.runtime.answers import score_answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 with a real vocabulary."""
    place = tmp_path_factory.mktemp("t5")
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    tiny_seq2seq("t5", vocab_size=len(tokenizer)).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


ROWS = Table(
    "reviews",
    [f"{word} film number {place}" for place, word in enumerate(["good", "bad"] * 6)],
    [1, 0] * 6,
    "single_label_classification",
    ["bad", "good"],
)


def test_the_likeliest_answer_counts(folder: Path) -> None:
    """Accuracy and its complement: with the answers exchanged every right row is wrong."""
    model = lessen.load(folder)
    asked = Template("review: {text}")
    found = evaluate_answers(model, ROWS, asked, FULL)
    turned = evaluate_answers(model, ROWS, Template("review: {text}", ("good", "bad")), FULL)
    assert (found.metric, found.macs_ratio, found.truncated) == ("accuracy", 1.0, 0)
    assert found.value + turned.value == pytest.approx(1)
    ids = [model.tokenizer(f"review: {text}")["input_ids"] for text in ROWS.texts]
    answers = [model.tokenizer(answer)["input_ids"] for answer in ROWS.label_names]
    likeliest = score_answers(model.transformer, ids, answers).argmax(1)
    assert found.value == float((likeliest == torch.tensor(ROWS.labels)).double().mean())
    assert found.tokens == sum(map(len, ids)) / len(ids)


def test_tokens_that_leave_are_counted(folder: Path) -> None:
    model = lessen.load(folder)
    point = Point(name="half", retention=(0.5, 0.5))
    assert evaluate_answers(model, ROWS, Template("{text}"), point).macs_ratio > 1.3
    with pytest.raises(InputError, match="no labels"):
        evaluate_answers(model, Table("texts", ["a"], None, None, []), Template("{text}", ("a", "b")), FULL)


def test_the_command_asks_in_several_ways(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "reviews.csv"
    rows = zip(ROWS.texts, ROWS.labels, strict=True)
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    code, out, _ = run("evaluate", folder, "--data", data, "--prompt", "sentiment", "--json")
    assert code == 0
    assert [each["point"] for each in json.loads(out)["prompts"]] == ["full"] * 3
    model = lessen.load(folder)
    model.measure_profile([f"Text: {text}" for text in ROWS.texts]).save_pretrained(tmp_path / "ours")
    code, out, _ = run(
        "evaluate", tmp_path / "ours", "--data", data, "--prompt", "Text: {text}", "--answers", "bad, good",
        "--speedups", "1,1.2", "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)["prompts"]
    assert [each["point"] for each in found] == ["full", "speedup-1.2x"]
    assert found[1]["macs_ratio"] >= 1.2
    for arguments, named in (
        (("--prompt", "mood"), "none of sentiment"),
        (("--prompt", "question"), "6 answers"),
        (("--prompt", "sentiment", "--speedups", "2"), "measure_profile"),
        ((), "give --prompt"),
    ):
        code, _, err = run("evaluate", folder, "--data", data, *arguments)
        assert (code, named in err) == (2, True), err
