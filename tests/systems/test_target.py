"""Sizes as users write them, and the shapes that keep them."""

import pytest

from lessen.errors import InputError, PlanError
from lessen.plan import parse
from lessen.systems import system_of
from lessen.systems.pipeline import CompressionPlan, plan_for
from lessen.systems.target import Target, shape_for, target_of
from lessen.width.budget import bytes_of, parameters_of


@pytest.fixture
def model(tiny_classifier):
    return tiny_classifier


def test_what_users_write():
    assert target_of("1/8", None) == Target(share=0.125)
    assert target_of("2.5m", None) == Target(parameters=2_500_000)
    assert target_of("3000", None) == Target(parameters=3000)
    assert target_of(None, "12MB") == Target(bytes=12_000_000)
    assert target_of(None, "900kb") == Target(bytes=900_000)
    assert target_of(None, None) is None


@pytest.mark.parametrize("text", ["small", "-3M", "0", "9/8", "1/0", "0/4", "", "nan", "inf"])
def test_what_is_no_number_of_weights(text):
    with pytest.raises(InputError, match="--params"):
        target_of(text, None)


@pytest.mark.parametrize("text", ["12", "MB", "-1MB", "12 apples"])
def test_what_is_no_file_size(text):
    with pytest.raises(InputError, match="--size"):
        target_of(None, text)


def test_one_size_only():
    with pytest.raises(InputError, match="give one of them"):
        target_of("1/2", "3MB")
    with pytest.raises(PlanError, match="exactly one"):
        parse(Target, {"share": 0.5, "bytes": 7}, "target")


def test_shapes_keep_what_was_asked_for(model):
    facts = model.config.facts()
    whole = parameters_of(facts, model.config.form(), 3)
    assert parameters_of(facts, shape_for(model, Target(share=0.6)), 3) <= 0.6 * whole
    limit = int(2.5 * whole)
    assert bytes_of(facts, shape_for(model, Target(bytes=limit)), 3) <= limit
    half = shape_for(model, Target(width=0.5))
    assert [len(layer.heads) for layer in half.layers] == [2, 2, 2]
    with pytest.raises(PlanError, match=r"with one head a layer there are [\d,]+ left"):
        shape_for(model, Target(share=0.01))


def plan(system: str, recipe=None, **choices):
    return plan_for(system_of(system), seed=0, recipe=recipe or {}, model="m", data="d", **choices)


def test_a_size_belongs_to_a_system_that_slims():
    with pytest.raises(InputError, match="as wide as they are"):
        plan("early-exit", target=Target(share=0.5))
    with pytest.raises(InputError, match="as wide as they are"):
        plan("pabee", {"importance": "random"})
    with pytest.raises(InputError, match="needs a size"):
        plan("cost-eff")
    with pytest.raises(InputError, match="leave --objective out"):
        plan("cost-eff", {"objective": "last"}, target=Target(share=0.5))


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ([{"teacher": 1}], "stage 1 learns from stage 1, which is not before it"),
        ([{}, {"objective": "features"}], "stage 2: objective features needs a teacher"),
        ([{"importance": "random"}], "a stage that slims needs a target"),
    ],
)
def test_a_plan_whose_stages_do_not_fit_is_refused(stages, problem):
    given = {"model": "m", "data": "d", "system": "cost-eff", "stages": stages, "criteria": ["entropy"]}
    with pytest.raises(PlanError, match=problem):
        parse(CompressionPlan, given, "plan.json")


def test_epochs_are_the_first_stages_and_the_others_follow():
    usual = plan("cost-eff", target=Target(share=0.5)).stages
    fewer = plan("cost-eff", {"epochs": 1.0, "budget": "uneven"}, target=Target(share=0.5)).stages
    assert [stage.epochs for stage in fewer] == [stage.epochs / usual[0].epochs for stage in usual]
    assert all(stage.rows is None for stage in fewer)
    assert [getattr(stage, "budget", None) for stage in fewer].count("uneven") == 1
