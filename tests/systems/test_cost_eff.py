"""The recipe as it is carried out: its trainings are those of the COST-EFF page, 1.9, in their order."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import rows

from lessen.systems import pipeline, rounds, system_of
from lessen.systems.pipeline import compress
from lessen.systems.planning import plan_for
from lessen.systems.rounds import of_round


class Training(NamedTuple):
    """One of the page's: what is learned, from whom, and how long.

    Trainings are numbered from 1, the pre-trained checkpoint is 0. Epochs and learning rate are relative to
    the first training's; `least` and `most` epochs are the extremes of all tasks and widths in its table.
    """

    objective: str
    starts_from: int
    teacher: int | None
    least: float
    most: float
    features_first: float = 0.0
    rate: float = 1.0
    equilibrium: bool = True


PAGE = [
    Training("last", 0, None, 1, 1, equilibrium=False),
    Training("features", 0, 1, 1 / 5, 2 / 5, equilibrium=False),
    Training("assistant", 2, 1, 1, 1),
    Training("features_and_predictions", 3, 3, 0.2 / 3, 2 / 8, 0.7),
    Training("features_and_predictions", 4, 3, 0.2 / 3, 2 / 8, 0.7, 1.12),
    Training("features_and_predictions", 5, 3, 0.2 / 3, 2 / 8, 0.7, 1.12**2),
    Training("features_and_predictions", 6, 3, 0.2 / 3, 2 / 8, 0.7, 1.12**3),
    Training("features", 7, 3, 8 / 12, 20 / 8),
    Training("features_and_predictions", 8, 3, 3 / 12, 10 / 8),
]
"""With four rounds. Four things are ours, as `cost_eff` says.

* Two rounds for each of the two heads that leave, where the page has one.
* Learning rates, for small encoders: one for all stages, where the page halves that of the rounds and raises
  that of the first recovery; it grows from round to round as the page's does.
* Epochs, within the page's proportions but for one: the assistant learns features for 2 where the first
  training has 5; the page rounds a third down, to 1.
* Equilibrium begins with the assistant's exits; before them no exit is trained.
"""


def test_what_the_page_leaves_open_is_as_the_recipe_says() -> None:
    """Rates of exits, and rows that parts are scored on: no run here would show another number."""
    stages = system_of("cost-eff").stages
    assert [stage.head_learning_rate for stage in stages] == [1e-3, 1e-3, 1e-3, 1e-4, 1e-3, 1e-4]
    assert stages[3].scored_rows == 2048


def test_whole_layers_leave_in_as_many_epochs_as_their_parts_would() -> None:
    """Of six layers of twelve heads three leave, or half of all heads in two rounds for each."""
    narrow, shallow = (system_of(name).stages[3] for name in ("cost-eff", "layer-chop"))
    assert 3 * shallow.epochs == 6 * narrow.rounds_for_a_head * narrow.epochs
    assert (shallow.growth, shallow.learning_rate) == (narrow.growth, narrow.learning_rate)


@pytest.fixture
def trainings(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Recipes of a run's trainings, and numbers of those its model and its teacher come from.

    Nothing is trained: each only leaves its number in a bias, which no removal touches.
    """
    seen = []

    def number(model):
        return model.transformer.exits["3"].output.bias

    def trains(model, data, recipe, *_, teacher=None, **__):
        seen.append((recipe, int(number(model)[0]), teacher and int(number(teacher)[0])))
        torch.nn.init.constant_(number(model), len(seen))
        return {"steps": 1, "seconds": 0.0, "loss": 0.0, "precision": "float32", "resumed": False}

    for module in (pipeline, rounds):
        monkeypatch.setattr(module, "fine_tune", trains)
    path = tmp_path / "d.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows(240)))
    system = system_of("cost-eff")
    targets = ({"width": 0.5},)
    plan = plan_for(system, seed=0, recipe={}, model=str(tiny_checkpoint), data=str(path), targets=targets)
    compress(plan, system, tmp_path / "m", say=lambda _: None, quiet=True)
    return seen


def test_trainings_are_those_of_the_page(trainings):
    first = trainings[0][0]
    for (recipe, starts_from, teacher), page in zip(trainings, PAGE, strict=True):
        assert (recipe.objective, starts_from, teacher) == (page.objective, page.starts_from, page.teacher)
        assert page.least <= recipe.epochs / first.epochs <= page.most
        assert recipe.features_first == page.features_first
        assert recipe.learning_rate / first.learning_rate == pytest.approx(page.rate)
        assert recipe.equilibrium == page.equilibrium
        shared = recipe.batch_size, recipe.warmup, recipe.weight_decay, recipe.max_tokens
        assert shared == (32, 0.1, 0.01, 128)


@pytest.mark.parametrize(("removals", "growth"), [(6, 1.97), (10, 3.11)])
def test_the_learning_rate_grows_as_on_the_page(removals, growth):
    """1.97e-5 and 3.11e-5 out of 1e-5 (1.8)."""
    stage = system_of("cost-eff").stages[3]
    rate = of_round(stage, removals + 1).learning_rate
    assert rate / stage.learning_rate == pytest.approx(growth, abs=0.005)
