"""The transformers front door of generators: `generate`, round trips, pipeline, Trainer."""

from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, tiny_generator
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    Trainer,
    TrainingArguments,
    pipeline,
)

import lessen
from lessen.builtin import model_folder
from lessen.errors import ArtefactError, InputError, PlanError

LENGTHS = [2, 9, 5]


def both(family: str, folder: Path):
    theirs = tiny_generator(family)
    theirs.generation_config = GenerationConfig(eos_token_id=[2, 7], pad_token_id=0, bos_token_id=1)
    theirs.save_pretrained(folder)
    return theirs.double(), lessen.load(folder).double()


MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_k": 20},
    "beams": {"do_sample": False, "num_beams": 3},
    "no cache": {"do_sample": False, "use_cache": False},
}


@pytest.mark.parametrize("mode", sorted(MODES))
def test_generate_gives_the_tokens_of_transformers(generator: str, mode: str, tmp_path: Path) -> None:
    theirs, ours = both(generator, tmp_path)
    ids, mask = padded(ragged_ids(LENGTHS), 0, side="left")
    found = []
    for model in (theirs, ours):
        torch.manual_seed(0)
        found.append(model.generate(ids, attention_mask=mask, max_new_tokens=12, **MODES[mode]))
    assert torch.equal(*found)


def test_our_loop_and_transformers_agree(tmp_path: Path) -> None:
    _, ours = both("qwen3", tmp_path)
    ours.tokenizer = Numbers()
    sequences = ragged_ids(LENGTHS)
    ids, mask = padded(sequences, 0, side="left")
    padded_out = ours.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
    completions = ours.generate_text([s.tolist() for s in sequences], max_new_tokens=12)
    for row, done in enumerate(completions):
        assert done.tokens == padded_out[row, ids.shape[1] :].tolist()[: len(done.tokens)]
        assert done.ended == ("stop" if done.tokens[-1] in (2, 7) else "length")
        assert done.prompt_tokens == LENGTHS[row]
    text = "".join(ours.stream_text(sequences[1].tolist(), max_new_tokens=12))
    assert text == completions[1].text


class Numbers:
    """Token ids as text; a space before each."""

    eos_token_id = 2

    def __call__(self, text, **_):
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, tokens, skip_special_tokens):
        return "".join(f" {token}" for token in tokens)


def test_a_cache_can_be_filled_in_pieces(tmp_path: Path) -> None:
    _, ours = both("llama-grouped", tmp_path)
    ids, mask = padded(ragged_ids([11, 6]), 0, side="left")
    with torch.no_grad():
        expected = ours(ids, attention_mask=mask).logits
        cache = DynamicCache()
        first = ours(ids[:, :7], attention_mask=mask[:, :7], past_key_values=cache).logits
        rest = ours(ids[:, 7:], attention_mask=mask, past_key_values=cache, logits_to_keep=2).logits
    scale = expected.abs().max()
    assert (first - expected[:, :7]).abs().max() <= 1e-9 * scale
    assert (rest - expected[:, -2:]).abs().max() <= 1e-9 * scale


def test_a_saved_generator_is_the_same(generator: str, tmp_path: Path) -> None:
    _, ours = both(generator, tmp_path / "theirs")
    ours = ours.float()
    ours.tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    ours.save_pretrained(tmp_path / "ours")
    ids = ragged_ids([9])[0][None]
    with torch.no_grad():
        expected = ours(ids).logits
        for again in (
            lessen.load(tmp_path / "ours"),
            AutoModelForCausalLM.from_pretrained(tmp_path / "ours"),
        ):
            assert isinstance(again, lessen.LessenForCausalLM)
            assert torch.equal(again(ids).logits, expected)
            assert again.generation_config.eos_token_id == [2, 7]
            assert again.stop_tokens == {2, 7}
    again = lessen.load(tmp_path / "ours")
    assert again.tokenizer is not None
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "generation_config.json").exists()
    same = "model.safetensors"
    assert (tmp_path / "again" / same).read_bytes() == (tmp_path / "ours" / same).read_bytes()


def test_bfloat16_and_int8_load(tmp_path: Path) -> None:
    """Coarse figures stay near: float32's logits within a tenth of the largest."""
    both("llama-grouped", tmp_path)
    ids = ragged_ids([30])[0][None]
    with torch.no_grad():
        expected = lessen.load(tmp_path)(ids).logits
        for precision in ("bfloat16", "int8"):
            model = lessen.load(tmp_path, precision=precision)
            assert model.precision == precision
            assert (model(ids).logits - expected).abs().max() <= 0.1 * expected.abs().max()


def test_the_pipeline_generates(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    big = tiny_generator("gpt2", vocab_size=len(tokenizer), eos_token_id=None)
    big.save_pretrained(tmp_path / "big")
    tokenizer.save_pretrained(tmp_path / "big")
    generates = pipeline("text-generation", model=lessen.load(tmp_path / "big"), tokenizer=tokenizer)
    (found,) = generates("a film", max_new_tokens=4, do_sample=False)
    assert found["generated_text"].startswith("a film")


def test_a_trainer_can_train_it(tmp_path: Path) -> None:
    _, ours = both("llama", tmp_path / "m")
    ours = ours.float()
    rows = [{"input_ids": ids, "labels": ids} for ids in ragged_ids([12] * 16)]
    arguments = TrainingArguments(
        tmp_path / "out", num_train_epochs=20, learning_rate=1e-2, report_to=[], logging_strategy="no"
    )
    with torch.no_grad():
        before = sum(float(ours(row["input_ids"][None], labels=row["labels"][None]).loss) for row in rows)
    Trainer(ours, arguments, train_dataset=rows).train()
    ours.eval()
    with torch.no_grad():
        after = sum(float(ours(row["input_ids"][None], labels=row["labels"][None]).loss) for row in rows)
    assert after < 0.7 * before


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    _, ours = both("gpt2", tmp_path)
    ids = torch.ones(1, 67, dtype=torch.long)
    with pytest.raises(InputError, match="a row of 67 tokens is longer than the model's 66 positions"):
        ours(ids)
    with pytest.raises(PlanError, match="fixed size"):
        ours.generate(ids[:, :4], max_new_tokens=2, cache_implementation="static", pad_token_id=0)
    with pytest.raises(PlanError, match="attention_mask is"):
        ours(ids[:, :4], attention_mask=torch.ones(1, 3))
    with pytest.raises(InputError, match="generates"):
        lessen.with_exits(ours, labels=["a", "b"])
    with pytest.raises(PlanError, match="no points"):
        lessen.load(tmp_path, point="fast")


def test_a_damaged_fact_is_named(tmp_path: Path) -> None:
    _, ours = both("llama", tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    place = tmp_path / "ours" / "config.json"
    place.write_text(place.read_text().replace('"causal": true', '"causal": false'))
    with pytest.raises((PlanError, ArtefactError), match="causal"):
        lessen.load(tmp_path / "ours")


def test_inputs_it_would_pass_over_are_refused(tmp_path: Path) -> None:
    tiny_generator("llama").save_pretrained(tmp_path)
    model = lessen.load(tmp_path)
    ids = torch.tensor([[3, 4, 5, 6], [0, 7, 8, 9]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    plain = model(input_ids=ids, attention_mask=mask).logits
    places = torch.tensor([[0, 1, 2, 3], [9, 0, 1, 2]])  # what padding has says nothing
    given = {"position_ids": places, "output_attentions": False, "inputs_embeds": None}
    assert torch.equal(model(input_ids=ids, attention_mask=mask, **given).logits, plain)
    with pytest.raises(PlanError, match="position_ids are not those of attention_mask"):
        model(input_ids=ids, position_ids=torch.tensor([[0, 1, 0, 1], [0, 1, 0, 1]]))
    for wrong in ({"output_hidden_states": True}, {"attention_maskk": mask}):
        with pytest.raises(PlanError, match=f"{next(iter(wrong))}: a model of lessen takes no such input"):
            model(input_ids=ids, **wrong)
    with pytest.raises(PlanError, match="a cache of a fixed size cannot be used"):
        model.generate(input_ids=ids, attention_mask=mask, cache_implementation="static", max_new_tokens=2)
