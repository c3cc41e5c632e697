"""Sizes as users write them, and the shapes that keep them."""

import pytest

from lessen.errors import InputError, PlanError
from lessen.model.transformer import parameter_counts
from lessen.records import parse
from lessen.reshaping import with_exits
from lessen.systems import system_of
from lessen.systems.planning import CompressionPlan, plan_for
from lessen.systems.target import Target, narrow_shape, shallow_shape, targets_of
from lessen.width.budget import bytes_of, parameters_of
from lessen.width.removal import without_layers


@pytest.fixture
def model(tiny_classifier):
    return tiny_classifier


def test_what_users_write():
    assert targets_of("1/8", None, None) == (Target(share=0.125),)
    assert targets_of("0.25", None, None) == (Target(share=0.25),)
    assert targets_of("12.5%,.25", None, None) == tuple(Target(share=part) for part in (0.125, 0.25))
    assert targets_of("0.5M", None, None) == (Target(parameters=500_000),)
    assert targets_of("2.5m", None, None) == (Target(parameters=2_500_000),)
    assert targets_of("3000", None, None) == (Target(parameters=3000),)
    assert targets_of(None, "12MB", None) == (Target(bytes=12_000_000),)
    assert targets_of(None, "900kb, 1MB", None) == (Target(bytes=900_000), Target(bytes=1_000_000))
    assert targets_of(None, None, "3,2") == (Target(layers=3), Target(layers=2))
    assert targets_of(None, None, None) == ()


@pytest.mark.parametrize(
    ("target", "text", "folder"),
    [
        (Target(share=1 / 3), "1/3", "1of3"),
        (Target(parameters=2_500_000), "2.5M", "2.5M"),
        (Target(bytes=900_000), "900KB", "900KB"),
        (Target(layers=3), "3 layers", "3-layers"),
        (Target(width=0.5), "width 0.5", "width-0.5"),
    ],
)
def test_targets_have_names(target, text, folder):
    assert (str(target), target.folder) == (text, folder)


@pytest.mark.parametrize(
    "text", ["small", "-3M", "0", "9/8", "1/0", "0/4", "", "nan", "inf", "120%", "1/2,", "%", "1", "100%"]
)
def test_what_is_no_number_of_weights(text):
    with pytest.raises(InputError, match="--params"):
        targets_of(text, None, None)


@pytest.mark.parametrize("text", ["12", "MB", "-1MB", "12 apples"])
def test_what_is_no_file_size(text):
    with pytest.raises(InputError, match="--size"):
        targets_of(None, text, None)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_what_is_no_number_of_layers(text):
    with pytest.raises(InputError, match="--layers"):
        targets_of(None, None, text)


def test_one_kind_of_size_only():
    with pytest.raises(InputError, match="--params and --size: give one of them"):
        targets_of("1/2", "3MB", None)
    with pytest.raises(PlanError, match="exactly one"):
        parse(Target, {"share": 0.5, "bytes": 7}, "target")


def test_shapes_keep_what_was_asked_for(model):
    facts = model.config.facts()
    whole = parameters_of(facts, model.config.form(), 3)
    own = whole - parameter_counts(model.transformer)["exits"]
    assert parameters_of(facts, narrow_shape(model, Target(share=0.6)), 3) <= 0.6 * own
    limit = int(2.5 * whole)
    assert bytes_of(facts, narrow_shape(model, Target(bytes=limit)), 3) <= limit
    half = narrow_shape(model, Target(width=0.5))
    assert [len(layer.heads) for layer in half.layers] == [2, 2, 2]
    with pytest.raises(PlanError, match=r"with one head and one neuron a layer there are [\d,]+ left"):
        narrow_shape(model, Target(share=0.01))


def test_layers_leave_until_the_size_is_kept(model):
    facts, whole = model.config.facts(), parameters_of(model.config.facts(), model.config.form(), 3)
    one = shallow_shape(model, Target(layers=1))
    assert len(one.layers) == 1
    least = parameters_of(facts, one, 3)
    exits = parameter_counts(model.transformer)["exits"]
    middle = (least + (whole - least) / 2 + 1) / (whole - exits)
    two = shallow_shape(model, Target(share=middle))
    assert len(two.layers) == 2
    assert two.exit_layers == (1, 2)
    with pytest.raises(PlanError, match=r"with one layer there are [\d,]+ left"):
        shallow_shape(model, Target(parameters=100))
    with pytest.raises(PlanError, match="7 layers cannot be left"):
        shallow_shape(model, Target(layers=7))


def test_exits_of_whichever_layers_stay_are_within_the_size(model):
    """The first layers may leave, and the exits of those that stay go along."""
    form = model.config.form()
    exits = [
        exit.model_copy(update={"hidden_size": 32, "layer": layer})
        for exit, layer in zip(form.exits, (2, 3), strict=False)
    ]
    late = with_exits(model, exits=exits, labels=["a", "b", "c"])
    facts, state, shape = late.config.facts(), late.transformer.state_dict(), late.config.form()
    left = parameters_of(facts, without_layers(state, shape, {0})[1], 3)
    fits = shallow_shape(late, Target(parameters=left))
    assert len(fits.layers) == 2
    assert len(shallow_shape(late, Target(parameters=left - 1)).layers) == 1


def test_a_width_is_no_number_of_layers(model):
    with pytest.raises(PlanError, match="use the system cost-eff"):
        shallow_shape(model, Target(width=0.5))
    with pytest.raises(PlanError, match="use the system layer-chop"):
        narrow_shape(model, Target(layers=2))


def test_low_rank_leaves_room_for_wider_layers(model):
    plain = narrow_shape(model, Target(share=0.6))
    products = narrow_shape(model, Target(share=0.6), 0.25)
    assert products.layers[0].intermediate_size > plain.layers[0].intermediate_size
    assert products.layers[0].rank.up == 8
    assert products.layers[0].rank.attention_output == 8


def plan(system: str, recipe=None, **choices):
    return plan_for(system_of(system), seed=0, recipe=recipe or {}, model="m", data="d", **choices)


def test_a_size_belongs_to_a_system_that_slims():
    with pytest.raises(InputError, match="leaves every part"):
        plan("early-exit", targets=(Target(share=0.5),))
    with pytest.raises(
        InputError, match=r"--importance: pabee has no such .* belongs to cost-eff, layer-chop"
    ):
        plan("pabee", {"importance": "random"})
    with pytest.raises(InputError, match="--uneven: layer-chop has no such choice"):
        plan("layer-chop", {"budget": "uneven"}, targets=(Target(layers=2),))
    with pytest.raises(InputError, match="--importance abs_weight: layer-chop knows loss, deepest, random"):
        plan("layer-chop", {"importance": "abs_weight"}, targets=(Target(layers=2),))
    with pytest.raises(InputError, match="needs a size"):
        plan("cost-eff")
    with pytest.raises(InputError, match="leave --objective out"):
        plan("cost-eff", {"objective": "last"}, targets=(Target(share=0.5),))


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({"rank": 0.0}, "^--rank 0: should be greater than 0$"),
        ({"rank": 2.0}, "^--rank 2: should be less than 1$"),
        ({"epochs": 0.0}, "^--epochs 0: should be greater than 0$"),
        ({"batch_size": 0}, "^--batch-size 0: should be greater"),
        ({"learning_rate": float("nan")}, "^--learning-rate nan: should be a finite number$"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_the_name_of_its_option(recipe, problem):
    with pytest.raises(InputError, match=problem):
        plan("cost-eff", recipe, targets=(Target(share=0.5),))


def test_so_are_values_of_a_list_and_of_the_plan_itself_but_not_what_was_made_of_one():
    with pytest.raises(InputError, match=r"^--binary-layers 0,1: should be greater than or equal to 1$"):
        plan("beexformer", {"layers": (0, 1)})
    with pytest.raises(InputError, match=r"^--selection-share 0\.9: should be less than 0\.5$"):
        plan("early-exit", selection_share=0.9)
    with pytest.raises(PlanError, match=r"stages\[0\]: epochs: Input should be a finite number"):
        plan("cost-eff", {"epochs": 1e308}, targets=(Target(share=0.5),))


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ([{"teacher": 1}], "stage 1 learns from stage 1, which is not before it"),
        ([{}, {"objective": "features"}], "stage 2: objective features needs a teacher"),
        ([{"parts": "width"}], "such a stage needs targets"),
        ([{"parts": "depth", "budget": "even"}], "unknown field"),
    ],
)
def test_a_plan_whose_stages_do_not_fit_is_refused(stages, problem):
    given = {"model": "m", "data": "d", "system": "cost-eff", "stages": stages, "criteria": ["entropy"]}
    with pytest.raises(PlanError, match=problem):
        parse(CompressionPlan, given, "plan.json")


def test_wide_models_learn_with_smaller_steps():
    small, wide = (
        [
            stage.learning_rate
            for stage in plan("cost-eff", targets=(Target(share=0.5),), hidden_size=size).stages
        ]
        for size in (384, 768)
    )
    assert small == [5e-5] * 6
    assert wide[:3] == [2e-5] * 3, "COST-EFF page, 1.9"
    assert wide[3:] == [3e-5, 1e-4, 5e-5]
    double = plan("cost-eff", {"learning_rate": 4e-5}, targets=(Target(share=0.5),), hidden_size=768).stages
    assert [stage.learning_rate for stage in double] == pytest.approx([2 * rate for rate in wide])


def test_epochs_are_the_first_stages_and_the_others_follow():
    usual = plan("cost-eff", targets=(Target(share=0.5),)).stages
    fewer = plan("cost-eff", {"epochs": 1.0, "budget": "uneven"}, targets=(Target(share=0.5),)).stages
    assert [stage.epochs for stage in fewer] == [stage.epochs / usual[0].epochs for stage in usual]
    assert all(stage.rows is None for stage in fewer)
    assert [getattr(stage, "budget", None) for stage in fewer].count("uneven") == 1
