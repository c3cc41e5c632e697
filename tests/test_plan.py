"""Shape and Point: what they accept, what they refuse and in which words, and that they survive JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lessen.errors import PlanError
from lessen.plan import ExitRule, ExitShape, LayerShape, Point, Shape, dense_shape
from lessen.records import parse

SHAPE = dense_shape(3, 4, 64, exits=tuple(ExitShape(layer=i) for i in (1, 2, 3)))


def test_round_trip_through_json() -> None:
    point = Point(
        name="drop-1%",
        exits=ExitRule(criterion="entropy", thresholds={1: 0.2, 2: 0.3}),
        retention=(1.0, 0.7, 0.4),
        precision="int8",
    )
    for value in (SHAPE, point):
        again = parse(type(value), json.loads(value.model_dump_json()), "here")
        assert again == value


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(st.integers(0, 11), max_size=12, unique=True).map(sorted),
    st.sampled_from([1, 8, 16, 32]),
)
def test_uneven_and_dropped_layers_round_trip(layers: list[int], heads: list[int], bits: int) -> None:
    shape = Shape(
        layers=tuple(
            LayerShape(layer=i, heads=tuple(heads), intermediate_size=7 * i, bits=bits) for i in layers
        ),
        embedding_rank=9,
    )
    assert parse(Shape, json.loads(shape.model_dump_json()), "here") == shape


REFUSED = [
    ({"name": "x", "exit": None}, "exit: unknown field, did you mean 'exits'?"),
    ({"name": "x", "version": 2}, "written by a newer lessen"),
    ({"name": ""}, "name:"),
    ({"name": "x", "retention": [0.5, 0.6]}, "must not increase"),
    ({"name": "x", "retention": [0.0]}, "retention[0]: "),
    ({"name": "x", "exits": {"criterion": "entropy"}}, "exits: give either threshold"),
    ({"name": "x", "exits": {"criterion": "entropy", "threshold": float("nan")}}, "exits.threshold"),
    ({"name": "x", "precision": "int3"}, "precision: "),
    ([], "valid dictionary"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_malformed_points_get_one_line_naming_the_field(value: object, message: str) -> None:
    with pytest.raises(PlanError) as error:
        parse(Point, value, "small/config.json: points[0]")
    said = str(error.value)
    assert message in said
    assert said.startswith("small/config.json: points[0]")
    assert "\n" not in said


def changed(**changes: object) -> dict:
    return json.loads(SHAPE.model_dump_json()) | changes


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (changed(layers=[]), "layers: "),
        (changed(layers=changed()["layers"][::-1]), "ascending order of their original number"),
        (changed(exits=changed()["exits"][:2]), "the last exit must sit after the last layer (3), not 2"),
        (changed(exits=changed()["exits"][::-1]), "ascending order of layer"),
        (changed(layers=[{**changed()["layers"][0], "heads": [1, 1]}]), "layers[0]: heads must be ascending"),
        (changed(layers=[{**changed()["layers"][0], "bits": 2}]), "layers[0].bits: "),
        (changed(depth=3), "depth: unknown field"),
    ],
)
def test_malformed_shapes_are_refused(value: object, message: str) -> None:
    with pytest.raises(PlanError) as error:
        parse(Shape, value, "here")
    assert message in str(error.value)


def test_thresholds_by_layer_and_first_layer() -> None:
    rule = ExitRule(criterion="entropy", thresholds={2: 0.5}, first_layer=2)
    assert [rule.at(layer) for layer in (1, 2, 3)] == [None, 0.5, None]
    assert ExitRule(criterion="entropy", threshold=0.1, first_layer=2).at(1) is None


def test_schemas_name_every_field() -> None:
    for kind in (Shape, Point):
        assert set(kind.model_json_schema()["properties"]) == set(kind.model_fields)
