"""Learning from a teacher: nothing to learn from oneself, matched layers, and a pupil that gets nearer.

Numbers are those of the property tests of the COST-EFF page, 1.12.
"""

from pathlib import Path

import pytest
import torch
from conftest import CharacterTokenizer, lively, padded, ragged_ids, task, tiny_hugging_face

from lessen.depth.exits import every_exit
from lessen.errors import InputError
from lessen.loading import load
from lessen.model.rows import pack
from lessen.plan import ExitShape
from lessen.reshaping import with_exits, with_shape
from lessen.runtime.text import collate, encode
from lessen.tokens.passes import all_stay
from lessen.train.fine_tuning import Recipe, fine_tune
from lessen.train.teaching import DISTILLATIONS, Teacher, features, predictions, scoring
from lessen.width.removal import Units, narrowed, without_layers

LENGTHS = [2, 5, 5, 9]
LABELS = torch.tensor([0, 1, 2, 1])


@pytest.fixture
def model(tmp_path: Path):
    tiny_hugging_face("bert").save_pretrained(tmp_path / "bert")
    return lively(with_exits(load(tmp_path / "bert"), exits=None).double())


def chopped(model, dropped):
    state, shape = without_layers(model.transformer.state_dict(), model.config.form(), dropped)
    return with_shape(model, shape, state)


def lesson(pupil, teacher):
    ids, rows = pack(ragged_ids(LENGTHS))
    states = []
    answers = every_exit(pupil.transformer, ids, rows, states=states)
    return Teacher(teacher, pupil.config.form()).matched(ids, rows, None, answers, states, LABELS)


def test_8_13_from_itself_there_is_nothing_to_learn(model):
    for name in ("features", "predictions", "features_and_predictions"):
        loss = DISTILLATIONS[name](lesson(model, model))
        loss.backward()
        assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
        assert all(p.grad is None or p.grad.abs().max() < 1e-10 for p in model.parameters())
        model.zero_grad()
    hard = torch.stack(
        [torch.nn.functional.cross_entropy(a, LABELS) for a in lesson(model, model).answers]
    ).sum()
    torch.testing.assert_close(scoring(lesson(model, model)), 0.1 * hard)


def soft(answer, target):
    """Cross-entropy from a teacher's answer, less the least it can be, which no pupil changes."""
    shares = target.softmax(-1)
    return float((shares * (target.log_softmax(-1) - answer.log_softmax(-1))).sum())


def of_the_page(pupil, teacher):
    """Its J_r, J_p, J_TA and J_tay (1.3), each row run alone."""
    sequences = ragged_ids(LENGTHS)
    hard = own = last = states = squares = 0.0
    for sequence, label in zip(sequences, LABELS, strict=True):
        ids, row = pack([sequence])
        mine, theirs = [], []
        answers = every_exit(pupil.transformer, ids, row, states=mine)
        taught = every_exit(teacher.transformer, ids, row, states=theirs)
        for answer, target in zip(answers, taught, strict=True):
            hard -= float(answer.log_softmax(-1)[0, label]) / len(sequences)
            own += soft(answer, target) / len(sequences)
            last += soft(answer, taught[-1]) / len(sequences)
        for a, b in zip(mine, theirs, strict=True):
            states += float((a - b).square().mean()) / len(sequences)
            squares += float((a - b).square().mean(1).sum())
    return {
        "features": states,
        "predictions": own,
        "features_and_predictions": own + states,
        "assistant": (last + hard) / 2,
        "scoring": 0.9 * own + 0.1 * hard + squares / sum(LENGTHS),
    }


@pytest.mark.parametrize("name", [*DISTILLATIONS, "scoring"])
def test_losses_are_those_of_the_page(model, name):
    """But that `scoring` takes the mean of states over tokens alone: here no place is without one."""
    pupil = chopped(model, set())
    with torch.no_grad():
        for parameter in pupil.parameters():
            parameter += 0.05 * torch.sin(torch.arange(parameter.numel())).view(parameter.shape)
        found = {**DISTILLATIONS, "scoring": scoring}[name](lesson(pupil, model))
        expected = of_the_page(pupil, model)[name]
    assert float(found) == pytest.approx(expected, rel=1e-5)  # states are compared in float32


def test_13_padding_changes_no_lesson(model):
    pupil = chopped(model, set())
    with torch.no_grad():
        pupil.transformer.layers[0].attention.output.weight *= 0.5
    for part in pupil.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    for block in pupil.transformer.layers:
        block.attention.dropout = 0.0
    teacher = Teacher(model, pupil.config.form())
    pupil.teaching = lambda *given: features(teacher.matched(*given))
    ids, mask = padded(ragged_ids(LENGTHS), 0)
    found = []
    for more in (0, 7):
        wide, real = (torch.nn.functional.pad(each, (0, more)) for each in (ids, mask))
        found.append(pupil.train()(input_ids=wide, attention_mask=real, labels=LABELS).loss.detach())
    assert torch.equal(*found)
    assert float(found[0]) > 0


def test_layers_are_matched_by_their_number(model):
    pupil = chopped(model, {1})
    teacher = Teacher(model, pupil.config.form())
    assert teacher.layers == [0, 1, 3]
    assert teacher.exits == [0, 2]
    found = lesson(pupil, model)
    torch.testing.assert_close(found.states[1], found.shown[1])
    assert float(predictions(found).detach()) > 0


def test_a_teacher_without_the_layers_or_exits_is_refused(model):
    with pytest.raises(InputError, match="lacks layer 1"):
        Teacher(chopped(model, {1}), model.config.form())
    few = with_exits(model, exits=[ExitShape(layer=3)])
    with pytest.raises(InputError, match="no exit after its layer 0"):
        Teacher(few, model.config.form())


@pytest.mark.parametrize("name", sorted(DISTILLATIONS))
def test_a_slim_pupil_gets_nearer_and_the_teacher_stays(model, tmp_path: Path, name):
    teacher = with_exits(model.float(), labels=["no", "yes"])
    teacher.tokenizer = CharacterTokenizer()
    fine_tune(teacher, task(), Recipe(epochs=4, batch_size=8, learning_rate=1e-3), tmp_path / "t", quiet=True)
    kept = [Units((0, 2), tuple(range(0, 64, 2)))] * 3
    state, shape = narrowed(
        teacher.config.facts(), teacher.transformer.state_dict(), teacher.config.form(), kept
    )
    pupil = with_shape(teacher, shape, state)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    ids, rows, _ = collate(encode(teacher.tokenizer, task().texts, 64), torch.device("cpu"))
    labels = torch.tensor(task().labels)

    def distance() -> float:
        states: list[torch.Tensor] = []
        with torch.no_grad():
            answers = every_exit(pupil.transformer, ids, rows, states=states)
        there = Teacher(teacher, shape).matched(ids, rows, None, answers, states, labels)
        return float(DISTILLATIONS[name](there))

    far = distance()
    recipe = Recipe(objective=name, epochs=6, batch_size=8, learning_rate=1e-3, features_first=0.3)
    fine_tune(pupil, task(), recipe, tmp_path / "p", teacher=teacher, quiet=True)
    assert distance() < 0.9 * far
    assert pupil.teaching is None
    assert set(pupil.state_dict()) == set(teacher.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_at_first_only_states_are_learned(model, tmp_path: Path, monkeypatch):
    teacher = with_exits(model.float(), labels=["no", "yes"])
    teacher.tokenizer = CharacterTokenizer()
    pupil = with_shape(teacher, teacher.config.form(), teacher.transformer.state_dict())
    calls = []
    from lessen.train import fine_tuning

    monkeypatch.setattr(fine_tuning, "features", lambda found: calls.append("features") or features(found))
    monkeypatch.setitem(
        DISTILLATIONS, "predictions", lambda found: calls.append("predictions") or predictions(found)
    )
    recipe = Recipe(objective="predictions", epochs=1, batch_size=8, features_first=0.25)
    fine_tune(pupil, task(), recipe, tmp_path, teacher=teacher, quiet=True)
    assert calls == ["features"] * 2 + ["predictions"] * 6


def test_a_lesson_needs_a_teacher_and_all_tokens(model, tmp_path: Path):
    pupil = with_exits(model.float(), labels=["no", "yes"])
    pupil.tokenizer = CharacterTokenizer()
    recipe = Recipe(objective="features")
    with pytest.raises(InputError, match="learns from a teacher, and there is none"):
        fine_tune(pupil, task(), recipe, tmp_path, quiet=True)
    with pytest.raises(InputError, match="none may leave"):
        fine_tune(pupil, task(), recipe, tmp_path, teacher=model, passes=all_stay, quiet=True)
    with pytest.raises(InputError, match="from itself"):
        fine_tune(pupil, task(), recipe, tmp_path, teacher=pupil, quiet=True)
