"""Training learns, leaves frozen what it should, and continues after a stop to the very same weights."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import CharacterTokenizer, task

import lessen
from lessen.builtin import model_folder
from lessen.data.table import Table
from lessen.errors import InputError, Interrupted, LessenError
from lessen.plan import ExitShape, RetentionProfile, dense_shape
from lessen.tokens.passes import Passes, sandwich
from lessen.train import fine_tuning
from lessen.train.fine_tuning import Recipe, StopAtStepEnd, fine_tune
from lessen.train.objectives import OBJECTIVES, objective
from lessen.train.sampler import LengthGrouped

TESTS = Path(__file__).parent.parent


@pytest.fixture
def model(tiny_classifier) -> lessen.LessenForSequenceClassification:
    fresh = lessen.with_exits(tiny_classifier, labels=["no", "yes"])
    fresh.tokenizer = CharacterTokenizer()
    return fresh


SHAPE = dense_shape(3, 4, 64, (ExitShape(layer=3),))
PROFILE = RetentionProfile(base=(0.8, 0.5, 0.3))
RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-2, seed=3)


def test_every_exit_learns(model, tmp_path: Path) -> None:
    model = lessen.with_exits(
        model, labels=["no", "yes"], exits=[ExitShape(layer=i, pool="mean") for i in (1, 2, 3)]
    )
    model.tokenizer = CharacterTokenizer()
    record = fine_tune(model, task(), RECIPE.model_copy(update={"epochs": 20}), tmp_path, quiet=True)
    assert record["steps"] == 160
    assert not record["resumed"]
    from lessen.measure.evaluation import answers_of_every_exit
    from lessen.runtime.text import encode

    table = task()
    answers = answers_of_every_exit(model, encode(model.tokenizer, table.texts, 64))
    for exit, answer in enumerate(answers, start=1):
        assert (answer.argmax(-1) == table.labels).mean() > 0.9, f"exit {exit}"


def test_a_frozen_backbone_does_not_move(model, tmp_path: Path) -> None:
    before = {name: p.clone() for name, p in model.named_parameters()}
    recipe = RECIPE.model_copy(update={"train_backbone": False, "objective": "self_supervised", "epochs": 1})
    unlabelled = Table("toy", task().texts, None, None, [])
    fine_tune(model, unlabelled, recipe, tmp_path, quiet=True)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith(("transformer.exits.1.", "transformer.exits.2.")) for name in moved)


def test_labels_are_asked_for(model, tmp_path: Path) -> None:
    unlabelled = Table("toy", task().texts, None, None, [])
    with pytest.raises(InputError, match="toy has no labels"):
        fine_tune(model, unlabelled, RECIPE, tmp_path, quiet=True)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_training(model, name: str, value: float, tmp_path: Path) -> None:
    """Before a step is made of it: the other weights are as they were."""
    model.transformer.layers[2].attention.output.bias.data[0] = value
    before = {key: p.clone() for key, p in model.named_parameters()}
    recipe = RECIPE.model_copy(update={"objective": name, "epochs": 1})
    with pytest.raises(LessenError, match="the loss of step 1 is nan, not a finite number"):
        fine_tune(model, task(), recipe, tmp_path, quiet=True)
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters() if p.isfinite().all())
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_last_step_that_ruins_the_weights_is_no_end(model, tmp_path: Path) -> None:
    one_step = RECIPE.model_copy(update={"epochs": 1, "batch_size": 64, "warmup": 0.0, "learning_rate": 1e39})
    with pytest.raises(LessenError, match="step 1, the last, left weights that are no finite numbers"):
        fine_tune(model, task(), one_step, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("number", "passes"),
    [(signal.SIGINT, None), (signal.SIGTERM, None), (signal.SIGTERM, sandwich(PROFILE, 1.0, SHAPE))],
    ids=["SIGINT", "SIGTERM", "sandwich"],
)
def test_stopped_and_resumed_equals_uninterrupted(
    model, tmp_path: Path, monkeypatch, number: int, passes: Passes | None
) -> None:
    """With tokens leaving at random rates too: the same rates are drawn again."""
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def train(folder: Path):
        model.load_state_dict(start)
        torch.manual_seed(0)
        return fine_tune(model, task(), RECIPE, folder, passes=passes, quiet=True)

    train(tmp_path / "whole")
    expected = {name: value.clone() for name, value in model.state_dict().items()}

    steps = {"left": 13}
    original = StopAtStepEnd.on_step_end

    def signal_once(self, *args, **kwargs):
        steps["left"] -= 1
        if steps["left"] == 0:
            os.kill(os.getpid(), number)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(StopAtStepEnd, "on_step_end", signal_once)
    with pytest.raises(Interrupted, match="stopped after step 13"):
        train(tmp_path / "cut")
    record = train(tmp_path / "cut")
    assert record["resumed"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from train.test_fine_tuning import CharacterTokenizer, RECIPE, StopAtStepEnd, fine_tuning, task
import lessen
model = lessen.load({start!r})
model.tokenizer = CharacterTokenizer()
fine_tuning.STEPS_BETWEEN_CHECKPOINTS = 5
def kill_at(self, args, state, control, **rest):
    if state.global_step == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return control
StopAtStepEnd.on_step_end = kill_at
torch.manual_seed(0)
fine_tuning.fine_tune(model, task(), RECIPE, Path({folder!r}), quiet=True)
"""


def test_killed_and_resumed_equals_uninterrupted(model, tmp_path: Path, monkeypatch) -> None:
    """SIGKILL between two checkpoints, in a process of its own."""
    model.save_pretrained(tmp_path / "start")
    folder = tmp_path / "cut"
    script = KILLED.format(tests=str(TESTS), start=str(tmp_path / "start"), folder=str(folder))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert [place.name for place in folder.iterdir()] == ["checkpoint-10"]
    monkeypatch.setattr(fine_tuning, "STEPS_BETWEEN_CHECKPOINTS", 5)
    states = []
    for place in (tmp_path / "whole", folder):
        again = lessen.load(tmp_path / "start")
        again.tokenizer = CharacterTokenizer()
        torch.manual_seed(0)
        record = fine_tune(again, task(), RECIPE, place, quiet=True)
        states.append(again.state_dict())
    assert record["resumed"]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_half_written_checkpoint_is_passed_over(model, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fine_tune(model, task(), RECIPE.model_copy(update={"epochs": 1}), tmp_path, quiet=True)
    whole = next(tmp_path.glob("checkpoint-*"))
    torn = tmp_path / "checkpoint-999"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    record = fine_tune(model, task(), RECIPE.model_copy(update={"epochs": 2}), tmp_path, quiet=True)
    assert record["resumed"]
    assert record["steps"] == 16
    assert not torn.exists()
    assert whole.name == "checkpoint-8"


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"])
@pytest.mark.parametrize("how", ["cut off", "changed", "gone"])
def test_a_damaged_checkpoint_is_passed_over(name: str, how: str, model, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 1})
    fine_tune(model, task(), recipe, tmp_path, quiet=True)
    place = next(tmp_path.glob("checkpoint-*")) / name
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 255
    if how == "gone":
        place.unlink()
    else:
        place.write_bytes(content[: len(content) // 2] if how == "cut off" else content)
    record = fine_tune(model, task(), recipe, tmp_path, quiet=True)
    weights_changed = (name, how) == ("model.safetensors", "changed")  # nothing tells numbers from others
    assert record["resumed"] == (weights_changed or (name, how) == ("rng_state.pth", "gone"))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
@pytest.mark.parametrize(
    "problem", ["single_label_classification", "multi_label_classification", "regression"]
)
def test_objectives_give_finite_gradients(name: str, problem: str) -> None:
    torch.manual_seed(0)
    width = 1 if problem == "regression" else 3
    answers = [torch.randn(4, width, requires_grad=True) for _ in range(3)]
    labels = {
        "single_label_classification": torch.tensor([0, 1, 2, 0]),
        "multi_label_classification": torch.tensor([[1, 0, 1]] * 4),
        "regression": torch.tensor([0.5, 1.0, -2.0, 3.0]),
    }[problem]
    loss = objective(name, problem)(answers, labels)
    loss.backward()
    assert loss.isfinite()
    assert any(a.grad is not None and a.grad.abs().sum() > 0 for a in answers)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_model_is_as_it_was_but_for_its_weights(model, tmp_path: Path, interrupted: bool) -> None:
    """How it is trained is the training's business, also where that was stopped."""
    recipe = RECIPE.model_copy(
        update={"train_backbone": False, "objective": "self_supervised", "equilibrium": True, "epochs": 1}
    )
    inside: dict[str, object] = {}

    def look(share: float) -> None:
        inside.update(state())
        if interrupted:
            raise KeyboardInterrupt

    def state() -> dict[str, object]:
        names = ("objective", "equilibrium", "passes", "teaching")
        layer = model.transformer.layers[0]
        dropout = (layer.attention.dropout, model.transformer.embeddings.word_dropout)
        free = all(parameter.requires_grad for parameter in model.parameters())
        return {name: getattr(model, name) for name in names} | {"dropout": dropout, "free": free}

    model.transformer.layers[0].attention.dropout = 0.3
    before = state()
    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        fine_tune(model, task(), recipe, tmp_path, told=look, quiet=True)
    assert state() == before
    assert not model.training
    changed = {name for name in before if inside[name] != before[name]}
    assert changed == {"objective", "equilibrium", "dropout", "free"}


def test_unknown_objective() -> None:
    with pytest.raises(InputError, match="unknown objective 'sum'"):
        objective("sum", "regression")


def test_minilm_trains_a_step_in_the_precision_that_pays(tmp_path: Path) -> None:
    assert model_folder("minilm-l6").is_dir()
    model = lessen.with_exits(lessen.load("builtin:minilm-l6"), labels=["no", "yes"])
    record = fine_tune(model, task(16), RECIPE.model_copy(update={"epochs": 1}), tmp_path, quiet=True)
    assert record["steps"] == 2
    assert record["precision"] in ("float32", "bfloat16 autocast")


def test_the_order_of_an_epoch_is_fixed_and_complete() -> None:
    lengths = [1 + i % 17 for i in range(203)]
    sampler = LengthGrouped(lengths, 8, seed=1)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first == again
    assert first != second
    assert sorted(first) == sorted(second) == list(range(203))
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batched(first, 8)]
    assert sum(spread) / len(spread) < 4


def batched(rows: list[int], size: int) -> list[list[int]]:
    return [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]


def test_exits_on_a_frozen_model_learn_from_what_it_will_answer(model, tmp_path: Path) -> None:
    """Dropout would make the teacher another model at every step."""
    seen: list[torch.Tensor] = []
    last = model.transformer.exits["3"]
    last.register_forward_hook(lambda module, given, answer: seen.append(answer.detach().clone()))
    recipe = RECIPE.model_copy(
        update={"objective": "self_supervised", "train_backbone": False, "epochs": 3, "batch_size": 64}
    )
    assert model.transformer.embeddings.dropout.p > 0
    table = Table("toy", ["one text"] * 8, None, None, [])
    fine_tune(model, table, recipe, tmp_path, quiet=True)
    assert len(seen) == 3
    assert all(torch.equal(seen[0], other) for other in seen[1:])
    assert model.transformer.embeddings.dropout.p > 0
    assert last.dropout.p > 0
