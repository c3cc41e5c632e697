"""The running form equals the training form, row by row and in any batch."""

import math

import pytest
import torch
from conftest import ragged_ids
from hypothesis import given, settings
from hypothesis import strategies as st

from lessen.depth.criteria import CRITERIA, entropy, exit_of_every_row
from lessen.depth.exits import every_exit
from lessen.model.rows import pack
from lessen.plan import ExitRule, Point
from lessen.reshaping import with_shape
from lessen.runtime.engine import run
from lessen.width.removal import Units, narrowed

LAYERS = [1, 2, 3]
CLASSIFICATION = sorted(name for name, c in CRITERIA.items() if c.task == "classification")


def middling_rule(name: str, answers: list[torch.Tensor]) -> ExitRule:
    """A rule of this criterion under which some rows leave early and some do not."""
    from lessen.depth.criteria import scores_at_every_exit

    probe = ExitRule(criterion=name, threshold=0.0)
    scores = scores_at_every_exit(CRITERIA[name], probe, answers)[:-1]
    return ExitRule(criterion=name, threshold=float(scores[scores.isfinite()].median()))


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_rows_leave_where_the_slow_form_says_and_with_the_same_logits(tiny_classifier, name: str) -> None:
    model = tiny_classifier.transformer
    ids, rows = pack(ragged_ids([9, 3, 30, 3, 1, 64, 17, 2]))
    with torch.no_grad():
        answers = every_exit(model, ids, rows)
    rule = middling_rule(name, answers)
    expected = exit_of_every_row(rule, LAYERS, answers)
    found = run(model, ids, rows, point=Point(name="test", exits=rule))
    assert (found.layers - 1).tolist() == expected.tolist()
    for row, exit in enumerate(expected.tolist()):
        assert torch.allclose(
            found.logits[row], answers[exit][row], atol=1e-5 * float(answers[exit].abs().max())
        )


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=12), seed=st.integers(0, 1000))
def test_a_batch_agrees_with_its_rows_one_by_one(lengths: list[int], seed: int) -> None:
    model = shared_model()
    sequences = ragged_ids(lengths, seed)
    point = Point(name="test", exits=ExitRule(criterion="margin", threshold=0.4))
    together = run(model, *pack(sequences), point=point)
    scale = float(together.logits.abs().max())
    for row, sequence in enumerate(sequences):
        alone = run(model, *pack([sequence]), point=point)
        assert alone.layers.item() == together.layers[row].item()
        assert (alone.logits[0] - together.logits[row]).abs().max() <= 1e-5 * scale


def test_11_rows_leave_a_slim_model_alone_as_in_a_batch(tiny_classifier) -> None:
    """COST-EFF page, 1.12: 11, at entropies below, among and above those there are."""
    kept = [Units((1, 3), tuple(range(0, 64, 3))), Units((2,), (4, 5)), Units((), tuple(range(9)))]
    facts, form = tiny_classifier.config.facts(), tiny_classifier.config.form()
    state, shape = narrowed(facts, tiny_classifier.double().transformer.state_dict(), form, kept)
    model = with_shape(tiny_classifier, shape, state).transformer
    sequences = ragged_ids([9, 3, 30, 3, 1, 17])
    with torch.no_grad():
        found = torch.stack([entropy(answer) for answer in every_exit(model, *pack(sequences))[:-1]])
    middle = float(found.median()) + 1e-6  # beside the median, which rounding would decide about
    means = []
    for threshold in (0.0, middle, math.log(3) + 0.01):
        point = Point(name="test", exits=ExitRule(criterion="entropy", threshold=threshold))
        together = run(model, *pack(sequences), point=point)
        for row, sequence in enumerate(sequences):
            alone = run(model, *pack([sequence]), point=point)
            assert alone.layers.item() == together.layers[row].item()
            torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-10, atol=1e-12)
        means.append(float(together.layers.double().mean()))
    assert means[0] == 3
    assert 1 < means[1] < 3
    assert means[2] == 1


_SHARED: list = []


def shared_model():
    """One tiny model for all examples of a property test, in double precision so that ties cannot flip."""
    if not _SHARED:
        import tempfile

        from conftest import tiny_hugging_face

        import lessen

        with tempfile.TemporaryDirectory() as folder:
            tiny_hugging_face("bert").save_pretrained(folder)
            model = lessen.with_exits(lessen.load(folder)).double()
        _SHARED.append(model.transformer)
    return _SHARED[0]


def test_the_full_point_is_bit_equal_to_the_plain_stack(tiny_classifier) -> None:
    model = tiny_classifier.transformer
    ids, rows = pack(ragged_ids([4, 4, 20, 7]))
    with torch.inference_mode():
        hidden, left = model(ids, rows)
        expected = left.restore(model.exits["3"](hidden, left))
    found = run(model, ids, rows)
    assert torch.equal(found.logits, expected)
    assert found.layers.tolist() == [3, 3, 3, 3]


def test_heads_are_not_called_where_no_row_may_leave(tiny_classifier) -> None:
    model = tiny_classifier.transformer
    calls: list[str] = []
    for place, head in model.exits.items():
        head.register_forward_hook(lambda *_, place=place: calls.append(place))
    batch = pack(ragged_ids([4, 9]))
    run(model, *batch)
    assert calls == ["3"]
    calls.clear()
    run(model, *batch, point=Point(name="t", exits=ExitRule(criterion="entropy", thresholds={2: -1.0})))
    assert calls == ["2", "3"]


def test_all_rows_may_leave_at_once(tiny_classifier) -> None:
    model = tiny_classifier.transformer
    blocks: list[int] = []
    model.layers[1].register_forward_hook(lambda *_: blocks.append(1))
    point = Point(name="t", exits=ExitRule(criterion="entropy", threshold=9.0))
    found = run(model, *pack(ragged_ids([4, 9, 1])), point=point)
    assert found.layers.tolist() == [1, 1, 1]
    assert blocks == []


def test_no_threshold_at_a_layer_means_no_exit_there(tiny_classifier) -> None:
    point = Point(name="t", exits=ExitRule(criterion="entropy", threshold=9.0, first_layer=2))
    found = run(tiny_classifier.transformer, *pack(ragged_ids([4, 9])), point=point)
    assert found.layers.tolist() == [2, 2]


def test_bfloat16_answers_are_close_and_float32(tiny_classifier) -> None:
    batch = pack(ragged_ids([30, 9, 9, 2]))
    full = run(tiny_classifier.transformer, *batch).logits
    half = run(tiny_classifier.to(torch.bfloat16).transformer, *batch).logits
    assert half.dtype == torch.float32
    assert (half - full).abs().max() <= 0.1 * full.abs().max()


def test_changed_weights_are_used_at_once(tiny_classifier) -> None:
    model = tiny_classifier.transformer
    batch = pack(ragged_ids([30, 9, 9, 2]))
    before = run(model, *batch).logits
    with torch.no_grad():
        model.layers[0].feed_forward.up.weight.mul_(1.5)
    changed = run(model, *batch).logits
    assert not torch.allclose(before, changed)
    with torch.no_grad():
        model.layers[0].feed_forward.up.weight.div_(1.5)
    assert torch.allclose(run(model, *batch).logits, before, atol=1e-5)
