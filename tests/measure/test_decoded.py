"""Ways of decoding side by side: what is right is what a whole pass says, counts are those of the tokens."""

from pathlib import Path

import pytest
import torch
from conftest import early_generator, early_seq2seq, median_rule, ragged_ids

from lessen.measure.decoded import STRETCHES, continued, decode_all, rightness
from lessen.measure.generation_speed import own_tokens
from lessen.plan import FULL, ExitRule, Point


@pytest.fixture(params=[early_generator, early_seq2seq], ids=["decoder", "encoder-decoder"])
def made(request: pytest.FixtureRequest, tmp_path: Path):
    model = request.param(tmp_path)
    model.generation_config.eos_token_id = None
    return model, [ids.tolist() for ids in ragged_ids([3, 9, 5])]


def likeliest(model, prompt: list[int], text: list[int]) -> int:
    """Full depth's next token."""
    if model.transformer.decoder is None:
        return int(model(torch.tensor([[*prompt, *text]])).logits[0, -1].argmax())
    begun = torch.tensor([[model.transformer.architecture.decoder_start_token_id, *text]])
    return int(model(torch.tensor([prompt]), decoder_input_ids=begun).logits[0, -1].argmax())


@torch.no_grad()
def test_every_mode_is_described_as_it_ran(made) -> None:
    """All tokens leave at the first exit, most of them wrong; float64, so that drafts never part at a tie."""
    model, prompts = made
    always = Point(name="always", exits=ExitRule(criterion="entropy", threshold=99.0))
    said: list[tuple[int, int]] = []
    lines = decode_all(
        model, prompts, new_tokens=12, points=[FULL, always], watch=lambda *at: said.append(at)
    )
    assert [(line.mode, line.point) for line in lines] == [
        ("off", None), ("direct exact", "always"), ("direct propagate", "always"), ("spec", "always"),
    ]  # fmt: skip
    assert said == [(0, 12), (3, 12), (6, 12), (9, 12), (12, 12)]
    off, exact, loose, spec = lines
    assert (off.agreement, off.same_text, off.weight_passes, off.named_after) == (1, 1, 1, {5: 36})
    assert off.wrong_after == {}
    assert (spec.agreement, spec.same_text) == (1, 1)
    assert spec.acceptance is not None
    assert exact.named_after == loose.named_after == {1: 36}
    assert exact.macs_per_token < loose.macs_per_token, "none went deeper, so nothing was made up for"
    texts, _ = continued(model, prompts, model.decoding("direct", always), 12)
    right = [own_tokens(model, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    wrong = sum(not flag for each in right for flag in each)
    assert wrong
    assert exact.wrong_after == {1: wrong}
    assert exact.agreement == pytest.approx(1 - wrong / 36)
    assert sum(part["wrong"] for part in exact.wrong_at) == wrong
    assert [(part["first"], part["last"], part["tokens"]) for part in exact.wrong_at] == [
        (first, first + 1, 6) for first in range(1, 13, 2)
    ]
    assert len(exact.wrong_at) <= STRETCHES
    told = exact.as_dict()
    assert told["wrong_after"] == {"1": wrong}
    assert told["mode"] == "direct exact"


@torch.no_grad()
def test_tokens_are_right_by_the_text_before_them_not_by_full_depths_own(made) -> None:
    """After a wrong token the text is another; a later token is right if full depth continues that one so."""
    model, prompts = made
    off, _ = continued(model, prompts, model.decoding("off"), 12)
    point = Point(name="some", exits=median_rule(model.transformer, 0.6))
    texts, _ = continued(model, prompts, model.decoding("direct", point), 12)
    assert texts != off
    right = rightness(model, prompts, texts, off)
    for prompt, text, flags in zip(prompts, texts, right, strict=True):
        for place, flag in enumerate(flags):
            assert flag == (likeliest(model, prompt, text[:place]) == text[place])
    assert rightness(model, prompts, off, off) == [[True] * 12] * 3
