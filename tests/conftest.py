"""Tiny random models of every supported family, and texts of awkward lengths."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import transformers
from hypothesis import settings

settings.register_profile("lessen", deadline=None)
settings.load_profile("lessen")


@pytest.fixture(autouse=True, scope="session")
def hasty() -> Iterator[None]:
    """Timings need not be precise here: nothing rests and warms up between two of them."""
    from lessen.measure import generation_speed, latency

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "REST_SECONDS", 0)
        patch.setattr(generation_speed, "REST_SECONDS", 0)
        patch.setattr(latency, "WARM_SECONDS", 0)
        yield


SIZES: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
DISTIL = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 66}

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SIZES),
    "roberta": ("RobertaConfig", {**SIZES, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRobertaConfig", {**SIZES, "pad_token_id": 1}),
    "distilbert": ("DistilBertConfig", {"vocab_size": 101, **DISTIL}),
    "electra": ("ElectraConfig", {**SIZES, "embedding_size": 16}),
    "electra-wide": ("ElectraConfig", {**SIZES, "embedding_size": 32}),
    "mpnet": ("MPNetConfig", SIZES),
}
"""A new family is added to the test matrix here."""


DECODER: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**DECODER, "hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 2}

GENERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 101, "n_embd": 36, "n_layer": 3, "n_head": 3, "n_positions": 66, "eos_token_id": 2},
    ),
    "gpt2-untied": (
        "GPT2Config",
        {"vocab_size": 101, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 66, "n_inner": 50}
        | {"tie_word_embeddings": False, "eos_token_id": 2},
    ),
    "gpt_neox": ("GPTNeoXConfig", DECODER),
    "gpt_neox-in-turn": (
        "GPTNeoXConfig",
        {**DECODER, "use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True},
    ),
    "llama": ("LlamaConfig", DECODER),
    "llama-grouped": ("LlamaConfig", {**GROUPED, "tie_word_embeddings": True}),
    "llama-biases": ("LlamaConfig", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2Config", {**GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 10}),
}
"""Decoders; a new family, or a variant of one, is added to the test matrix here."""


T5: dict[str, Any] = {
    "vocab_size": 101,
    "d_model": 36,
    "d_kv": 8,
    "d_ff": 50,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
}

SEQ2SEQ: dict[str, dict[str, Any]] = {
    "t5": T5,
    "t5-v1.1": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "t5-shallow-decoder": {**T5, "num_layers": 3, "num_decoder_layers": 1, "tie_word_embeddings": False},
}
"""Encoder-decoder models; with heads of their own where they are not tied."""


def tiny_seq2seq(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A small random Hugging Face encoder-decoder model, in evaluation mode."""
    config = transformers.T5Config(**{**SEQ2SEQ[family], **changes})
    torch.manual_seed(seed)
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    if not config.scale_decoder_outputs:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model.eval()


@pytest.fixture(params=sorted(SEQ2SEQ))
def seq2seq(request: pytest.FixtureRequest) -> str:
    return request.param


def tiny_generator(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A small random Hugging Face generator, in evaluation mode."""
    name, sizes = GENERATORS[family]
    config = getattr(transformers, name)(**{**sizes, **changes})
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model.eval()


@pytest.fixture(params=sorted(GENERATORS))
def generator(request: pytest.FixtureRequest) -> str:
    return request.param


def early_generator(folder: Path, family: str = "llama-grouped", kind: str = "full", **changes: Any) -> Any:
    """A tiny generator of five layers in float64 with exits after layers 1 and 3, which often disagree."""
    count = {"gpt2": "n_layer"}.get(family, "num_hidden_layers")
    tiny_generator(family, **{count: 5, **changes}).save_pretrained(folder)
    return _with_lively_exits(folder, kind, cut=-1.0)


def early_seq2seq(folder: Path, family: str = "t5-v1.1", kind: str = "tied", **changes: Any) -> Any:
    """A tiny encoder-decoder model in float64 with exits after decoder layers 1 and 3 of five."""
    tiny_seq2seq(family, num_decoder_layers=5, **changes).save_pretrained(folder)
    return _with_lively_exits(folder, kind, cut=-3.0)


def _with_lively_exits(folder: Path, kind: str, cut: float) -> Any:
    """The saved model with exits after layers 1 and 3 that are all but trained; `cut` is a gate's."""
    import lessen
    from lessen.plan import WITHOUT_RANK, LanguageExitShape
    from lessen.reshaping import with_language_exits

    sizes = {"rank": None if kind in WITHOUT_RANK else 6, "words": 30 if kind == "shortlist" else None}
    exits = [LanguageExitShape(layer=layer, kind=kind, **sizes) for layer in (1, 3)]
    model = with_language_exits(lessen.load(folder), exits, words=range(101) if sizes["words"] else ())
    generator = torch.Generator().manual_seed(0)
    for head in model.transformer.language_exits.values():
        for parameter in head.parameters():
            parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        if kind == "gate":
            head.probe.weight.data.normal_(generator=generator)
            head.cut.fill_(cut)
    return model.double().eval()


def median_rule(model: Any, share: float = 0.5, criterion: str = "entropy") -> Any:
    """A rule by which about this share of random tokens leaves at each exit."""
    from lessen.depth.language import states_at_exits, unsure
    from lessen.plan import ExitRule
    from lessen.runtime.source import Reply, batch_of

    (ids,) = ragged_ids([60])
    ids = ids % model.architecture.vocab_size
    with torch.no_grad():
        states, _ = states_at_exits(model, *batch_of(model, [Reply(ids, ids[:9]) if model.decoder else ids]))
        thresholds = {}
        for layer, hidden in zip(model.shape.exit_layers, states, strict=True):
            scores = unsure(model, layer, hidden, [criterion])[0][0]
            thresholds[layer] = float(scores[scores.isfinite()].quantile(share))
    return ExitRule(criterion=criterion, thresholds=thresholds)


def tiny_hugging_face(family: str, *, head: bool = True, seed: int = 0, **changes: Any) -> Any:
    """A small random Hugging Face model of a family, in evaluation mode."""
    name, sizes = TINY[family]
    config = getattr(transformers, name)(**sizes, num_labels=3, **changes)
    torch.manual_seed(seed)
    auto = transformers.AutoModelForSequenceClassification if head else transformers.AutoModel
    model = auto.from_config(config)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    return model.eval()


def lively(model: Any) -> Any:
    """Unit norms and large heads: the logits of a tiny random model then differ clearly from row to row."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.ones_(module.weight)
    for head in model.transformer.exits.values():
        head.output.weight.data.normal_(generator=generator)
        head.output.bias.data.zero_()
    return model.eval()


@pytest.fixture(params=sorted(TINY))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def ragged_ids(lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    """Random token ids, none of them padding."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 101, (n,), generator=generator) for n in lengths]


def padded(sequences: list[torch.Tensor], pad: int, side: str = "right") -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask `[batch, longest]`."""
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        place = slice(0, len(sequence)) if side == "right" else slice(width - len(sequence), width)
        ids[row, place] = sequence
        mask[row, place] = 1
    return ids, mask


@pytest.fixture
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny BERT with an exit after each of its three layers, on three classes."""
    import lessen

    folder = tmp_path_factory.mktemp("tiny")
    tiny_hugging_face("bert").save_pretrained(folder)
    model = lessen.with_exits(lessen.load(folder), exits=None)
    for head in model.transformer.exits.values():
        torch.nn.init.normal_(head.output.weight, std=0.5)
    return model


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT with a real vocabulary, in Hugging Face's own format."""
    from lessen.builtin import model_folder

    folder = tmp_path_factory.mktemp("checkpoint")
    sizes = {key: value for key, value in SIZES.items() if key != "vocab_size"}
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(model_folder("minilm-l6")).save_pretrained(folder)
    return folder


class CharacterTokenizer:
    """One token per character: enough to train a tiny model, without a vocabulary file."""

    def __call__(self, first, second=None, *, max_length=64, **_):
        single = isinstance(first, str)
        texts = [first] if single else first
        ids = [[*[1, *(3 + ord(c) % 90 for c in text)][: max_length - 1], 2] for text in texts]
        return {"input_ids": ids[0] if single else ids}

    def num_special_tokens_to_add(self, *, pair=False) -> int:
        return 2

    def save_pretrained(self, folder) -> None:
        pass


def task(rows: int = 64) -> Any:
    """Texts that say good or bad, of a few lengths, and which of the two."""
    from lessen.data.table import Table

    texts = [("good " if i % 2 else "bad ") * (1 + i % 5) + str(i) for i in range(rows)]
    return Table("toy", texts, [i % 2 for i in range(rows)], "single_label_classification", ["no", "yes"])


GOOD = ["good fine film", "a great story", "i love it", "wonderful acting"]
BAD = ["bad dull film", "a poor story", "i hate it", "terrible acting"]


def rows(count: int) -> list[tuple[str, str]]:
    made = []
    for i in range(count):
        words, label = (GOOD, "pos") if i % 2 else (BAD, "neg")
        made.append((f"{words[i % 4]} number {i}", label))
    return made


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hundred labelled reviews."""
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows(400)))
    return path


@pytest.fixture(scope="session")
def small(tiny_checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model compressed on them, with two certified Points."""
    out = tmp_path_factory.mktemp("out") / "small"
    code, _, _ = run(
        "compress", tiny_checkpoint, "--data", data, "--out", out, "--epochs", 4, "--learning-rate", 1e-3,
        "--max-drop", "20%", "--max-drop", "10%", "--json",
    )  # fmt: skip
    assert code == 0
    return out


@pytest.fixture(scope="session")
def adjustable(tiny_checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model trained with tokens leaving, with a certified Point."""
    out = tmp_path_factory.mktemp("out") / "adjustable"
    code, _, _ = run(
        "compress", tiny_checkpoint, "--data", data, "--out", out, "--system", "latency-adjustable",
        "--speedup", 1.8, "--epochs", 3, "--learning-rate", 1e-3, "--max-drop", "10%", "--json",
    )  # fmt: skip
    assert code == 0
    return out


WORDS = (
    "a",
    "the",
    "film",
    "story",
    "scene",
    "actor",
    "plot",
    "song",
    "love",
    "house",
    "very",
    "good",
    "bad",
)


@pytest.fixture(scope="session")
def word_talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that knows a few words, and whose layers change little, so that early states say much."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    folder = tmp_path_factory.mktemp("talker")
    vocabulary = {word: place for place, word in enumerate(["[UNK]", *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    model = tiny_generator("llama-grouped", vocab_size=40, eos_token_id=None)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.data.mul_(0.1)
        layer.self_attn.o_proj.weight.data.mul_(0.1)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def word_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred documents, an empty line after each."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(WORDS), (300, 12), generator=generator).tolist()
    place = tmp_path_factory.mktemp("text") / "text.txt"
    place.write_text("".join(" ".join(WORDS[i] for i in row) + "\n\n" for row in picks))
    return place


EXIT_OPTIONS = (
    "--system", "self-exit", "--exits", "1,2", "--head", "gate", "--head-rank", 4, "--steps", 5,
    "--batch-size", 2, "--prompts", 40, "--prompt-tokens", 8, "--new-tokens", 6, "--target-agreement", "70%",
    "--confidence", "80%", "--json",
)  # fmt: skip


@pytest.fixture(scope="session")
def early_talker(
    word_talker: Path, word_text: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict]:
    """It with exits after both layers but the last, certified; and what was said of it."""
    import json

    out = tmp_path_factory.mktemp("out") / "small"
    code, said, err = run("compress", word_talker, "--data", word_text, "--out", out, *EXIT_OPTIONS)
    assert code == 0, err
    return out, json.loads(said)


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    from lessen.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0), out.getvalue(), err.getvalue()


def prompts_of(lengths: list[int], vocabulary: int = 101) -> list[list[int]]:
    return [(ids % vocabulary).tolist() for ids in ragged_ids(lengths)]


def rows_of(model: Any, prompts: list[list[int]], **options: Any) -> tuple[list[list[int]], Any]:
    """What the loop writes after each prompt, and the tally."""
    from lessen.runtime.generation import generate
    from lessen.runtime.tally import Tally

    tally = Tally()
    found: list[list[int]] = [[] for _ in prompts]
    for step in generate(model, prompts, tally=tally, **options):
        for row, token in step.items():
            found[row].append(token)
    return found, tally
