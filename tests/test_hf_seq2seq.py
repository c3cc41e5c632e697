"""The transformers front door of encoder-decoder models: `generate`, round trips, Trainer; our loop."""

import json
from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, run, tiny_seq2seq
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    GenerationConfig,
    Trainer,
    TrainingArguments,
)
from transformers.modeling_outputs import BaseModelOutput

import lessen
from lessen.builtin import model_folder
from lessen.errors import ArtefactError, InputError, PlanError
from lessen.plan import Point

LENGTHS = [1, 9, 5, 9]


def both(family: str, folder: Path):
    theirs = tiny_seq2seq(family)
    theirs.generation_config = GenerationConfig(eos_token_id=[1, 7], pad_token_id=0, decoder_start_token_id=0)
    theirs.save_pretrained(folder)
    return theirs.double(), lessen.load(folder).double()


MODES = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_k": 20},
    "beams": {"do_sample": False, "num_beams": 3},
    "no cache": {"do_sample": False, "use_cache": False},
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", sorted(MODES))
def test_generate_gives_the_tokens_of_transformers(seq2seq, mode, side, tmp_path) -> None:
    theirs, ours = both(seq2seq, tmp_path)
    ids, mask = padded(ragged_ids(LENGTHS), 0, side=side)
    found = []
    for model in (theirs, ours):
        torch.manual_seed(0)
        options = dict(MODES[mode])
        if model is theirs and theirs.config.num_decoder_layers > theirs.config.num_layers:
            options["use_cache"] = False  # transformers makes a cache of as many layers as the encoder has
        found.append(model.generate(ids, attention_mask=mask, max_new_tokens=12, **options))
    assert torch.equal(*found)


def test_our_loop_gives_the_tokens_of_transformers(seq2seq: str, tmp_path: Path) -> None:
    _, ours = both(seq2seq, tmp_path)
    ours.tokenizer = Numbers()
    sequences = ragged_ids(LENGTHS)
    ids, mask = padded(sequences, 0)
    padded_out = ours.generate(ids, attention_mask=mask, max_new_tokens=14, do_sample=False)
    completions = ours.generate_text([s.tolist() for s in sequences], max_new_tokens=14)
    for row, done in enumerate(completions):
        assert done.tokens == padded_out[row, 1:].tolist()[: len(done.tokens)]
        assert done.ended == ("stop" if done.tokens[-1] in (1, 7) else "length")
        assert done.prompt_tokens == LENGTHS[row]
    text = "".join(ours.stream_text(sequences[1].tolist(), max_new_tokens=14))
    assert text == completions[1].text


class Numbers:
    """Token ids as text; a space before each."""

    eos_token_id = 1
    pad_token_id = 0
    padding_side = "right"

    def __call__(self, text, **_):
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, tokens, skip_special_tokens):
        return "".join(f" {token}" for token in tokens)

    def pad(self, rows, **_):
        ids, mask = padded([row["input_ids"] for row in rows], 0)
        return {"input_ids": ids, "attention_mask": mask}


def test_a_cache_can_be_filled_in_pieces(tmp_path: Path) -> None:
    _, ours = both("t5-v1.1", tmp_path)
    (ids, mask), (target, of_target) = (
        padded(ragged_ids(lengths, seed), 0, side="left") for seed, lengths in enumerate(([4, 9], [11, 6]))
    )
    given = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        expected = ours(**given, decoder_input_ids=target, decoder_attention_mask=of_target).logits
        first = ours(
            **given, decoder_input_ids=target[:, :7], decoder_attention_mask=of_target[:, :7], use_cache=True
        )
        rest = ours(
            encoder_outputs=BaseModelOutput(last_hidden_state=ours.get_encoder()(**given)[0]),
            attention_mask=mask,
            decoder_input_ids=target[:, 7:],
            decoder_attention_mask=of_target,
            past_key_values=first.past_key_values,
        )
    scale = expected.abs().max()
    assert (first.logits - expected[:, :7]).abs().max() <= 1e-9 * scale
    assert (rest.logits - expected[:, 7:]).abs().max() <= 1e-9 * scale


def test_a_saved_model_is_the_same(seq2seq: str, tmp_path: Path) -> None:
    _, ours = both(seq2seq, tmp_path / "theirs")
    ours = ours.float()
    ours.tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    ours.save_pretrained(tmp_path / "ours")
    ids = ragged_ids([9])[0][None]
    with torch.no_grad():
        expected = ours(ids, decoder_input_ids=ids).logits
        for again in (
            lessen.load(tmp_path / "ours"),
            AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours"),
        ):
            assert isinstance(again, lessen.LessenForSeq2SeqLM)
            assert torch.equal(again(ids, decoder_input_ids=ids).logits, expected)
            assert again.generation_config.decoder_start_token_id == 0
            assert again.stop_tokens == {1, 7}
    again = lessen.load(tmp_path / "ours")
    assert again.tokenizer is not None
    again.save_pretrained(tmp_path / "again")
    same = "model.safetensors"
    assert (tmp_path / "again" / same).read_bytes() == (tmp_path / "ours" / same).read_bytes()


def test_a_trainer_can_train_it(tmp_path: Path) -> None:
    _, ours = both("t5", tmp_path / "m")
    ours = ours.float()
    rows = [
        {"input_ids": ids, "labels": ids[: 1 + i % 3].tolist()} for i, ids in enumerate(ragged_ids([6] * 16))
    ]
    arguments = TrainingArguments(
        tmp_path / "out", num_train_epochs=20, learning_rate=3e-2, report_to=[], save_strategy="no"
    )

    def loss() -> float:
        with torch.no_grad():
            found = [ours(row["input_ids"][None], labels=torch.tensor([row["labels"]])).loss for row in rows]
        return float(sum(found))

    before = loss()
    collate = DataCollatorForSeq2Seq(Numbers(), ours)
    Trainer(ours, arguments, train_dataset=rows, data_collator=collate).train()
    ours.eval()
    assert loss() < 0.7 * before


def test_what_follows_the_last_label_is_not_computed(tmp_path: Path) -> None:
    """The loss is that of the whole batch, and places after a row's last label have no logits."""
    theirs, ours = both("t5", tmp_path)
    ids = ragged_ids([6, 6])
    labels = torch.tensor([[5, 6, -100, 8, -100], [9, -100, -100, -100, -100]])
    found = ours(torch.stack(ids), labels=labels)
    expected = theirs(torch.stack(ids), labels=labels)
    assert abs(found.loss - expected.loss) <= 1e-9 * expected.loss
    assert found.logits[0, :4].abs().amin(-1).min() >= 0
    assert found.logits[0, 4:].abs().max() == 0
    assert found.logits[1, 1:].abs().max() == 0
    assert found.logits[1, 0].abs().max() > 0


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    _, ours = both("t5", tmp_path)
    ids = ragged_ids([6])[0][None]
    with pytest.raises(PlanError, match="decoder_input_ids or labels"):
        ours(ids)
    with pytest.raises(PlanError, match="input_ids or encoder_outputs"):
        ours(decoder_input_ids=ids)
    with pytest.raises(InputError, match="513 tokens"):
        ours(ids.expand(1, 6).repeat(1, 86)[:, :513], decoder_input_ids=ids)
    with pytest.raises(InputError, match="513 tokens"):
        ours.generate(ids.repeat(1, 86)[:, :513], max_new_tokens=1)
    with pytest.raises(InputError, match="generates"):
        lessen.with_exits(ours)
    with pytest.raises(InputError, match="mode 'nope': choose off, direct, spec"):
        ours.decoding("nope")
    with pytest.raises(PlanError, match="max_drop: of a generator nothing is promised"):
        ours.dial(max_drop=0.01)
    with pytest.raises(PlanError, match="fixed size"):
        ours.generate(ids, max_new_tokens=2, cache_implementation="static")
    with pytest.raises(PlanError, match="inputs_embeds"):
        ours.generate(inputs_embeds=torch.zeros(1, 6, 16), max_new_tokens=2)


def test_a_mask_that_is_not_of_what_is_left_is_refused(tmp_path: Path) -> None:
    """The original one no longer fits once tokens have left (latency-adjustable page, 1.10)."""
    _, ours = both("t5", tmp_path)
    ids, mask = padded(ragged_ids([20, 10]), 0)
    ours._point = Point(name="some", retention=(0.5,) * ours.transformer.depth)
    given = {"decoder_input_ids": torch.tensor([[0, 5], [0, 6]])}
    left = ours.get_encoder()(input_ids=ids, attention_mask=mask)
    assert left.last_hidden_state.shape[1] < 20
    expected = ours(ids, mask, **given).logits
    found = ours(encoder_outputs=left, attention_mask=mask, **given)
    assert torch.equal(found.logits, expected)
    bare = (left.last_hidden_state,)
    assert torch.equal(
        ours(encoder_outputs=bare, attention_mask=left.attention_mask, **given).logits, expected
    )
    for outputs in (bare, left.to_tuple(), (found.encoder_last_hidden_state,)):
        with pytest.raises(PlanError, match=r"attention_mask is \[2, 20\], and encoder_outputs are \[2, "):
            ours(encoder_outputs=outputs, attention_mask=mask, **given)


@pytest.mark.parametrize(("fact", "value"), [("decoder_start_token_id", 10**6), ("relative_max_distance", 4)])
def test_facts_that_cannot_be_are_named(fact: str, value: int, tmp_path: Path) -> None:
    _, ours = both("t5", tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    place = tmp_path / "ours" / "config.json"
    config = json.loads(place.read_text())
    config["architecture"][fact] = value
    place.write_text(json.dumps(config))
    with pytest.raises((PlanError, ArtefactError), match=fact):
        lessen.load(tmp_path / "ours")


def test_the_commands_know_it(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm-l6"))
    tiny_seq2seq("t5-v1.1", vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    code, out, _ = run("generate", tmp_path, "a gripping film", "--max-new-tokens", 3, "--json")
    assert code == 0
    assert '"tokens"' in out
    code, out, _ = run("inspect", tmp_path)
    assert code == 0
    assert "decoder of 3 layers" in out
    for command in (("predict", tmp_path, "a film"), ("evaluate", tmp_path, "--data", "builtin:trec")):
        code, _, err = run(*command)
        assert code == 2
        assert "generates" in err


def test_bfloat16_is_near(tmp_path: Path) -> None:
    """Float32's logits within a tenth of the largest; and the loop runs in it."""
    both("t5-v1.1", tmp_path)
    ids = ragged_ids([30])[0][None]
    model = lessen.load(tmp_path, precision="bfloat16")
    with torch.no_grad():
        expected = lessen.load(tmp_path)(ids, decoder_input_ids=ids).logits
        assert (model(ids, decoder_input_ids=ids).logits - expected).abs().max() <= 0.1 * expected.abs().max()
    model.tokenizer = Numbers()
    assert model.generate_text([ids[0].tolist()], max_new_tokens=3)[0].tokens


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    both("t5", tmp_path / "theirs")[1].save_pretrained(tmp_path / "ours")
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "A `t5` encoder-decoder model" in card
    assert "dial" not in card


def test_inputs_it_would_pass_over_are_refused(tmp_path: Path) -> None:
    tiny_seq2seq("t5").save_pretrained(tmp_path)
    model, ids = lessen.load(tmp_path), torch.tensor([[3, 4, 1]])
    for name in ("inputs_embeds", "decoder_inputs_embeds", "attention_maskk"):
        with pytest.raises(PlanError, match=f"{name}: a model of lessen takes no such input"):
            model(input_ids=ids, labels=ids, **{name: torch.zeros(1, 3, 36)})
