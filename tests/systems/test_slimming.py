"""Slimming in turns: shapes fall in equal steps to the target, and a stopped run ends as any other."""

import itertools
from pathlib import Path

import pytest
import torch
from conftest import CharacterTokenizer, lively, task, tiny_hugging_face
from hypothesis import given
from hypothesis import strategies as st

from lessen.depth.exits import every_exit
from lessen.errors import PlanError
from lessen.loading import load
from lessen.plan import ExitShape, dense_shape
from lessen.reshaping import with_exits, with_shape
from lessen.runtime.text import collate, encode
from lessen.systems import rounds, slimming
from lessen.systems.milestone import Milestone
from lessen.systems.removing import remove
from lessen.systems.rounds import scored_batches
from lessen.systems.slimming import Slimming, chosen, factorized, shapes_between, worth_of
from lessen.train.sampler import LengthGrouped
from lessen.train.teaching import Teacher
from lessen.width.budget import encoder_of, parameters_of, scaled, shallow
from lessen.width.importance import Worth

RECIPE = Slimming(objective="features_and_predictions", features_first=0.5, epochs=0.5, batch_size=8, seed=1)


@pytest.fixture
def model(tmp_path: Path):
    tiny_hugging_face("bert").save_pretrained(tmp_path / "bert")
    fresh = with_exits(load(tmp_path / "bert"), labels=["no", "yes"])
    fresh.tokenizer = CharacterTokenizer()
    return lively(fresh)


def scaled_to(model, share, rank=None):
    return scaled(model.config.facts(), model.config.form(), share, rank)


def ran(model, folder: Path, recipe: Slimming = RECIPE, shares=(0.5,)):
    teacher, targets = fresh_copy(model), [scaled_to(model, share, recipe.rank) for share in shares]
    return remove(model, teacher, task(), recipe, targets, folder, lambda _: None, quiet=True)


def fresh_copy(model):
    return with_shape(model, model.config.form(), model.transformer.state_dict())


@given(
    heads=st.integers(1, 12), neurons=st.integers(1, 300), rank=st.integers(1, 30), rounds=st.integers(0, 9)
)
def test_shapes_fall_in_equal_steps_to_the_target(tiny_facts, heads, neurons, rank, rounds):
    start = dense_shape(3, 12, 300, (ExitShape(layer=3),))
    layers = [
        layer.model_copy(update={"heads": tuple(range(heads)), "intermediate_size": neurons})
        for layer in start.layers
    ]
    target = start.model_copy(update={"layers": tuple(layers), "embedding_rank": rank})
    steps = shapes_between(tiny_facts, start, target, rounds or None)
    shares = (300 - neurons + 12) // 25  # 25 neurons go with each of 12 heads
    assert len(steps) == (rounds or max(1, 12 - heads, shares))
    if not rounds:
        twice = shapes_between(tiny_facts, start, target, for_a_head=2)
        assert len(twice) == max(1, 2 * (12 - heads), 2 * shares)
    sizes = [(len(s.layers[0].heads), s.layers[0].intermediate_size) for s in [start, *steps]]
    for one, parts in enumerate(zip(*sizes, strict=True)):
        assert sorted(parts, reverse=True) == list(parts)
        drops = [a - b for a, b in itertools.pairwise(parts)]
        assert max(drops) - min(drops) <= 1, one
    assert sizes[-1] == (heads, neurons)
    ranks = [s.embedding_rank for s in steps]
    assert ranks[-1] == (rank if rank * (101 + 32) < 101 * 32 else None)
    cut = [r for r in ranks if r is not None]
    assert cut == sorted(cut, reverse=True)


@pytest.fixture(scope="module")
def tiny_facts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts")
    tiny_hugging_face("bert").save_pretrained(folder)
    return load(folder).config.facts()


def test_the_target_is_reached(model, tmp_path: Path):
    slender, records = ran(model, tmp_path / "work")
    form = slender.config.form()
    assert [len(layer.heads) for layer in form.layers] == [2, 2, 2]
    assert [layer.intermediate_size for layer in form.layers] == [32, 32, 32]
    assert form.embedding_rank == 16
    assert len(records) == 2
    assert form.exits == model.config.form().exits
    assert sum(p.numel() for p in slender.parameters()) < 0.6 * sum(p.numel() for p in model.parameters())


def test_a_run_that_was_stopped_removes_the_same(model, tmp_path: Path, monkeypatch):
    whole, _ = ran(fresh_copy(model), tmp_path / "whole")
    trainings = []
    real = rounds.fine_tune

    def stops(*arguments, **options):
        trainings.append(1)
        if len(trainings) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(rounds, "fine_tune", stops)
    with pytest.raises(KeyboardInterrupt):
        ran(fresh_copy(model), tmp_path / "stopped")
    monkeypatch.setattr(rounds, "fine_tune", real)
    again, _ = ran(fresh_copy(model), tmp_path / "stopped")
    assert again.config.form() == whole.config.form()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_every_round_sees_other_rows(model, tmp_path: Path, monkeypatch):
    """Half an epoch each, and a sample to score: with one seed the rest would never be seen."""
    trained, scored, rates = [], [], []
    train, score = rounds.fine_tune, slimming.scored_batches

    def trains(pupil, table, recipe, *arguments, **options):
        trained.append([*LengthGrouped([1] * len(table), recipe.batch_size, recipe.seed)][: len(table) // 2])
        rates.append(recipe.learning_rate)
        return train(pupil, table, recipe, *arguments, **options)

    def scores(*arguments):
        batches = [*score(*arguments)]
        scored.append(torch.cat([batch[0] for batch in batches]))
        return batches

    monkeypatch.setattr(rounds, "fine_tune", trains)
    monkeypatch.setattr(slimming, "scored_batches", scores)
    ran(model, tmp_path, RECIPE.model_copy(update={"scored_rows": 16}))
    first, second = trained
    assert len(set(first) & set(second)) < 0.8 * len(first)
    assert not torch.equal(*scored)
    assert rates == pytest.approx([RECIPE.learning_rate, RECIPE.learning_rate * (1 + RECIPE.growth)])


def test_scores_of_the_last_exit_alone_have_no_equilibrium(model):
    """It would only shrink what shallow layers get (page, 1.12: 4)."""
    other, alone = fresh_copy(model), RECIPE.model_copy(update={"calibrated": False})
    plain, evened = (
        worth_of(model, other, task(), alone.model_copy(update={"equilibrium": on})) for on in (False, True)
    )
    for one, another in zip(plain, evened, strict=True):
        assert torch.equal(one.neurons, another.neurons)
    calibrated = worth_of(model, other, task(), RECIPE.model_copy(update={"equilibrium": True}))
    assert not torch.equal(calibrated[0].neurons, worth_of(model, other, task(), RECIPE)[0].neurons)


@pytest.mark.parametrize(
    ("changes", "undone"),
    [
        ({"equilibrium": True}, True),
        ({"equilibrium": False}, False),
        ({"equilibrium": True, "calibrated": False}, False),
        ({"equilibrium": True, "importance": "magnitude"}, False),
        ({"equilibrium": True, "importance": "random"}, False),
    ],
)
def test_layers_compete_without_what_equilibrium_took(model, changes, undone):
    """With as many exits above as layers, layer 1 got a third of its gradient: what is left is even again."""
    shape = scaled_to(model, 0.5)
    worth = [Worth(torch.full((4,), got), torch.full((64,), got)) for got in (1 / 3, 1 / 2, 1.0)]
    recipe = RECIPE.model_copy(update={"budget": "uneven", **changes})
    kept = [len(layer.heads) for layer in chosen(worth, recipe, shape)]
    assert sum(kept) == sum(len(layer.heads) for layer in shape.layers)
    assert (kept[0] > 1) == undone


def test_what_the_teacher_shows_below_its_last_layer_is_nothing_to_the_last_exit(model, monkeypatch):
    def scores(calibrated):
        recipe = RECIPE.model_copy(update={"calibrated": calibrated})
        return torch.cat([layer.neurons for layer in worth_of(model, model, task(), recipe)])

    def upside_down(*batch):
        return [[*(-each for each in found[:-1]), found[-1]] for found in shows(*batch)]

    every, last, shows = scores(True), scores(False), Teacher.shows
    monkeypatch.setattr(Teacher, "shows", upside_down)
    assert torch.equal(scores(False), last)
    assert not torch.equal(scores(True), every)


def test_heads_that_share_keys_leave_together(model):
    shape = scaled_to(model, 0.5)
    worth = [Worth(torch.tensor([9.0, 0.0, 5.0, 5.0]), torch.ones(64)) for _ in range(3)]
    assert [each.heads for each in chosen(worth, RECIPE, shape, shared=2)] == [(2, 3)] * 3
    assert [each.heads for each in chosen(worth, RECIPE, shape)] == [(0, 2)] * 3


def test_last_exit_scores_differ_from_calibrated_ones(model):
    other = fresh_copy(model)
    with torch.no_grad():
        for parameter in other.transformer.layers.parameters():
            parameter *= 0.9
    every = worth_of(model, other, task(), RECIPE)
    last = worth_of(model, other, task(), RECIPE.model_copy(update={"calibrated": False}))
    order = [torch.cat([w.neurons for w in found]).argsort() for found in (every, last)]
    assert not torch.equal(*order)


def test_only_full_batches_are_scored(model):
    recipe = RECIPE.model_copy(update={"scored_rows": 21})
    assert [len(layout) for _, layout, *_ in scored_batches(model, task(), recipe)] == [8, 8]


@pytest.mark.parametrize("importance", ["abs_weight", "signed_group"])
def test_fewer_rows_than_a_batch_are_scored(model, importance):
    recipe = RECIPE.model_copy(update={"batch_size": 100, "importance": importance})
    assert all(w.heads.min() > 0 for w in worth_of(model, fresh_copy(model), task(), recipe))


@pytest.mark.parametrize(
    "changes",
    [
        {"importance": "signed_group"},
        {"importance": "magnitude"},
        {"importance": "random"},
        {"budget": "uneven", "importance": "signed_group", "equilibrium": True},
        {"calibrated": False, "rounds": 1},
    ],
)
def test_every_choice_ends_at_the_size_asked_for(model, tmp_path: Path, changes):
    recipe = RECIPE.model_copy(update=changes)
    slender, records = ran(model, tmp_path / "work", recipe)
    form = slender.config.form()
    assert sum(len(layer.heads) for layer in form.layers) == 6
    assert sum(layer.intermediate_size for layer in form.layers) == 96
    assert len(records) == changes.get("rounds", 2)


def test_a_target_that_is_wider_or_has_other_layers_is_refused(model, tmp_path: Path):
    slender, _ = ran(fresh_copy(model), tmp_path / "work")
    with pytest.raises(PlanError, match="wider"):
        remove(slender, model, task(), RECIPE, [model.config.form()], tmp_path / "w", print, quiet=True)
    with pytest.raises(PlanError, match="other layers"):
        remove(model, model, task(), RECIPE, [shallow(model.config.form(), 2)], tmp_path / "w", print)


def test_several_sizes_pass_through_each_other(model, tmp_path: Path, monkeypatch):
    half, _ = ran(fresh_copy(model), tmp_path / "both")
    trained = {place: place.stat().st_mtime_ns for place in (tmp_path / "both").rglob("model.safetensors")}
    loaded = []
    real = Milestone.model
    monkeypatch.setattr(
        Milestone, "model", lambda self, like: loaded.append(self.folder.name) or real(self, like)
    )
    quarter, records = ran(fresh_copy(model), tmp_path / "both", shares=(0.5, 0.25))
    assert loaded == ["round-2", "round-3"]
    assert len(records) == 3
    assert [len(layer.heads) for layer in quarter.config.form().layers] == [1, 1, 1]
    for small, large in zip(quarter.config.form().layers, half.config.form().layers, strict=True):
        assert set(small.heads) < set(large.heads)
    assert all(place.stat().st_mtime_ns == when for place, when in trained.items())


def test_14_every_round_survives_saving_and_a_second_run_is_the_same(model, tmp_path: Path):
    for name in ("first", "second"):
        ran(fresh_copy(model), tmp_path / name)
    encoded = encode(model.tokenizer, task().texts[:9], 64)
    ids, layout, segments = collate(encoded, torch.device("cpu"))
    sizes = []
    for number in (1, 2):
        first, second = (
            Milestone(tmp_path / name / f"round-{number}").model(model) for name in ("first", "second")
        )
        first.save_pretrained(tmp_path / f"saved-{number}")
        loaded = load(tmp_path / f"saved-{number}")
        assert first.config.form() == loaded.config.form() == second.config.form()
        sizes.append(len(first.config.form().layers[0].heads))
        with torch.no_grad():
            said = [
                every_exit(each.eval().transformer, ids, layout, segments) for each in (first, loaded, second)
            ]
        for one, again, other in zip(*said, strict=True):
            assert torch.equal(one, again)
            assert torch.equal(one, other)
    assert sizes == [3, 2]


def test_low_rank_comes_last_and_is_counted(model, tmp_path: Path):
    recipe = RECIPE.model_copy(update={"rank": 0.25})
    slender, _ = ran(model, tmp_path / "work", recipe)
    form = slender.config.form()
    target = scaled_to(model, 0.5, 0.25)
    assert [layer.rank for layer in form.layers] == [layer.rank for layer in target.layers]
    assert form.layers[0].rank.up == 8
    whole = parameters_of(model.config.facts(), scaled_to(model, 0.5), 2)
    assert (
        sum(p.numel() for p in slender.parameters()) == parameters_of(model.config.facts(), target, 2) < whole
    )


def test_ranks_of_uneven_layers_are_of_what_each_kept(model, tmp_path: Path):
    """Layer 2 of three keeps most; what is left has no more weights than even layers would have."""
    with torch.no_grad():
        for name, part in model.transformer.named_parameters():
            part.mul_(3.0 if name.startswith("layers.1.") else 0.1)
    recipe = RECIPE.model_copy(update={"rank": 0.4, "budget": "uneven", "importance": "magnitude"})
    slender, _ = ran(model, tmp_path / "work", recipe)
    facts, form = model.config.facts(), slender.config.form()
    assert len({layer.intermediate_size for layer in form.layers}) > 1
    assert any(any(layer.rank.model_dump().values()) for layer in form.layers)
    assert encoder_of(facts, form, 2) <= encoder_of(facts, scaled_to(model, 0.5, 0.4), 2)
    assert sum(p.numel() for p in slender.parameters()) == parameters_of(facts, form, 2)


def test_a_model_of_low_rank_keeps_it_where_more_is_asked_for(model, tmp_path: Path):
    low, _ = ran(model, tmp_path / "first", RECIPE.model_copy(update={"rank": 0.25}))
    before = low.config.form().layers[0].rank
    again, _ = ran(low, tmp_path / "second", RECIPE.model_copy(update={"rank": 0.75}), shares=(0.5,))
    after = again.config.form().layers[0].rank
    assert before.up is not None
    assert after.up == before.up


def test_products_that_save_nothing_any_more_are_multiplied_out(model, tmp_path: Path):
    low, _ = ran(model, tmp_path / "first", RECIPE.model_copy(update={"rank": 0.4}), shares=(0.9,))
    assert low.config.form().layers[0].rank.attention_output == 13
    narrow, _ = ran(low, tmp_path / "second", RECIPE, shares=(0.4,))
    layer = narrow.config.form().layers[0]
    context = 8 * len(layer.heads)
    assert 13 * (32 + context) >= 32 * context, "rank 13 has more weights than the whole matrix"
    assert layer.rank.attention_output is None
    assert narrow.transformer.layers[0].attention.output.weight.shape == (32, context)


def test_low_rank_is_the_nearest_on_training_rows(model):
    """What is lost of the output on them is what lies beyond its first 8 directions: no rank 8 loses less."""
    recipe, target = RECIPE.model_copy(update={"rank": 0.25}), scaled_to(model, 1.0, 0.25)
    ids, layout, segments = collate(encode(model.tokenizer, task().texts, 64), torch.device("cpu"))
    with torch.no_grad():
        entering = model.transformer.embeddings(ids, layout, segments)
        whole, product = (
            each.transformer.layers[0].attention.qkv
            for each in (model, factorized(model, task(), recipe, target))
        )
        error = float((product(entering) - whole(entering)).norm())
        least = float(torch.linalg.svdvals(entering @ whole.weight.T)[8:].norm())
    assert error == pytest.approx(least, rel=0.01)
