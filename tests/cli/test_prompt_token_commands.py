"""Reading less from the command line: latency-adjustable on a generator and on T5, then dialled and timed."""

import json
from pathlib import Path

import pytest
import torch
from conftest import run, tiny_generator, tiny_seq2seq
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

import lessen
from lessen.builtin import model_folder

SENTENCE = "the film is a good story about one bad actor and the house he sings in"


def with_words(folder: Path, model_of) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    ends = [("[SEP]", tokenizer.sep_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A [SEP]", special_tokens=ends)
    tokenizer.save_pretrained(folder)
    model_of(len(tokenizer), tokenizer.sep_token_id).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def talker(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("talker")
    return with_words(folder, lambda size, end: tiny_generator("gpt2", vocab_size=size, eos_token_id=None))


@pytest.fixture(scope="module")
def answerer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("answerer")
    return with_words(folder, lambda size, end: tiny_seq2seq("t5-v1.1", vocab_size=size, eos_token_id=end))


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    words = SENTENCE.split()
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(words), (60, 40), generator=generator).tolist()
    place = tmp_path_factory.mktemp("text") / "text.txt"
    place.write_text("".join(" ".join(words[i] for i in row) + "\n\n" for row in picks))
    return place


OPTIONS = ("--system", "latency-adjustable", "--learning-rate", 1e-3, "--batch-size", 8, "--json")


@pytest.fixture(scope="module")
def continued(talker: Path, text: Path, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("out") / "less"
    lengths = ("--prompt-tokens", 30, "--new-tokens", 10, "--speedup", 1.5)
    code, said, err = run("compress", talker, "--data", text, "--out", out, *OPTIONS, *lengths)
    assert code == 0, err
    return out, json.loads(said)


def test_a_generator_learns_to_read_less(continued) -> None:
    out, facts = continued
    assert facts["rows"] == {"train": 54, "test": 6}
    assert [record["steps"] for record in facts["training"]] == [7, 7]
    whole, less, *_ = facts["speedups"]
    assert (whole["speedup"], whole["macs_ratio"], less["speedup"]) == (1, 1, 1.5)
    assert less["macs_ratio"] >= 1.4
    assert whole["tokens"] == less["tokens"] == 60
    assert 0 < whole["loss"] < 50
    profile = lessen.load(out).config.retention_profile()
    assert profile.trained_at == 1.5
    assert "Nothing is certified" in " ".join((out / "README.md").read_text().split())
    assert not (out.parent / "less.work").exists()


def test_a_model_can_read_less_as_it_is(talker: Path, text: Path, tmp_path: Path) -> None:
    lengths = ("--prompt-tokens", 30, "--new-tokens", 10, "--epochs", 0)
    options = ("--system", "latency-adjustable", "--out", tmp_path / "as-it-is", "--json")
    code, said, err = run("compress", talker, "--data", text, *options, *lengths)
    assert code == 0, err
    assert "stage" not in err
    facts = json.loads(said)
    assert facts["training"] == []
    assert [line["speedup"] for line in facts["speedups"]][:2] == [1, 1.5]
    ours, theirs = lessen.load(tmp_path / "as-it-is"), lessen.load(talker)
    assert ours.config.retention_profile().trained_at is None
    for name, weight in theirs.named_parameters():
        assert torch.equal(weight, ours.get_parameter(name)), name
    code, said, err = run(
        "generate", tmp_path / "as-it-is", " ".join([SENTENCE] * 3), "--speedup", 1.5, "--json"
    )
    assert code == 0, err
    assert json.loads(said)["macs_ratio"] > 1.2
    code, _, err = run("compress", talker, "--data", text, *options, *lengths, "--batch-size", 8)
    assert code == 2
    assert "--batch-size: nothing is trained with --epochs 0" in err


def test_speedup_is_dialled_when_generating(continued) -> None:
    out, _ = continued
    prompt = " ".join(["the film is good"] * 8)
    texts = {}
    for speedup in (1, 1.5):
        asked = ("generate", out, prompt, "--speedup", speedup, "--max-new-tokens", 3, "--json")
        code, said, err = run(*asked)
        assert code == 0, err
        texts[speedup] = json.loads(said)
        assert texts[speedup]["speedup"] == speedup
    model = lessen.load(out)
    for speedup, found in texts.items():
        direct = model.dial(speedup=speedup).generate_text([prompt], max_new_tokens=3)
        assert direct[0].tokens == found["tokens"]
    assert texts[1.5]["macs_ratio"] > 1.2
    code, said, err = run("generate", out, "a", "--speedup", 1.5, "--max-new-tokens", 2, "--json")
    assert code == 0, err
    assert json.loads(said)["macs_ratio"] == 1
    assert "--speedup 1.5: of a prompt of 3 tokens none can leave" in err
    code, _, err = run("generate", out, prompt, "--speedup", 50)
    assert code == 2
    assert "reaches a speed-up of" in err


def test_reading_is_timed_and_fitted(continued, text: Path) -> None:
    out, _ = continued
    options = ("--data", text, "--prompt-tokens", 32, "--new-tokens", 3, "--rows", 2, "--seconds", 0.5)
    code, said, err = run(
        "bench", out, "--speedups", "1,1.4", "--fit", *options, "--precision", "float32", "--json"
    )
    assert code == 0, err
    rows = json.loads(said)["rows"]
    assert [(row["kind"], row["speedup"]) for row in rows] == [
        ("lessen", 1.0),
        ("lessen", 1.4),
        ("transformers", None),
    ]
    assert all(row["predicted_ms"] > 0 for row in rows[:2])
    assert rows[2]["same"] == 1
    assert (out / "latency.json").exists()


@pytest.fixture(scope="module")
def answered(answerer: Path, data: Path, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("out") / "less"
    asked = ("--prompt", "Is it good? {text}", "--answers", "neg=no,pos=yes", "--speedup", 1.3, "--epochs", 1)
    code, said, err = run("compress", answerer, "--data", data, "--out", out, *OPTIONS, *asked)
    assert code == 0, err
    assert err.count("labels and their answers: neg -> no, pos -> yes") == 1
    return out, json.loads(said)


def test_t5_learns_to_answer_from_less(answered, data: Path) -> None:
    out, facts = answered
    assert {row["prompt"] for row in facts["speedups"]} == {"Is it good? {text}"}
    assert [row["speedup"] for row in facts["speedups"]][:2] == [1.0, 1.3]
    assert all(0 <= row["value"] <= 1 for row in facts["speedups"])
    code, said, err = run(
        "evaluate", out, "--data", data, "--prompt", "Is it good? {text}", "--answers", "neg=no,pos=yes",
        "--speedups", "1,1.3", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert [row["macs_ratio"] > 1.2 for row in json.loads(said)["prompts"]] == [False, True]
    code, _, err = run(
        "evaluate", out, "--data", data, "--prompt", "{text}?", "--answers", "a,b", "--point", "x"
    )
    assert code == 2
    assert "--point does not go with --prompt" in err


def test_t5_is_timed(answered, data: Path) -> None:
    options = ("--prompt-tokens", 6, "--new-tokens", 3, "--rows", 2, "--precision", "float32,bfloat16")
    code, said, err = run("bench", answered[0], "--data", data, *options, "--seconds", 0.5, "--json")
    assert code == 0, err
    rows = json.loads(said)["rows"]
    assert {row["mode"] for row in rows} == {"off", "transformers"}
    assert all(row["identical"] for row in rows if row["dtype"] == "float32")


def test_scores_of_texts_are_learned_and_read_back(answerer: Path, tmp_path: Path) -> None:
    """Labels that are numbers are written as such, named or asked in one's own words."""
    scores = tmp_path / "scores.csv"
    rows = (f"{SENTENCE} {row},{row % 9 - 4 + 0.5}\n" for row in range(40))
    scores.write_text("text,label\n" + "".join(rows))
    for way, prompts in (("score", 2), ("How good? {text}", 1)):
        asked = ("--data", scores, "--prompt", way, "--json")
        code, said, err = run("evaluate", answerer, *asked)
        assert code == 0, err
        assert [each["metric"] for each in json.loads(said)["prompts"]] == ["pearson"] * prompts
    out = tmp_path / "out"
    options = ("--epochs", 0.5, "--speedup", 1.3, "--out", out, *OPTIONS)
    code, said, err = run("compress", answerer, *asked, *options)
    assert code == 0, err
    assert {each["metric"] for each in json.loads(said)["speedups"]} == {"pearson"}
    assert "(How good? {text})" in (out / "README.md").read_text()


def test_weights_that_are_no_numbers_are_not_trained_or_scored(answerer: Path, data: Path, tmp_path) -> None:
    broken = lessen.load(answerer)
    broken.transformer.layers[0].attention.qkv.weight.data[0, 0] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    asked = (tmp_path / "broken", "--data", data, "--prompt", "{text}", "--answers", "neg=no,pos=yes")
    out = ("--system", "latency-adjustable", "--epochs", 1, "--out", tmp_path / "out")
    for command, says in (
        (("evaluate", *asked), "not numbers"),
        (("compress", *asked, *out), "step 1 is nan"),
    ):
        code, _, err = run(*command)
        assert code == 2, err
        assert [says in line for line in err.splitlines() if line.startswith("lessen:")] == [True]
    assert not (tmp_path / "out").exists()


def test_test_rows_that_do_not_fit_are_refused_before_training(answerer: Path, data: Path, tmp_path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("text,label\nnothing like it,fresh\nand nothing like that,rotten\n")
    asked = ("--data", data, "--test-data", other, "--prompt", "{text}", "--answers", "neg=no,pos=yes")
    code, _, err = run("compress", answerer, *asked, "--speedup", 1.3, "--out", tmp_path / "out", *OPTIONS)
    assert code == 2, err
    assert "the model was not trained on label 'fresh'" in err
    assert not (tmp_path / "out.work" / "stage-1").exists()


REFUSED = [
    (("compress", "{t5}", "--data", "{data}"), "say how to ask with --prompt"),
    (
        ("compress", "{t5}", "--data", "{text}", "--prompt", "sentiment"),
        "no labels, so there is nothing to answer",
    ),
    (("compress", "{gpt2}", "--data", "{text}", "--max-drop", "1%"), "--max-drop does not go with"),
    (("compress", "{gpt2}", "--data", "{text}", "--loss", "selective"), "--loss does not go with"),
    (("compress", "{gpt2}", "--data", "{text}", "--confidence", "foo"), "--confidence does not go with"),
    (("compress", "{gpt2}", "--data", "{text}", "--alone"), "--alone does not go with"),
    (("compress", "--plan", "plan.json", "--seed", "0"), "--seed does not go with --plan"),
    (("compress", "{gpt2}", "--data", "{text}", "--answers", "no,yes"), "--answers are for a --prompt"),
    (("compress", "{gpt2}", "--data", "{text}", "--speedup", "1"), "no token would leave"),
    (("compress", "{gpt2}", "--data", "{text}", "--speedup", "90"), "reaches a speed-up of"),
]


@pytest.mark.parametrize(("command", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_one_line_says_what_is_wrong(command, says, talker, answerer, data, text, tmp_path) -> None:
    places = {"{gpt2}": talker, "{t5}": answerer, "{data}": data, "{text}": text}
    words = [places.get(word, word) for word in command]
    words += ["--out", tmp_path / "out"]
    words += [] if "--plan" in words else ["--system", "latency-adjustable", "--epochs", 0.1]
    code, _, err = run(*words)
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.startswith("lessen:")]
    assert len(lines) == 1
    assert says in lines[0]
