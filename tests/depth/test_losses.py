"""Losses over exits, gradient equilibrium (COST-EFF page, 1.12: 4), and training without labels."""

import pytest
import torch
from conftest import padded, ragged_ids

import lessen
from lessen.depth.exits import every_exit
from lessen.depth.losses import exit_weights, self_distillation, task_loss, weighted
from lessen.model.rows import pack
from lessen.reshaping import with_exits

KINDS = ["single_label_classification", "multi_label_classification", "regression"]


@pytest.fixture
def model(tiny_classifier: lessen.LessenForSequenceClassification) -> lessen.LessenForSequenceClassification:
    return tiny_classifier.double()


def answers_of(model, **options) -> list[torch.Tensor]:
    return every_exit(model.transformer, *pack(ragged_ids([5, 9, 2, 9])), **options)


LABELS = torch.tensor([0, 2, 1, 0])


@pytest.mark.parametrize("count", [1, 2, 6])
def test_weights_sum_to_one_except_for_the_plain_sum(count: int) -> None:
    """T20."""
    for how in ("uniform", "linear", "last"):
        assert sum(exit_weights(count, how)) == pytest.approx(1.0)
    assert sum(exit_weights(count, "sum")) == count
    assert exit_weights(1, "linear") == exit_weights(1, "uniform") == [1.0]


def test_soft_routing_is_the_mean_of_the_cross_entropies(model) -> None:
    """T20 of BEExformer's page."""
    answers = answers_of(model)
    loss = task_loss("single_label_classification")
    mean = torch.stack([loss(answer, LABELS) for answer in answers]).mean()
    assert torch.allclose(weighted(answers, LABELS, loss, "uniform"), mean)


@pytest.mark.parametrize("how", ["sum", "uniform", "linear", "last"])
def test_the_first_layer_learns_under_every_weighting(model, how: str) -> None:
    """T20."""
    weighted(answers_of(model), LABELS, task_loss("single_label_classification"), how).backward()
    assert model.transformer.layers[0].attention.qkv.weight.grad.abs().sum() > 0


def test_a_head_learns_from_its_own_exit_only(model) -> None:
    """T20."""
    answers = answers_of(model)
    task_loss("single_label_classification")(answers[1], LABELS).backward()
    heads = model.transformer.exits
    assert heads["2"].output.weight.grad.abs().sum() > 0
    assert heads["1"].output.weight.grad is None
    assert heads["3"].output.weight.grad is None


def gradients(model, answers: list[torch.Tensor], chosen: list[int]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = task_loss("single_label_classification")
    torch.stack([loss(answers[i], LABELS) for i in chosen]).sum().backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def test_4_gradient_equilibrium_is_the_mean_over_the_exits_above(model) -> None:
    count = len(model.transformer.layers)
    each = [gradients(model, answers_of(model), [i]) for i in range(count)]
    found = gradients(model, answers_of(model, equilibrium=True), list(range(count)))
    for name in found:
        if ".exits." in name:
            expected = sum(g[name] for g in each)
        elif ".layers." in name:
            layer = int(name.split(".layers.")[1].split(".")[0])
            expected = sum(g[name] for g in each[layer:]) / (count - layer)
        else:
            expected = sum(g[name] for g in each) / count
        assert torch.allclose(found[name], expected, atol=1e-12), name


def test_4_what_reads_states_rides_the_same_path(model) -> None:
    """Losses of features, each layer's state as if it were an exit (page, 1.4)."""
    count = len(model.transformer.layers)

    def of_states(equilibrium: bool, chosen: list[int]) -> dict[str, torch.Tensor]:
        states: list[torch.Tensor] = []
        ids, rows = pack(ragged_ids([5, 9, 2, 9]))
        every_exit(model.transformer, ids, rows, equilibrium=equilibrium, states=states)
        model.zero_grad()
        torch.stack([states[place + 1].square().cos().sum() for place in chosen]).sum().backward()
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in model.named_parameters()
        }

    each = [of_states(False, [place]) for place in range(count)]
    found = of_states(True, list(range(count)))
    for name in found:
        if ".layers." in name:
            layer = int(name.split(".layers.")[1].split(".")[0])
            expected = sum(g[name] for g in each[layer:]) / (count - layer)
            assert torch.allclose(found[name], expected, atol=1e-9), name


def test_4_states_of_layers_without_an_exit_count_as_much(model) -> None:
    """Exits after layers 2 and 3: what layer 1 gets of each layer's state is one half, of layer 3 all."""
    sparse = with_exits(model, exits=[model.config.form().exits[0].model_copy(update={"layer": 2})])
    sparse = sparse.double()

    def of_states(equilibrium: bool, place: int) -> torch.Tensor:
        states: list[torch.Tensor] = []
        ids, rows = pack(ragged_ids([5, 9, 2, 9]))
        every_exit(sparse.transformer, ids, rows, equilibrium=equilibrium, states=states)
        sparse.zero_grad()
        states[place].square().cos().sum().backward()
        return sparse.transformer.layers[0].feed_forward.up.weight.grad.clone()

    assert sparse.transformer.shape.exit_layers == (2, 3)
    for place in (1, 2, 3):
        assert torch.allclose(of_states(True, place), of_states(False, place) / 2, atol=1e-12), place


def test_4_with_one_exit_live_equilibrium_shrinks_what_shallow_layers_get(model) -> None:
    plain = gradients(model, answers_of(model), [2])
    even = gradients(model, answers_of(model, equilibrium=True), [2])
    for name in plain:
        if ".layers." in name:
            layer = int(name.split(".layers.")[1].split(".")[0])
            assert torch.allclose(even[name], plain[name] / (3 - layer), atol=1e-12), name


def test_4_equilibrium_is_for_training_only(model) -> None:
    ids, mask = padded(ragged_ids([5, 9, 2, 9]), 0)
    found = []
    for equilibrium in (False, True):
        model.equilibrium = equilibrium
        model.zero_grad()
        model.eval()(input_ids=ids, attention_mask=mask, labels=LABELS).loss.backward()
        found.append(model.transformer.layers[0].attention.qkv.weight.grad.clone())
    assert torch.equal(*found)
    assert found[0].abs().sum() > 0


def test_4_gradient_equilibrium_does_not_change_the_answers(model) -> None:
    for plain, even in zip(answers_of(model), answers_of(model, equilibrium=True), strict=True):
        assert torch.equal(plain, even)


@pytest.mark.parametrize("problem_type", KINDS)
def test_self_distillation_is_zero_for_a_perfect_copy_and_positive_else(problem_type: str) -> None:
    torch.manual_seed(0)
    width = 1 if problem_type == "regression" else 3
    last = torch.randn(6, width).double()
    assert self_distillation([last.clone(), last], problem_type).abs() < 1e-12
    assert self_distillation([last + torch.randn(6, width), last], problem_type) > 0


def test_self_distillation_does_not_move_the_teacher(model) -> None:
    self_distillation(answers_of(model)).backward()
    assert model.transformer.exits["3"].output.weight.grad is None
    assert model.transformer.exits["1"].output.weight.grad.abs().sum() > 0
