"""What the benchmarks of generators choose and count, on numbers made up and on a tiny model."""

import importlib
from pathlib import Path

import pytest
import torch

import lessen
from lessen.plan import ExitRule

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A module of the benchmarks, which are no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def tiny(benchmark, tmp_path: Path):
    """The benchmark's own random model with two exits, and prompts."""
    folder, prompts = benchmark("generator_decode").tiny(tmp_path / "tiny")
    return lessen.load(folder), prompts


def test_what_is_saved_is_held_against_the_same_prompts(benchmark) -> None:
    """Texts that each take a third of what full depth takes leave no error, however they differ."""
    saved = benchmark("generator_texts").saved
    tokens, whole = [4, 9, 2, 30], [400.0, 1100.0, 150.0, 2000.0]
    found = saved([each / 3 for each in whole], tokens, whole, tokens)
    assert found["mean"] == pytest.approx(2 / 3)
    assert found["se"] == pytest.approx(0)
    draw = torch.Generator().manual_seed(0)
    shares, counts = [], torch.randint(20, 64, (100,), generator=draw).tolist()
    for _ in range(300):  # the error is that of repeated draws of prompts
        at_full = [100 * count * (1 + 0.5 * float(torch.rand((), generator=draw))) for count in counts]
        took = [0.7 * each * (1 + 0.2 * float(torch.randn((), generator=draw))) for each in at_full]
        shares.append(saved(took, counts, at_full, counts))
    means = torch.tensor([each["mean"] for each in shares])
    errors = torch.tensor([each["se"] for each in shares])
    assert float(errors.mean()) == pytest.approx(float(means.std()), rel=0.15)


@torch.no_grad()
def test_heads_that_cost_more_than_they_save_save_nothing(benchmark, tiny, tmp_path: Path) -> None:
    """All tokens leave before the last layer: fewer passes over layers, and more weights all the same."""
    model, prompts = tiny
    texts = benchmark("generator_texts")
    batches = texts.Batches(model, tmp_path / "kept", 6)
    _, whole = batches.continued(prompts[:2], benchmark("lessen.runtime.decoding").OFF)
    decoding = benchmark("lessen.runtime.decoding").Decoding(
        "direct", ExitRule(criterion="entropy", thresholds={2: 99.0})
    )
    found, tally = batches.continued(prompts[:2], decoding)
    measure = benchmark("lessen.measure.decoded")
    line = measure.decoded("direct exact", "p", found, tally, [[True] * len(text) for text in found], found)
    counted = texts.counted(line, tally, whole)
    assert counted["passes_saved"]["mean"] > 0.3
    vocabulary, layers = whole.costs.vocabulary, whole.costs.all_layers
    heads = whole.costs.heads[2]
    per_token = sum(text.weights for text in tally.texts) / tally.tokens
    assert counted["weights_per_token"] == per_token >= heads.always + heads.passing
    assert counted["weights_saved"]["mean"] == pytest.approx(1 - per_token / (layers + vocabulary))
    assert counted["weights_saved"]["mean"] < counted["passes_saved"]["mean"]


def test_the_long_run_is_the_one_that_costs_least_on_tuning_prompts(benchmark) -> None:
    exits = benchmark("generator_exits")

    def run(kind: str, cost: float, asked: list[int]) -> dict:
        places = [{"layer": layer} for layer in (8, 15, 22)]
        return {
            "kind": kind,
            "words": None,
            "tuned": {"block_equivalents": cost, "exits": asked},
            "exits": places,
        }

    runs = [run("tied", 44.5, [8, 15, 22]), run("shortlist", 31.3, [15, 22]), run("full", 38.0, [])]

    def chosen(*given: dict) -> tuple[str, list[int]]:
        best = exits.chosen_of(given)
        return best["kind"], best["places"]

    assert chosen(*runs) == ("shortlist", [15, 22])
    assert chosen(run("tied", 44.5, [8]), run("full", 38.0, [])) == ("tied", [8])
    assert chosen(run("full", 38.0, [])) == ("full", [8, 15, 22])
    asked = exits.wanted("tied:3,shortlist:3::8192,gate:1.5:4-20")
    assert [exits.label(each) for each in asked] == [
        "tied, 3 min",
        "shortlist of 8,192, 3 min",
        "gate at 4, 20, 1.5 min",
    ]


def test_a_timing_without_a_rival_is_not_finished(benchmark, monkeypatch) -> None:
    decode = benchmark("generator_decode")
    runs = [
        {"part": "spec"},
        {"part": "speed", "precision": "int4", "missing": ["llama.cpp"]},
        {"part": "speed", "precision": "float32", "missing": []},
    ]
    assert decode.finished(runs) == {("spec", None), ("speed", "float32")}
    monkeypatch.setattr(decode, "find_spec", lambda name: None if name == "llama_cpp" else object())
    with pytest.raises(SystemExit, match="pip install llama-cpp-python first"):
        decode.check_rivals()


def test_without_a_certified_point_the_rest_runs(benchmark, tiny, tmp_path: Path, capsys) -> None:
    model, prompts = tiny
    decode, drafts = benchmark("generator_decode"), benchmark("generator_drafts")
    model.use("full")
    assert decode.early_point(model) is None
    batches = benchmark("generator_texts").Batches(model, tmp_path / "kept", 6)
    assert decode.direct(batches, prompts[:2])["lines"] == {}
    assert "missed: nothing certified" in capsys.readouterr().err
    found = drafts.fixed(batches, prompts[2:4], prompts[:2])
    assert found["identical"] + found["ties"] == found["texts"] == 2
    assert len(found["tried"]) == 2 * len(drafts.LENGTHS)
    assert found["most"] == min(found["tried"], key=lambda each: each["weights_per_token"])["most"]
    assert drafts.decoding_of(found).most == found["most"]


def test_answers_are_scored_where_the_token_leaves(benchmark, tiny) -> None:
    """With an exit that is always sure the layer is its own; without a Point it is the last."""
    model, prompts = tiny
    questions = benchmark("generator_questions")
    wording = questions.Wording("bare", 5, 6, [list(each) for each in prompts[:3]])
    off = questions.answered(model, wording, None)
    early = questions.answered(model, wording, model.point)
    assert off.layers == [model.transformer.depth] * 3
    assert early.layers == [2] * 3
    rows = [questions.Row("p", "q", yes) for yes in (True, True, False)]
    assert questions.balanced([True] * 3, rows) == 0.5, "always saying yes answers nothing"
    assert questions.examples_of([questions.Row("a b", "q", yes) for yes in (True, True, False, True)]) != []
