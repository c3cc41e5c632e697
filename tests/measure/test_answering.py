"""A model that writes, judged by its likeliest answer: in Python and on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run, tiny_generator, tiny_seq2seq
from transformers import AutoTokenizer

import lessen
from lessen.builtin import model_folder
from lessen.data.prompts import Template, templates_of
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.measure import answering
from lessen.measure.answering import evaluate_answers, written
from lessen.measure.rouge import rouge_l
from lessen.plan import FULL, Point
from lessen.runtime.answers import score_answers
from lessen.runtime.text import Encoded


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
    turned = evaluate_answers(model, ROWS, Template("review: {text}", ("good", "bad"), ("bad", "good")), FULL)
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
        (("--prompt", "{text!z}"), "write {text} without !"),
        (("--prompt", "sentiment", "--speedups", "2"), "measure_profile"),
        ((), "give --prompt"),
    ):
        code, _, err = run("evaluate", folder, "--data", data, *arguments)
        assert (code, named in err) == (2, True), err


def test_numbers_are_written_read_back_and_counted_where_they_are_none(folder: Path, monkeypatch) -> None:
    """Pearson of what was said, an answer that is none standing as the middle of what was wanted."""
    model = lessen.load(folder)
    table = Table("stsb", [("a", f"b {row}") for row in range(4)], [0.0, 1.0, 4.0, 5.0], "regression", [])
    texts = ["0.2", "1 . 0", "no idea", "5.0"]
    monkeypatch.setattr(answering, "complete", lambda *_, **__: [Said(text) for text in texts])
    found = evaluate_answers(model, table, templates_of("similarity")[0], FULL)
    expected = np.corrcoef([0.2, 1.0, 2.5, 5.0], table.labels)[0, 1]
    assert (found.metric, found.unread) == ("pearson", 1)
    assert found.value == pytest.approx(expected)


def test_a_model_that_goes_on_is_read_to_the_end_of_its_line(tmp_path: Path, monkeypatch) -> None:
    tiny_generator("llama").save_pretrained(tmp_path)
    model, lines = lessen.load(tmp_path), ["\n3.4\nScore this:", " 2.0", "4.0 or so\n1.0"]
    monkeypatch.setattr(answering, "complete", lambda *_, **__: [Said(text) for text in lines])
    monkeypatch.setattr(answering, "batches", lambda *_: [range(3)])
    asked = [Encoded([3, 4], None, False)] * 3
    assert written(model, asked, templates_of("score")[0], FULL) == ["3.4", "2.0", "4.0 or so"]


class Said:
    def __init__(self, text: str) -> None:
        self.text = text


def test_sentences_are_scored_by_what_they_share(folder: Path, monkeypatch) -> None:
    model = lessen.load(folder)
    table = Table("texts", ["A fine film. More.", "Nothing much. At all."], None, None, [])
    monkeypatch.setattr(
        answering, "complete", lambda *_, **__: [Said("a fine film"), Said("so much nothing")]
    )
    found = evaluate_answers(model, table, templates_of("first-sentence")[0], FULL)
    assert found.metric == "rouge_l"
    assert found.value == pytest.approx((1 + rouge_l("so much nothing", "Nothing much.")) / 2)


def test_what_a_model_writes_is_what_is_scored(folder: Path) -> None:
    """Without stand-ins: a random model writes no numbers, and all are counted."""
    model = lessen.load(folder)
    table = Table("stsb", [("a", f"b {row}") for row in range(3)], [0.0, 1.0, 5.0], "regression", [])
    found = evaluate_answers(
        model, table, templates_of("similarity")[1], Point(name="h", retention=(0.6, 0.5))
    )
    assert found.unread == 3
    assert np.isnan(found.value)
    assert found.as_dict()["value"] is None
    assert found.macs_ratio > 1.1


def test_cut_rows_are_counted_for_every_way_or_refused(folder: Path, tmp_path: Path) -> None:
    """gpt2 with 66 positions; progress is not in the way of the one JSON object."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tiny_generator("gpt2", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    data = tmp_path / "long.csv"
    data.write_text("text,label\n" + f"{'fine ' * 80},1\ndull,0\n" * 2)
    asked = ("evaluate", tmp_path / "short", "--data", data, "--prompt", "sentiment")
    code, out, err = run(*asked, "--json")
    assert code == 0, err
    assert [each["truncated"] for each in json.loads(out)["prompts"]] == [2, 2, 2]
    assert err.count("2 of 4 texts were cut to what the model takes") == 3
    assert "labels and their answers: 0 -> negative, 1 -> positive" in err
    assert "labels and their answers: 0 -> no, 1 -> yes" in err
    code, _, err = run(*asked, "--strict")
    assert code == 2
    assert "text 1 has" in err


def test_what_cannot_be_correlated_is_said_in_words(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "scores.csv"
    data.write_text("text,label\nfine,1.5\ndull,-2.25\n")
    code, out, err = run("evaluate", folder, "--data", data, "--prompt", "score: {text}")
    assert code == 0, err
    assert "undefined" in out
    assert "all answers, or all labels, are alike" in err


def test_told_of_every_row(folder: Path) -> None:
    model, seen = lessen.load(folder), []
    evaluate_answers(model, ROWS, Template("{text}"), FULL, batch_size=5, told=seen.append)
    table = Table("texts", ["a"] * 4, None, None, [])
    evaluate_answers(model, table, templates_of("first-sentence")[0], FULL, batch_size=3, told=seen.append)
    assert seen == [5, 5, 2, 3, 1]
