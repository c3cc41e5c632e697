"""Training with tokens leaving: one pass at a speed-up, or four that span a range."""

import pytest
import torch
from conftest import lively, padded, ragged_ids

from lessen.plan import ExitShape, RetentionProfile, dense_shape
from lessen.tokens.passes import all_stay, at, drawn, sandwich
from lessen.tokens.profile import retention_of

SHAPE = dense_shape(3, 4, 64, (ExitShape(layer=3, pool="mean"),))
PROFILE = RetentionProfile(base=(0.8, 0.5, 0.3), lengths=(20,))


def test_one_pass_at_the_retention_of_the_profile() -> None:
    passes = at(PROFILE, 1.0, SHAPE)
    (one,) = passes()
    assert one.retention == retention_of(PROFILE, 1.0)
    assert one.name == "mean"
    assert passes()[0] is not one


def test_the_sandwich_spans_everything_from_all_tokens_to_the_boldest() -> None:
    torch.manual_seed(0)
    steps = [sandwich(PROFILE, 2.0, SHAPE)() for _ in range(20)]
    for first, bold, *others in steps:
        assert first is None
        assert bold.retention == retention_of(PROFILE, 2.0)
        assert len(others) == 2
        for each in others:
            assert all(b <= r <= 1 for b, r in zip(bold.retention, each.retention, strict=True))
    assert len({each.retention for _, _, *others in steps for each in others}) == 40


def test_each_step_draws_a_rate_below_the_boldest() -> None:
    torch.manual_seed(0)
    steps = [drawn(PROFILE, 2.0, SHAPE)() for _ in range(50)]
    assert all(len(passes) == 1 for passes in steps)
    last = [passes[0].retention[-1] for passes in steps]
    assert len(set(last)) == 50
    assert retention_of(PROFILE, 2.0)[-1] < min(last) < 0.15
    assert 0.9 < max(last) < 1
    assert sorted(last)[25] > retention_of(PROFILE, 1.0)[-1], "most steps leave more than half of the range"


def test_random_selection_trains_on_other_tokens_in_each_step() -> None:
    profile = PROFILE.model_copy(update={"score": "random"})
    seeds = {at(profile, 1.0, SHAPE)()[0].seed for _ in range(10)}
    assert len(seeds) > 5


@pytest.mark.parametrize("make", [at, drawn, sandwich])
def test_a_training_step_reaches_every_parameter(tiny_classifier, make) -> None:
    model = lively(tiny_classifier).train()
    model.passes = make(PROFILE, 1.0, SHAPE)
    ids, mask = padded(ragged_ids([12, 5, 1, 30]), 0)
    result = model(ids, mask, labels=torch.tensor([0, 1, 2, 0]))
    result.loss.backward()
    for name, parameter in model.named_parameters():
        if "position" in name or "segment" in name:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert torch.isfinite(result.loss)


def test_the_sandwichs_loss_is_the_task_loss_and_the_distance_of_the_others(tiny_classifier) -> None:
    model = lively(tiny_classifier).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.transformer.layers:
        layer.attention.dropout = 0.0
    ids, mask = padded(ragged_ids([12, 5]), 0)
    labels = torch.tensor([0, 1])
    model.passes = all_stay
    plain = model(ids, mask, labels=labels).loss
    model.passes = lambda: [None, None]
    torch.testing.assert_close(model(ids, mask, labels=labels).loss - plain, _spread(model, ids, mask))


def _spread(model, ids, mask) -> torch.Tensor:
    """With nothing gone, the imitation loss is the weighted distance of every exit from the last."""
    from lessen.depth.exits import every_exit
    from lessen.depth.losses import imitation

    ragged, rows, segments, _ = model._ragged(ids, mask, None)
    answers = every_exit(model.transformer, ragged, rows, segments)
    return imitation(answers, answers[-1], "single_label_classification")
