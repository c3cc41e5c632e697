"""Training with prompt tokens leaving: equal to what runs, gradients through those that left, and it learns.

float64 to 1e-9 of the largest logit.
"""

import math
from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, tiny_generator, tiny_seq2seq

import lessen
from lessen.errors import InputError, LessenError
from lessen.model.rows import pack
from lessen.plan import FULL, Point, RetentionProfile
from lessen.runtime.answers import score_own
from lessen.runtime.engine import elimination_of
from lessen.tokens.elimination import elimination_for
from lessen.tokens.passes import at
from lessen.train.fine_tuning import Recipe
from lessen.train.lessons import Answering, Lesson, LessonRows, learn_to_answer, states_before

PROMPTS, ANSWERS = [30, 12, 30, 9, 21], [5, 1, 7, 3, 5]
FAMILIES = ["gpt2", "llama-grouped", "gpt_neox", "qwen3", "t5", "t5-v1.1"]


def loaded(family: str, folder: Path):
    made = tiny_seq2seq(family) if family.startswith("t5") else tiny_generator(family)
    made.save_pretrained(folder)
    return lessen.load(folder).double().eval()


def point_of(model) -> Point:
    return Point(name="less", retention=(0.7, 0.5, 0.4)[: model.transformer.depth])


def as_lists(*sides):
    return [[ids.tolist() for ids in side] for side in sides]


def leaving(model, prompts):
    return elimination_of(point_of(model), model.transformer, *pack(prompts))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_is_what_runs(family: str, tmp_path: Path) -> None:
    """Log-probabilities of continuations: one pass with gradients, and cached decoding with survivors."""
    model = loaded(family, tmp_path)
    prompts, answers = ragged_ids(PROMPTS), ragged_ids(ANSWERS, 1)
    for in_layer, point in ((None, FULL), (leaving(model, prompts), point_of(model))):
        states = states_before(model.transformer, prompts, answers, in_layer)
        logits = model.transformer.next_token(states)
        assert logits.requires_grad
        logits = logits.detach()
        likely = logits.log_softmax(-1).gather(1, torch.cat(answers)[:, None])[:, 0].split(ANSWERS)
        found = score_own(
            model.transformer, [p.tolist() for p in prompts], [a.tolist() for a in answers], point
        )
        for ours, theirs in zip(likely, found, strict=True):
            assert (ours - theirs).abs().max() <= 1e-9 * logits.abs().max()
    whole = score_own(model.transformer, *as_lists(prompts, answers))
    assert not torch.allclose(torch.cat(whole), torch.cat(found))


@pytest.mark.parametrize("family", ["llama-grouped", "t5"])
def test_a_row_does_not_feel_its_neighbours(family: str, tmp_path: Path) -> None:
    model = loaded(family, tmp_path)
    prompts, answers = ragged_ids(PROMPTS), ragged_ids(ANSWERS, 1)
    together = states_before(model.transformer, prompts, answers, leaving(model, prompts)).split(ANSWERS)
    for row in range(len(prompts)):
        one = [prompts[row]]
        alone = states_before(model.transformer, one, [answers[row]], leaving(model, one))
        assert (alone - together[row]).abs().max() <= 1e-9 * alone.abs().max()


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_13_gradients_reach_tokens_that_left_in_the_first_layer(family: str, tmp_path: Path) -> None:
    model = loaded(family, tmp_path)
    (prompt,), (answer,) = ragged_ids([40]), ragged_ids([4], 1)
    prompt = torch.arange(3, 43)  # each token once
    inner = model.transformer
    inner.zero_grad()
    eliminate = elimination_for(inner.shape, (0.4,) * inner.depth, architecture=inner.architecture)
    states = states_before(inner, [prompt], [answer], eliminate)
    (_, rows), *_ = eliminate.kept
    inner.next_token(states).log_softmax(-1).gather(1, answer[:, None]).sum().backward()
    gone = sorted(set(range(40)) - set(rows.kept.tolist()))
    assert gone
    table = inner.embeddings.token.weight.grad
    table = table if inner.language_head is not None else table - _of_head(inner, states, answer)
    assert torch.isfinite(table).all()
    assert (table[prompt[gone]].abs().amax(1) > 0).all()


def _of_head(inner, states, answer):
    """Gradient the table gets as language head, where it is both."""
    table = inner.embeddings.token.weight.detach().clone().requires_grad_()
    logits = states.detach() * inner.architecture.language_head_scale @ table.T
    logits.log_softmax(-1).gather(1, answer[:, None]).sum().backward()
    return table.grad


def test_the_loss_is_that_of_answers_alone(tmp_path: Path) -> None:
    model = loaded("gpt2", tmp_path)
    lessons = [
        Lesson(p.tolist(), a.tolist())
        for p, a in zip(ragged_ids(PROMPTS), ragged_ids(ANSWERS, 1), strict=True)
    ]
    profile = RetentionProfile(base=(0.7, 0.5, 0.4), lengths=(30,))
    inner = model.transformer
    passes = at(profile, 1.0, inner.shape, inner.architecture)
    rows = LessonRows(lessons)
    batch = rows.collate([rows[place] for place in range(len(rows))])
    loss = Answering(inner, passes)(**batch)["loss"]
    point = Point(name="same", retention=(0.7, 0.5, 0.4))
    found = torch.cat(
        score_own(inner, [each.prompt for each in lessons], [each.answer for each in lessons], point)
    )
    assert float(loss) == pytest.approx(float(-found.mean()), rel=1e-9)


@pytest.mark.parametrize("family", ["llama-grouped", "t5"])
def test_it_learns_from_the_tokens_that_are_left(family: str, tmp_path: Path) -> None:
    """Two kinds of prompts and an answer for each: who does not look at them stays at log 2."""
    model = loaded(family, tmp_path / "model").float()
    kinds = [row % 2 for row in range(32)]
    lessons = [Lesson([5 + kind, *[7 + 2 * kind, 8 + 2 * kind] * 9], [3 + kind]) for kind in kinds]
    profile = RetentionProfile(base=(0.7, 0.5, 0.4)[: model.transformer.depth], lengths=(19,))
    inner, point = model.transformer, Point(name="same", retention=profile.base)
    recipe = Recipe(epochs=20, batch_size=16, learning_rate=5e-2)
    passes = at(profile, 1.0, inner.shape, inner.architecture)
    record = learn_to_answer(model, lessons, recipe, tmp_path / "work", passes=passes, quiet=True)
    assert record["steps"] == 40
    loss = -float(torch.cat(score_own(inner, *zip(*lessons, strict=True), point)).mean())
    assert loss < 0.5 * math.log(2)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_loss_that_is_no_number_ends_training(family: str, tmp_path: Path) -> None:
    model = loaded(family, tmp_path / "model")
    model.transformer.embeddings.token.weight.data[5, 0] = float("nan")
    with pytest.raises(LessenError, match="the loss of step 1 is nan, not a finite number"):
        learn_to_answer(model, [Lesson([5, 6], [7])], Recipe(), tmp_path / "work", quiet=True)


def test_nothing_to_learn_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text long enough"):
        learn_to_answer(loaded("gpt2", tmp_path), [], Recipe(), tmp_path / "work")
