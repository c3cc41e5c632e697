"""What a report says is what the model does on those rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import rows as reviews

import lessen
from lessen.data.table import Table
from lessen.measure.evaluation import evaluate
from lessen.model.rows import pack
from lessen.plan import FULL, ExitRule, Point
from lessen.promise.outputs import Outputs, Task
from lessen.report.facts import (
    BUILT_IN,
    describe,
    exits_of,
    reliability,
    rows_of,
    shares_left,
    spot_of,
    spread,
)
from lessen.runtime.predict import after_leaving
from lessen.runtime.text import encode
from lessen.tokens.elimination import elimination_for

TASK = Task("single_label_classification", (1, 2, 3))


def table(count: int = 60, *, labelled: bool = True) -> Table:
    made = reviews(count)
    labels = [int(label == "pos") for _, label in made] if labelled else None
    return Table(
        "reviews",
        [text for text, _ in made],
        labels,
        "single_label_classification" if labelled else None,
        ["neg", "pos"] if labelled else [],
    )


def test_points_do_what_evaluate_says(small: Path) -> None:
    model = lessen.load(small)
    rows = table()
    facts = describe("small", small, model, rows_of(model, rows), rows, with_examples=False)
    encoded = encode(model.tokenizer, rows.texts, 64)
    for spot in facts["points"]:
        truth = evaluate(model, encoded, rows.labels, model.points[spot["name"]])
        assert spot["value"] == pytest.approx(truth.value)
        assert spot["mean_layers"] == pytest.approx(truth.mean_layers)
        assert spot["macs_ratio"] == pytest.approx(truth.macs_ratio)
        assert {k: v for k, v in spot["layers"].items() if v} == pytest.approx(
            {layer: count / 60 for layer, count in truth.layers.items()}
        )
    assert [spot["promise"] for spot in facts["points"]] == [None, "certified", "certified"]
    assert len(facts["certificate"]["sentences"]) == 2
    assert facts["certificate"]["warning"] is None
    assert facts["certificate"]["audit"] is None


def test_own_sentences_appear_only_on_request(small: Path) -> None:
    model = lessen.load(small)
    rows = table()
    answers = rows_of(model, rows)
    plain = describe("small", small, model, answers, rows, with_examples=False)
    assert [example["text"] for example in plain["examples"]] == list(BUILT_IN)
    assert not any(text in str(plain) for text in rows.texts)
    asked = describe("small", small, model, answers, rows, with_examples=True)
    assert {example["text"] for example in asked["examples"]} <= set(rows.texts)
    layers = [prediction.layers for prediction in model.predict([e["text"] for e in asked["examples"]])]
    assert [example["layer"] for example in asked["examples"]] == layers


def test_without_labels_agreement_is_reported(small: Path) -> None:
    model = lessen.load(small)
    rows = table(labelled=False)
    facts = describe("small", small, model, rows_of(model, rows), rows, with_examples=True)
    assert facts["metric"] == "agreement"
    assert facts["points"][0]["value"] == 1.0
    assert all(exit["calibration_error"] is None for exit in facts["exits"])
    assert all(example["right"] is None for example in facts["examples"])


def test_reliability_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(500, 3)) * 2, generator.integers(0, 3, 500).astype(float)
    error, bins = reliability(logits, labels, TASK)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected, counts = 0.0, []
    for low in range(10):
        inside = [i for i in range(500) if low / 10 <= shares[i].max() < (low + 1) / 10]
        if inside:
            confidence = np.mean([shares[i].max() for i in inside])
            right = np.mean([shares[i].argmax() == labels[i] for i in inside])
            expected += len(inside) / 500 * abs(confidence - right)
            counts.append(len(inside))
    assert error == pytest.approx(expected)
    assert [each.rows for each in bins] == [count for count in counts if count >= 10]
    saturated, _ = reliability(np.array([[900.0, 0.0]]), np.array([0.0]), TASK)
    assert saturated == pytest.approx(0.0)
    assert reliability(logits[:, :1], labels, Task("regression", (1,)))[0] is None


def test_exits_and_spots_of_made_up_answers() -> None:
    logits = np.zeros((3, 4, 2))
    logits[:, :, 1] = [[3, 3, -3, -3], [3, -3, -3, -3], [3, -3, 3, 3]]
    rows = Outputs(logits, np.array([1.0, 0.0, 1.0, 1.0]), ("0" * 16,) * 4)
    assert [exit.value for exit in exits_of(rows, TASK)] == [0.25, 0.5, 1.0]
    assert [exit.agreement for exit in exits_of(rows, TASK)] == [0.25, 0.5, 1.0]
    at_once = spot_of(Point(name="p", exits=ExitRule(criterion="max_probability", threshold=0.9)), rows, TASK)
    assert (at_once.value, at_once.mean_layers, at_once.layers) == (0.25, 1.0, {1: 1.0, 2: 0.0, 3: 0.0})
    assert spot_of(FULL, rows, TASK).promise is None


def test_steps_timed_are_spread_over_the_path(small: Path) -> None:
    steps = lessen.load(small).config.steps()
    chosen = spread(steps, 3)
    assert 1 <= len(chosen) <= 3
    assert all(step in steps for step in chosen)
    assert spread(steps[:2], 4) == steps[:2]


def test_tokens_that_leave_are_drawn(adjustable: Path) -> None:
    model = lessen.load(adjustable)
    rows = table()
    facts = describe("fast", adjustable, model, rows_of(model, rows), rows, with_examples=True)
    tokens = facts["tokens"]
    assert tokens["trained_at"] == 1.8
    encoded = encode(model.tokenizer, rows.texts, 64)
    assert [spot["name"] for spot in tokens["dial"]] == ["full", *(p.name for p in model.speeds().values())]
    for spot, point in zip(tokens["dial"], [FULL, *model.speeds().values()], strict=True):
        truth = evaluate(model, encoded, rows.labels, point)
        assert spot["value"] == pytest.approx(truth.value)
        assert spot["work"] == pytest.approx(1 / truth.macs_ratio, rel=1e-3)
        assert spot["macs_ratio"] == pytest.approx(truth.macs_ratio)
    assert [spot["speedup"] for spot in tokens["dial"]] == [1.0, *model.speeds()]
    assert tokens["after_leaving"] == after_leaving(model.transformer.shape)
    for example in facts["examples"]:
        assert example["read"][0][0] == "[CLS]"
        assert max(layers for _, layers in example["read"]) == example["layer"]


def test_tokens_left_are_those_that_leave(adjustable: Path) -> None:
    """Counted as the engine takes them away, on rows of the profile's lengths; [CLS] is always among them."""
    model = lessen.load(adjustable)
    lengths = model.config.retention_profile().lengths
    rows = table()
    facts = describe("fast", adjustable, model, rows_of(model, rows), rows, with_examples=False)
    left = facts["tokens"]["left"]
    points = [*model.points.values(), *model.speeds().values()]
    assert set(left) == {point.name for point in points if point.retention}
    ids, layout = pack([torch.arange(length) % 50 for length in lengths])
    for point in model.speeds().values():
        elimination = elimination_for(model.transformer.shape, point.retention, point.token_score)
        here = np.array(lengths, float)
        shares = dict.fromkeys(range(1, 4), here / lengths)
        with torch.no_grad():
            model.transformer(ids, layout, None, None, elimination)
        for layer, kept in elimination.kept:
            for later in range(layer, 4):
                shares[later] = np.array([kept.lengths[kept.original.index(i)] for i in range(len(lengths))])
                shares[later] = shares[later] / lengths
        assert left[point.name] == pytest.approx([shares[layer].mean() for layer in range(1, 4)])


def test_bold_points_keep_cls(adjustable: Path) -> None:
    point = Point(name="bold", retention=(0.5, 1e-6, 1e-6))
    one = (1 / 14 + 1 / 7) / 2
    found = shares_left(lessen.load(adjustable).transformer, point, (14, 7))
    assert found == pytest.approx([(7 / 14 + 4 / 7) / 2, one, one])


def test_without_a_profile_no_tokens_are_drawn(small: Path) -> None:
    model = lessen.load(small)
    rows = table()
    facts = describe("small", small, model, rows_of(model, rows), rows, with_examples=False)
    assert facts["tokens"] is None
    assert facts["examples_at"] == model.point.name
