"""Exits in T5's decoder from the command line: compress, calibrate at one threshold that decays, generate."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import run, tiny_seq2seq
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

import lessen
from lessen.artefact import KEPT
from lessen.promise.prompts import KeptTraces

WORDS = ("a", "the", "film", "story", "scene", "actor", "plot", "song", "love", "house", "good", "bad")


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 that knows a few words, and whose decoder's layers change little."""
    folder = tmp_path_factory.mktemp("answerer")
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "</s>", "[UNK]", *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="</s>", pad_token="[PAD]"
    ).save_pretrained(folder)
    model = tiny_seq2seq("t5", vocab_size=40, num_decoder_layers=4, eos_token_id=39)
    for block in model.decoder.block:
        block.layer[2].DenseReluDense.wo.weight.data.mul_(0.1)
        block.layer[0].SelfAttention.o.weight.data.mul_(0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred documents, an empty line after each."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(WORDS), (300, 9), generator=generator).tolist()
    place = tmp_path_factory.mktemp("text") / "text.txt"
    place.write_text("".join(" ".join(WORDS[i] for i in row) + "\n\n" for row in picks))
    return place


OPTIONS = (
    "--system", "self-exit", "--head-rank", 4, "--steps", 5, "--batch-size", 4, "--prompts", 40,
    "--prompt-tokens", 8, "--new-tokens", 6, "--target-agreement", "70%", "--confidence", "80%", "--json",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(answerer: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("out") / "small"
    code, said, err = run("compress", answerer, "--data", text, "--out", out, *OPTIONS)
    assert code == 0, err
    return out, json.loads(said)


def test_compress_trains_and_certifies_a_decoder(made) -> None:
    out, facts = made
    assert [row["layer"] for row in facts["exits"]] == [2, 3], "as many as fit before the last of four"
    assert facts["training"][0]["steps"] == 5
    assert facts["calibration"]["certified"]
    full, early = facts["points"]
    assert full["mean_layers"] == 4, "layers are the decoder's, the encoder has two"
    assert early["mean_layers"] < 4
    assert early["value"] >= 0.7
    assert early["block_equivalents"] > 0
    model = lessen.load(out)
    assert isinstance(model, lessen.LessenForSeq2SeqLM)
    assert model.point.promise.kind == "certified"


def test_answers_to_learn_from_are_kept_where_it_was_stopped(
    answerer: Path, text: Path, made, tmp_path: Path, monkeypatch
) -> None:
    from lessen.systems import material

    asked: list[int] = []
    whole = material.continued

    def counted(model, batch, *options):
        asked.append(len(batch))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return whole(model, batch, *options)

    monkeypatch.setattr(material, "continued", counted)
    arguments = ("compress", answerer, "--data", text, "--out", tmp_path / "small", *OPTIONS)
    code, _, err = run(*arguments)
    assert code == 130
    assert "stopped after 0 of 30 documents; run the same command to continue" in err
    assert asked == [16, 4, 16]
    code, said, err = run(*arguments)
    assert code == 0, err
    assert asked[3:] == [16, 14], "those to train on were kept"
    assert json.loads(said)["points"] == made[1]["points"]


def test_certified_is_what_decoding_does(made, text: Path) -> None:
    """Where traces say nothing early is wrong, `direct` gives the tokens of `off`, left where they say."""
    out, _ = made
    model = lessen.load(out)
    kept = KeptTraces.load(out / KEPT)
    assert kept.calibration.lengths.max() <= 6
    rule, layers = model.point.exits, model.config.form().exit_layers
    documents = [line for line in text.read_text().split("\n\n") if line][:40]
    from lessen.data.table import Table
    from lessen.promise.prompts import prompts_of, traces_of

    table = Table("texts", documents, None, None, [])
    traces = traces_of(model, table, kept.prompting, kept.tune.criteria)
    left = traces.left_at(rule, layers)
    harmless = ~traces.wrong_at(left).any(1)
    assert harmless.sum() > 5
    prompts = prompts_of(model, table, kept.prompting)
    direct = model.generate_text(prompts, max_new_tokens=6, mode="direct")
    off = model.generate_text(prompts, max_new_tokens=6)
    depths = [*layers, 4]
    for row in harmless.nonzero()[0]:
        assert direct[row].tokens == off[row].tokens
        assert direct[row].layers == [depths[each] for each in left[row][: traces.lengths[row]]]


def test_generate_direct_and_inspect(made) -> None:
    out, _ = made
    asked = ("generate", out, "the film good", "--mode", "direct")
    code, said, err = run(*asked, "--max-new-tokens", 6, "--json")
    assert code == 0, err
    facts = json.loads(said)
    assert facts["certified"] is True
    assert set(facts["layers"]) <= {*lessen.load(out).config.form().exit_layers, 4}
    code, _, err = run(*asked, "--kv", "propagate", "--explain")
    assert code == 0, err
    assert "of propagate nothing is promised" in err
    code, said, _ = run("inspect", out)
    assert code == 0
    assert "exit after layer 3: tied, rank 4" in said


def test_depths_are_those_of_the_decoder(made, tmp_path: Path) -> None:
    """The encoder's two layers are not what a token goes through."""
    options = ("--rows", 2, "--seconds", 0.1, "--prompts", 20, "--against", "none", "--json")
    code, _, err = run("report", made[0], "--out", tmp_path / "page", *options)
    assert code == 0, err
    (model,) = json.loads((tmp_path / "page" / "report.json").read_text())["models"]
    assert model["depth"] == 4
    assert [exit["layer"] for exit in model["exits"]] == [2, 3, 4]
    for spot in (*model["points"], *model["path"]):
        assert sum(spot["layers"].values()) == pytest.approx(1)
    folder = shutil.copytree(made[0], tmp_path / "drawn")
    code, said, err = run(
        "calibrate", folder, "--target-agreement", "60%", "--confidence", "80%", "--resplits", 10, "--json"
    )
    assert code == 0, err
    assert 0 <= json.loads(said)["saved"] <= 1


def test_one_threshold_that_decays_as_in_calm(made, tmp_path: Path) -> None:
    out = tmp_path / "calm"
    shutil.copytree(made[0], out)
    code, said, err = run(
        "calibrate", out, "--target-agreement", "70%", "--confidence", "80%", "--one-threshold",
        "--decay", 4, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(said)["certified"]
    rule = lessen.load(out).point.exits
    assert rule.thresholds is None
    assert rule.criterion in ("closeness", "improbability")
    assert (rule.decay.rate, rule.decay.tokens) == (4, 6)
    code, said, _ = run("generate", out, "the film good", "--mode", "direct", "--json")
    assert code == 0
    assert json.loads(said)["certified"] is True
    code, said, _ = run("inspect", out)
    assert "decaying by 4 over 6 tokens" in said


def test_the_model_s_own_head_needs_no_training(answerer: Path, text: Path, tmp_path: Path) -> None:
    options = [each for each in OPTIONS if each not in ("--head-rank", 4)]
    place = options.index("--batch-size")
    options.insert(place + 1, 4)
    code, said, err = run(
        "compress", answerer, "--data", text, "--out", tmp_path / "calm", "--head", "shared", "--exits", "2",
        "--exits-only", *options,
    )  # fmt: skip
    assert code == 0, err
    facts = json.loads(said)
    assert facts["training"][0]["steps"] == 0
    model = lessen.load(tmp_path / "calm")
    head = model.transformer.language_exits["2"]
    assert torch.equal(head.norm.weight, model.transformer.decoder.final_norm.weight)
