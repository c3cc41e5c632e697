"""What benchmarks of width and bits run: every run has a key of its own, sizes are gone through in steps."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lessen.loading import load
from lessen.reshaping import with_exits
from lessen.systems.slimming import shapes_between
from lessen.width.budget import encoder_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A module of the benchmarks, whose tasks have rows without any data there."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def found(name: str):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "rows_of", lambda task: {"task": task})
        return module

    return found


def keys_of(book, runs: list) -> list:
    keys = [book.key(about) for about in runs]
    assert None not in keys
    assert len(set(keys)) == len(runs), "no two runs are the same"
    return keys


def test_runs_of_width_have_keys(benchmark, monkeypatch) -> None:
    width = benchmark("width_quality")
    monkeypatch.setattr(width, "product_epochs", lambda training: {})
    for model, training in width.TRAININGS.items():
        runs = width.runs_of(width.SCHEDULE[model])
        keys = keys_of(width.ledger(training), runs)
        other = replace(training, epochs=dict.fromkeys(training.epochs, 0.1), slender=None)
        assert width.ledger(other).name != width.ledger(training).name
        changed = [width.ledger(other).key(about) for about in runs]
        same = {run["way"] for run, a, b in zip(runs, keys, changed, strict=True) if a == b}
        assert same == {width.SIMPLE}, "epochs change all but what is simpler"
    monkeypatch.setattr(width, "SCORED_ROWS", 7)
    again = [width.ledger(training).key(about) for about in runs]
    same = {run["way"] for run, a, b in zip(runs, keys, again, strict=True) if a == b}
    assert same == {width.SIMPLE, width.DENSE, width.ASSISTANT}, "scored rows change what parts leave"
    gone = {"task": "mrpc", "seed": 0, "way": "a way there was", "size": 8}
    assert width.ledger(training).key(gone) is None


def test_mpnet_is_trained_at_the_rates_of_its_width(benchmark) -> None:
    width = benchmark("width_quality")
    small, large = (width.TRAININGS[f"builtin:{name}"] for name in ("minilm-l6", "mpnet-l12"))
    rates = [width.stage_of(large, "mrpc", 0, number).learning_rate for number in range(1, 7)]
    assert rates == [2e-5, 2e-5, 2e-5, 3e-5, 1e-4, 5e-5]
    assert width.stage_of(small, "mrpc", 0, 1).learning_rate == 5e-5
    epochs = [width.stage_of(large, "mrpc", 0, number).epochs for number in (1, 3, 4, 6)]
    assert epochs == pytest.approx([6.9, 3.0, 6.9 / 10, 6.9 * 4 / 5])


def test_runs_of_bits_have_keys(benchmark) -> None:
    bits = benchmark("bits_quality")
    runs, usual = bits.runs_of(bits.SCHEDULE), bits.Setting()
    keys = keys_of(bits.ledger(usual), runs)
    names = {bits.NAME}
    for changed in (bits.Setting(changes={"epochs": 0.1}), bits.Setting(preset="beexformer-test")):
        book = bits.ledger(changed)
        assert book.name not in names, "trying something out has a file of its own"
        names.add(book.name)
        others = [book.key(about) for about in runs]
        same = {run["variant"] for run, a, b in zip(runs, keys, others, strict=True) if a == b}
        assert same == {bits.SIMPLE}
    recipe = bits.recipe_of(usual, "trec", "W1A8", 2)
    assert (recipe.epochs, recipe.rows, recipe.activation_bits, recipe.seed) == (20.0, None, 8, 2)


def test_runs_of_warm_starts_have_keys(benchmark) -> None:
    warm = benchmark("bits_warm")
    runs = [run for task, names in warm.OTHERS for run in warm.runs_of(task, (0,), names)]
    runs += warm.runs_of("sst2", (1, 2), tuple(name for each in warm.CANDIDATES.values() for name in each))
    keys = keys_of(warm.ledger(None), runs)
    others = [warm.ledger(0.1).key(about) for about in runs]
    same = {run["variant"] for run, a, b in zip(runs, keys, others, strict=True) if a == b}
    assert same == {warm.DENSE}
    assert warm.rows_for("sst2", "W1A8, phrases") == "sst2-phrases"


def test_sizes_are_gone_through_in_steps(benchmark, tmp_path) -> None:
    width = benchmark("width_quality")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000, hidden_size=96, num_hidden_layers=2, num_attention_heads=12, intermediate_size=384
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    model = with_exits(load(tmp_path), labels=["no", "yes"])
    facts, outputs = model.config.facts(), model.config.num_labels
    whole, shapes = encoder_of(facts, model.config.form(), outputs), []
    for size in width.SIZES:
        shapes.append(width.slender_shape(model, size))
        assert encoder_of(facts, shapes[-1], outputs) <= whole / size
        table = 96 * len(shapes[-1].layers[0].heads) // 12
        assert shapes[-1].embedding_rank == table, "the table follows the heads"
    on_the_way, here = [], model.config.form()
    for shape in shapes:
        on_the_way += shapes_between(facts, here, shape, for_a_head=2)
        here = shape
    directly = shapes_between(facts, model.config.form(), shapes[-1], for_a_head=2)
    assert len(on_the_way) == len(directly) == 22, (
        "as in the product, whose smallest size is reached in one go"
    )
