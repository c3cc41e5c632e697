"""Scores of heads and neurons are what their formulas say; numbers are those of the COST-EFF page, 1.12."""

from functools import partial

import pytest
import torch
from conftest import lively, ragged_ids, tiny_hugging_face
from torch.nn import functional

from lessen.depth.exits import every_exit
from lessen.loading import load
from lessen.model.rows import pack
from lessen.plan import Rank
from lessen.reshaping import with_exits, with_shape
from lessen.width.importance import AbsWeight, SignedGroup, magnitude, mask_gradients, random
from lessen.width.removal import Units, narrowed, with_ranks

LENGTHS = [3, 5, 5, 9]
LABELS = torch.tensor([0, 2, 1, 1])


def everything(layer):
    return Units(tuple(range(len(layer.heads))), tuple(range(layer.intermediate_size)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    tiny_hugging_face("bert").save_pretrained(folder)
    return lively(with_exits(load(folder), exits=None).double())


def batch(which=None):
    sequences = ragged_ids(LENGTHS)
    chosen = list(range(4)) if which is None else which
    return (*pack([sequences[i] for i in chosen]), LABELS[chosen])


def loss_of(model, ids, rows, labels, weights=(1, 1, 1), *, equilibrium=False):
    answers = every_exit(model.transformer, ids, rows, equilibrium=equilibrium)
    terms = [w * functional.cross_entropy(a, labels) for w, a in zip(weights, answers, strict=True) if w]
    return torch.stack(terms).sum()


def signed(model, weights=(1, 1, 1), *, equilibrium=False):
    ids, rows, labels = batch()
    loss = partial(loss_of, model, ids, rows, labels, weights, equilibrium=equilibrium)
    return mask_gradients(model.transformer, rows, loss)


def total(parts, kind):
    return torch.stack([getattr(part, kind).sum(0) for part in parts])


def test_5_the_signed_score_is_weight_times_gradient_of_the_columns_read(model):
    parts = signed(model)
    ids, rows, labels = batch()
    model.zero_grad()
    loss_of(model, ids, rows, labels).backward()
    for block, part in zip(model.transformer.layers, parts, strict=True):
        output, down = block.attention.output.weight, block.feed_forward.down.weight
        heads = (output * output.grad).sum(0).unflatten(0, (4, -1)).sum(-1)
        torch.testing.assert_close(part.heads.mean(0), heads, rtol=1e-10, atol=1e-14)
        neurons = (down * down.grad).sum(0)
        torch.testing.assert_close(part.neurons.mean(0), neurons, rtol=1e-10, atol=1e-14)
    model.zero_grad()


def test_5_the_signed_score_is_what_a_small_change_does(model):
    parts, step = signed(model), 1e-4
    ids, rows, labels = batch()
    for layer, head in ((0, 1), (2, 3)):
        output = model.transformer.layers[layer].attention.output
        columns = slice(8 * head, 8 * head + 8)
        before = loss_of(model, ids, rows, labels)
        with torch.no_grad():
            output.weight[:, columns] *= 1 - step
            after = loss_of(model, ids, rows, labels)
            output.weight[:, columns] /= 1 - step
        change = (before - after).detach() / step
        assert float(change) == pytest.approx(float(parts[layer].heads[:, head].mean()), rel=2e-3, abs=1e-6)


def test_6_signed_scores_add_over_exits_and_none_reaches_above_its_exit(model):
    whole = signed(model)
    single = [signed(model, tuple(int(i == j) for j in range(3))) for i in range(3)]
    for kind in ("heads", "neurons"):
        summed = sum(total(parts, kind) for parts in single)
        torch.testing.assert_close(total(whole, kind), summed, rtol=1e-10, atol=1e-14)
        assert torch.equal(total(single[0], kind)[1:], torch.zeros_like(total(single[0], kind)[1:]))
        torch.testing.assert_close(total(whole, kind)[2], total(single[2], kind)[2])


def test_7_equilibrium_rescales_layers_and_keeps_the_order_within_them(model):
    plain, even = signed(model), signed(model, equilibrium=True)
    for layer, (a, b) in enumerate(zip(plain, even, strict=True)):
        torch.testing.assert_close(a.heads / (3 - layer), b.heads, rtol=1e-9, atol=1e-15)
        torch.testing.assert_close(a.neurons / (3 - layer), b.neurons, rtol=1e-9, atol=1e-15)


def scores(model, scorer, batches):
    made = scorer(model.transformer)
    for which in batches:
        ids, rows, labels = batch(which)
        made.add(rows, partial(loss_of, model, ids, rows, labels))
    return made.worth()


def test_9_signed_group_does_not_depend_on_the_rows_per_batch_but_abs_weight_does(model):
    alone = scores(model, SignedGroup, [[0], [1], [2], [3]])
    together = scores(model, SignedGroup, [[0, 1, 2, 3]])
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a.heads, b.heads)
        torch.testing.assert_close(a.neurons, b.neurons)
    alone, together = (scores(model, AbsWeight, each) for each in ([[0], [1], [2], [3]], [[0, 1, 2, 3]]))
    assert alone[0].heads.sum() > together[0].heads.sum()


def test_6_absolute_scores_are_at_most_their_sum_over_exits(model):
    ids, rows, labels = batch()

    def absolute(weights):
        found = AbsWeight(model.transformer)
        found.add(rows, partial(loss_of, model, ids, rows, labels, weights))
        return found.worth()

    single = [absolute(tuple(int(i == j) for j in range(3))) for i in range(3)]
    for place, whole in enumerate(absolute((1, 1, 1))):
        for kind in ("heads", "neurons"):
            summed = torch.stack([getattr(each[place], kind) for each in single]).sum(0)
            assert (getattr(whole, kind) <= summed * (1 + 1e-12)).all()
            assert torch.allclose(getattr(whole, kind), summed) == (place == 2)


def test_abs_weight_is_the_authors_sum(model):
    ids, rows, labels = batch()
    found = scores(model, AbsWeight, [[0, 1, 2, 3]])
    loss_of(model, ids, rows, labels).backward()
    block = model.transformer.layers[1]
    output, up, down = (
        (m.weight * m.weight.grad).abs()
        for m in (block.attention.output, block.feed_forward.up, block.feed_forward.down)
    )
    torch.testing.assert_close(found[1].heads, output.sum(0).view(4, 8).sum(1))
    torch.testing.assert_close(found[1].neurons, up.sum(1) + down.sum(0))
    signed_heads = total(signed(model), "heads")[1] / len(LENGTHS)
    assert (found[1].heads >= signed_heads.abs() - 1e-12).all()
    model.zero_grad()


def test_gradients_of_batches_that_pull_apart_do_not_cancel(model):
    ids, rows, labels = batch()
    loss = partial(loss_of, model, ids, rows, labels)
    found = AbsWeight(model.transformer)
    found.add(rows, loss)
    once = found.worth()
    found.add(rows, lambda: -loss())
    for twice, one in zip(found.worth(), once, strict=True):
        torch.testing.assert_close(twice.heads, 2 * one.heads)
        torch.testing.assert_close(twice.neurons, 2 * one.neurons)


def test_8_a_model_that_already_agrees_with_its_teacher_is_scored_by_the_hard_labels_alone(model):
    ids, rows, labels = batch()
    with torch.no_grad():
        teacher = every_exit(model.transformer, ids, rows)

    def both():
        answers = every_exit(model.transformer, ids, rows)
        soft = [functional.cross_entropy(a, t.softmax(-1)) for a, t in zip(answers, teacher, strict=True)]
        hard = [functional.cross_entropy(a, labels) for a in answers]
        return 0.9 * torch.stack(soft).sum() + 0.1 * torch.stack(hard).sum()

    found = AbsWeight(model.transformer)
    found.add(rows, both)
    hard = scores(model, AbsWeight, [[0, 1, 2, 3]])
    for a, b in zip(found.worth(), hard, strict=True):
        torch.testing.assert_close(a.heads, 0.1 * b.heads)


def test_dead_parts_are_worth_nothing_and_go_first(model):
    dead = with_shape(model, model.config.form(), model.transformer.state_dict())
    with torch.no_grad():
        dead.transformer.layers[0].attention.output.weight[:, 8:16] = 0
        dead.transformer.layers[1].feed_forward.down.weight[:, 7] = 0
        dead.transformer.layers[1].feed_forward.up.weight[7] = 0
    for scorer in (AbsWeight, SignedGroup):
        found = scores(dead, scorer, [[0, 1, 2, 3]])
        assert found[0].heads.argmin() == 1
        assert found[0].heads[1] == 0
        assert found[1].neurons[7] == 0
    assert magnitude(dead.transformer)[0].heads[1] == 0


def test_controls_know_nothing_of_the_data(model):
    assert torch.equal(random(model.transformer, 3)[1].neurons, random(model.transformer, 3)[1].neurons)
    assert not torch.equal(random(model.transformer, 3)[1].heads, random(model.transformer, 4)[1].heads)


def test_slim_and_low_rank_layers_are_scored_too(model):
    form = model.config.form()
    kept = [Units((), (1, 2)), everything(form.layers[1]), Units((1,), ())]
    state, shape = narrowed(model.config.facts(), model.transformer.state_dict(), form, kept)
    ranks = [Rank(up=1, down=1), Rank(qkv=3, attention_output=2, up=4, down=4), Rank(attention_output=2)]
    odd = with_shape(model, *reversed(with_ranks(state, shape, ranks)))
    for scorer in (AbsWeight, SignedGroup):
        found = scores(odd, scorer, [[0, 1], [2, 3]])
        assert [(len(w.heads), len(w.neurons)) for w in found] == [(0, 2), (4, 64), (1, 0)]
        assert all(torch.isfinite(part).all() for w in found for part in (w.heads, w.neurons))
    assert [len(w.heads) for w in magnitude(odd.transformer)] == [0, 4, 1]
