"""Layer chopping: the layer that matters least leaves, and its teacher still teaches the others."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import CharacterTokenizer, lively, task, tiny_hugging_face

from lessen.errors import PlanError
from lessen.loading import load
from lessen.reshaping import with_exits, with_shape
from lessen.systems.chopping import Chopping, least_of, losses_without_each
from lessen.systems.removing import remove
from lessen.width.budget import shallow

RECIPE = Chopping(objective="features_and_predictions", epochs=0.5, batch_size=8, seed=1)


@pytest.fixture
def model(tmp_path: Path):
    tiny_hugging_face("bert").save_pretrained(tmp_path / "bert")
    fresh = with_exits(load(tmp_path / "bert"), labels=["no", "yes"])
    fresh.tokenizer = CharacterTokenizer()
    return lively(fresh)


def ran(model, folder: Path, recipe: Chopping = RECIPE, layers: int = 1):
    teacher = with_shape(model, model.config.form(), model.transformer.state_dict())
    targets = [shallow(model.config.form(), layers)]
    return remove(model, teacher, task(), recipe, targets, folder, lambda _: None, quiet=True)


def test_a_layer_that_does_nothing_leaves_first(model):
    idle = model.transformer.layers[1]
    with torch.no_grad():
        for matrix in (idle.attention.output, idle.feed_forward.down):
            matrix.weight.zero_()
            matrix.bias.zero_()
    said = [int(answer.label == "yes") for answer in model.predict(task().texts)]
    own = replace(task(), labels=said)
    losses = losses_without_each(model, own, RECIPE)
    assert losses[1] == min(losses)
    assert least_of(model, own, RECIPE) == 1


@pytest.mark.parametrize("importance", ["loss", "deepest", "random"])
def test_as_many_layers_are_left_as_were_asked_for(model, tmp_path: Path, importance):
    recipe = RECIPE.model_copy(update={"importance": importance})
    short, records = ran(model, tmp_path / "work", recipe)
    form = short.config.form()
    assert len(form.layers) == len(form.exits) == 1
    assert len(records) == 2
    if importance == "deepest":
        assert form.layers[0].layer == 0
    assert len(short.predict(["good 1", "bad 2"])) == 2


def test_a_target_with_more_layers_is_refused(model, tmp_path: Path):
    short, _ = ran(model, tmp_path / "work")
    with pytest.raises(PlanError, match="1 layers more"):
        remove(short, model, task(), RECIPE, [shallow(model.config.form(), 2)], tmp_path / "w", print)
