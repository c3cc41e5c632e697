"""Commands on generators: continue, inspect, time; and one line for what does not fit."""

import io
import json
from pathlib import Path

import pytest
from conftest import run, tiny_generator
from transformers import AutoTokenizer

import lessen
from lessen.builtin import model_folder


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a real vocabulary."""
    folder = tmp_path_factory.mktemp("talker")
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    tokenizer.save_pretrained(folder)
    model = tiny_generator("llama-grouped", vocab_size=len(tokenizer), eos_token_id=None)
    model.save_pretrained(folder)
    return folder


def test_a_prompt_is_continued(talker: Path) -> None:
    code, out, _ = run("generate", talker, "a film", "--max-new-tokens", 6, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["prompt"] == "a film"
    assert len(found["tokens"]) == 6
    assert found["ended"] == "length"
    assert found["first_token_ms"] > 0
    assert found["tokens_per_s"] > 0
    code, out, _ = run("generate", talker, "a film", "--max-new-tokens", 6)
    assert code == 0
    assert out == found["text"] + "\n"


def test_drawing_follows_the_seed(talker: Path) -> None:
    def drawn(seed: int) -> list[int]:
        options = ("--temperature", 2.0, "--top-p", 0.9, "--seed", seed, "--max-new-tokens", 6, "--json")
        return json.loads(run("generate", talker, "a film", *options)[1])["tokens"]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_prompt_comes_from_standard_input(talker: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a film"))
    _, piped, _ = run("generate", talker, "-", "--max-new-tokens", 3, "--json")
    _, given, _ = run("generate", talker, "a film", "--max-new-tokens", 3, "--json")
    assert json.loads(piped)["tokens"] == json.loads(given)["tokens"]


def test_a_chat_template_is_used_where_there_is_one(talker: Path, tmp_path: Path) -> None:
    code, _, err = run("generate", talker, "a film", "--chat")
    assert code == 2
    assert "no chat template" in err
    for file in talker.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = "{% for m in messages %}user : {{ m['content'] }}{% endfor %} film"
    tokenizer.save_pretrained(tmp_path)
    code, out, _ = run("generate", tmp_path, "a", "--chat", "--max-new-tokens", 1, "--json")
    assert code == 0
    assert json.loads(out)["prompt_tokens"] >= 4


def test_a_generator_is_inspected(talker: Path) -> None:
    code, out, _ = run("inspect", talker, "--json", "--tokens", 10)
    facts = json.loads(out)
    assert code == 0
    assert facts["family"] == "llama"
    assert len(facts["layers"]) == 3
    counts = facts["parameters"]
    assert counts["total"] == counts["encoder"] + counts["embeddings"] + 36
    assert facts["bytes"] == (talker / "model.safetensors").stat().st_size
    assert facts["macs_per_token"] < facts["macs"]
    code, out, _ = run("inspect", talker)
    assert code == 0
    assert "it generates" in out


def test_generation_is_timed(talker: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(["a very long film about a dog"] * 2) + "\n")
    options = ("--data", tmp_path / "texts.csv", "--prompt-tokens", 4, "--new-tokens", 3, "--rows", 1)
    code, out, _ = run("bench", talker, *options, "--precision", "float32", "--json")
    assert code == 0
    rows = json.loads(out)["rows"]
    assert [(row["mode"], row["kind"]) for row in rows] == [
        ("off", "lessen"),
        ("transformers", "transformers"),
    ]
    assert all(row["identical"] for row in rows)
    wanted = {"mode", "dtype", "kind", "first_token_ms", "tokens_per_s", "weight_passes"}
    assert wanted | {"macs_per_token", "acceptance", "identical"} <= rows[0].keys()


def test_documents_in_a_folder_are_timed_on(talker: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a very long film about a dog\n\nand its second part")
    options = ("--data", tmp_path, "--prompt-tokens", 4, "--new-tokens", 2, "--rows", 1, "--against", "none")
    code, out, err = run("bench", talker, *options, "--precision", "float32", "--json")
    assert code == 0, err
    assert len(json.loads(out)["rows"]) == 1


def test_a_generator_without_exits_is_stored_in_few_bits(talker: Path, tmp_path: Path) -> None:
    lessen.load(talker).save_pretrained(tmp_path / "whole")
    command = ("calibrate", tmp_path / "whole", "--precision", "int4", "--out", tmp_path / "small")
    code, out, err = run(*command, "--json")
    assert code == 0, err
    assert json.loads(out) == {"points": [], "certified": False}
    assert "it has no exits, so there is nothing to certify" in err
    assert lessen.load(tmp_path / "small").precision == "int4"


REFUSED = [
    (("generate", "{}", ""), "the prompt is empty"),
    (("generate", "{}", "film " * 80), "tokens, the model takes 66"),
    (("generate", "{}", "a", "--precision", "int3"), "--precision int3: choose"),
    (("generate", "{}", "a", "--top-p", "7"), "top_p 7.0"),
    (("generate", "builtin:minilm-l6", "a"), "is an encoder (bert); it does not generate"),
    (("predict", "{}", "a"), "lessen generate"),
    (("evaluate", "{}", "--data", "builtin:trec"), "it only generates"),
    (("bench", "{}", "--against", "openvino"), "a generator has the rivals transformers"),
    (("bench", "{}", "--speedups", "2"), "no retention profile"),
    (
        ("bench", "{}", "--new-tokens", "8", "--against", "llama.cpp"),
        "runs a GGUF file, and {} was made from none",
    ),
    (("compress", "{}", "--data", "{data}", "--out", "{out}"), "generates"),
]


@pytest.mark.parametrize(("command", "says"), REFUSED, ids=[" ".join(c)[:40] for c, _ in REFUSED])
def test_one_line_says_what_is_wrong(command, says: str, talker: Path, data: Path, tmp_path: Path) -> None:
    places = {"{}": talker, "{data}": data, "{out}": tmp_path / "out"}
    code, out, err = run(*(places.get(word, word) for word in command))
    assert code == 2, err
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("lessen:")]
    assert len(lines) == 1
    assert says.replace("{}", str(talker)) in lines[0]


def test_an_interrupted_text_ends_its_line(talker: Path, monkeypatch) -> None:
    from lessen.runtime import completion

    def interrupted(*_, **__):
        yield 1, "a"
        raise KeyboardInterrupt

    monkeypatch.setattr(completion, "stream", interrupted)
    code, out, err = run("generate", talker, "a film")
    assert (code, out, err) == (130, "a\n", "lessen: interrupted\n")
