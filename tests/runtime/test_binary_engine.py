"""Binary models as they run: packed, in any batch, rows leaving (BEExformer page, T10-T12, T18, T19, T22)."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import padded, ragged_ids, task

import lessen
from lessen.depth.criteria import exit_of_every_row
from lessen.depth.exits import every_exit
from lessen.measure.evaluation import evaluate
from lessen.model.macs import row_macs
from lessen.model.rows import pack
from lessen.plan import FULL, ExitRule, ExitShape, Point
from lessen.reshaping import in_latents, in_signs, with_exits
from lessen.runtime.engine import run
from lessen.runtime.text import encode
from lessen.systems.binarizing import Binarizing, binarized
from lessen.train.fine_tuning import fine_tune

LENGTHS = [9, 3, 30, 3, 1, 40, 17, 2]


def latent(activation_bits: int = 32) -> lessen.LessenForSequenceClassification:
    """A random model whose answers differ from exit to exit."""
    torch.manual_seed(0)
    exits = [ExitShape(layer=layer, pool="mean", hidden_size=20, activation="relu") for layer in range(1, 5)]
    model = with_exits(lessen.load("builtin:beexformer-test"), exits=exits, labels=["no", "yes"])
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=1.0 if "exits" in name else 0.3)
    return in_latents(model, activation_bits=activation_bits)


def plateau(threshold: float) -> Point:
    return Point(name="t", exits=ExitRule(criterion="entropy_plateau", threshold=threshold))


def test_packed_and_latent_decide_the_same_on_a_thousand_inputs() -> None:
    """T10, W1A32: the same up to the order of sums, 1e-4 of the largest logit."""
    model = latent()
    ids, rows = pack(ragged_ids([1 + i % 12 for i in range(1000)]))
    with torch.no_grad():
        learned = torch.stack(every_exit(model.transformer, ids, rows))
        found = torch.stack(every_exit(in_signs(model).transformer, ids, rows))
    largest = learned.abs().max()
    assert (found - learned).abs().max() <= 1e-4 * largest
    apart = (learned[-1, :, 0] - learned[-1, :, 1]).abs() > 2e-4 * largest
    assert apart.float().mean() > 0.99
    assert torch.equal(found[-1].argmax(-1)[apart], learned[-1].argmax(-1)[apart])


def test_a_saved_model_answers_without_code_that_trains(tmp_path: Path) -> None:
    """T11."""
    in_signs(latent()).save_pretrained(tmp_path / "m")
    script = (
        "import sys, lessen; model = lessen.load(sys.argv[1]); print(model.predict(['text'])[0].label); "
        "print([name for name in sys.modules if name.startswith(('lessen.train', 'lessen.systems'))])"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "m"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    label, loaded = done.stdout.split()
    assert label in ("no", "yes")
    assert loaded == "[]"


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_answer(side: str) -> None:
    """T12."""
    model = in_signs(latent())
    sequences = ragged_ids([3, 17, 9])
    ids, mask = padded(sequences, pad=0, side=side)
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=mask).logits
        alone = [model(input_ids=each[None]).logits[0] for each in sequences]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation_bits", [32, 8, 1])
def test_a_batch_whose_rows_leave_is_its_rows_one_by_one(activation_bits: int) -> None:
    """T18: logits, depths and order. Rows are alike to the last sum, but for float32 attention: 1e-4."""
    model = in_signs(latent(activation_bits)).transformer
    sequences = ragged_ids(LENGTHS)
    point = plateau(0.05)
    together = run(model, *pack(sequences), point=point)
    assert len(set(together.layers.tolist())) > 1
    scale = float(together.logits.abs().max())
    for row, sequence in enumerate(sequences):
        alone = run(model, *pack([sequence]), point=point)
        assert alone.layers.item() == together.layers[row].item()
        assert (alone.logits[0] - together.logits[row]).abs().max() <= 1e-4 * scale
    with torch.no_grad():
        answers = every_exit(model, *pack(sequences))
    assert point.exits is not None
    slow = exit_of_every_row(point.exits, [1, 2, 3, 4], answers)
    assert (together.layers - 1).tolist() == slow.tolist()
    assert set(run(model, *pack(sequences), point=plateau(9.0)).layers.tolist()) == {2}


def test_macs_are_those_of_the_layers_rows_went_through() -> None:
    """T18: the count equals the sum by depth."""
    model = in_signs(latent())
    model.tokenizer = lessen.load("builtin:beexformer-test").tokenizer
    encoded = encode(model.tokenizer, task(40).texts, 64)
    facts, shape = model.config.facts(), model.config.form()
    found = run(model.transformer, *pack([torch.tensor(row.ids) for row in encoded]), point=plateau(0.05))
    spent = sum(
        row_macs(facts, shape, 2, len(row.ids), layers=int(depth), heads=range(1, int(depth) + 1))
        for row, depth in zip(encoded, found.layers, strict=True)
    )
    full = sum(row_macs(facts, shape, 2, len(row.ids)) for row in encoded)
    result = evaluate(model, encoded, [0] * len(encoded), plateau(0.05))
    assert result.macs_ratio == pytest.approx(full / spent, rel=1e-6)
    assert result.macs_ratio > 1.05


def test_without_exits_it_is_the_plain_stack_to_the_last_bit() -> None:
    """T19: the full Point, and a threshold no row can meet."""
    model = in_signs(latent(8)).transformer
    ids, rows = pack(ragged_ids(LENGTHS))
    with torch.inference_mode():
        hidden, left = model(ids, rows)
        expected = left.restore(model.exits["4"](hidden, left))
    assert torch.equal(run(model, ids, rows, point=FULL).logits, expected)
    assert torch.equal(run(model, ids, rows, point=plateau(-1e30)).logits, expected)


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    """T22: two trainings from the same seed end in the same packed bytes, from another in others."""
    table = task(32)
    packed = []
    for number, seed in enumerate((5, 5, 6)):
        torch.manual_seed(seed)
        model = with_exits(lessen.load("builtin:beexformer-test"), labels=table.label_names, seed=seed)
        recipe = Binarizing(objective="soft_routing", epochs=2, learning_rate=3e-3, seed=seed)
        model = binarized(model, recipe)
        fine_tune(model, table, recipe, tmp_path / str(number), quiet=True)
        packed.append(in_signs(model).state_dict())
    one, same, other = packed
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in one.items())
