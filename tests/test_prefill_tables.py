"""Tables of prompts that lose tokens, from made-up runs: what is lost, how much faster, and the targets."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lessen.data.table import Table

ROOT = Path(__file__).parent.parent
ROWS = 1000
FASTER = {1.0: 1.0, 1.5: 1.3, 2.0: 1.7, 3.0: 2.1, 3.5: 2.4, 4.0: 2.6}


@pytest.fixture
def made(monkeypatch):
    """`seq2seq_quality`, `prefill_tables` and `paired`, which are no package."""
    return modules(monkeypatch, "seq2seq_quality", "prefill_tables", "paired")


@pytest.fixture
def prefill(monkeypatch):
    """`prefill_tokens`, `prefill_tables` and `paired`."""
    return modules(monkeypatch, "prefill_tokens", "prefill_tables", "paired")


def modules(monkeypatch, *names: str) -> list:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return [importlib.import_module(name) for name in names]


def run(paired, way: str, score: str, seed: int, lost: int) -> dict:
    """Of a model that is right on 900 rows at 1x, and on `lost` fewer for each further speed-up.

    Rows are asked in three ways; what is lost is lost in all of them, or of first sentences in one.
    """
    tasks = {}
    for task in ("sentiment", "question", "first-sentence"):
        curve = {}
        for place, speedup in enumerate(FASTER):
            ways = 1 if task == "first-sentence" else 3
            right = (np.arange(ROWS) < 900) - ways / 3 * (np.arange(ROWS) < lost * place)
            cell = {"value": right.mean(), "macs_ratio": speedup, "rows": paired.packed_numbers(right)}
            curve[f"{speedup:g}"] = cell
        tasks[task] = curve
    return {"way": way, "score": score, "seed": seed, "tasks": tasks}


def timed(seed: int) -> dict:
    lines = [
        {"kind": "lessen", "speedup": each, "first_token_ms": 10 / faster, "total_ms": 30 / faster}
        for each, faster in FASTER.items()
    ]
    rival = {"kind": "transformers", "speedup": None, "first_token_ms": 20.0, "total_ms": 60.0}
    about = {"way": "timed", "score": "mean", "seed": seed, "processor": "fast"}
    return about | {"time": [*lines, rival]}


def every(paired, lost: int) -> list[dict]:
    """Two seeds of all ways and scores; the third seed has no control yet."""
    runs = [
        run(paired, way, score, seed, lost)
        for seed in (0, 1)
        for way in ("leaving", "plain")
        for score in ("mean", "random", "first_k")
    ]
    return [*runs, run(paired, "leaving", "mean", 2, 500), timed(0), timed(1)]


@pytest.mark.parametrize(("lost", "said"), [(1, "met: 0.3 ± 0.2"), (5, "missed: 1.5 ± 0.4")])
def test_the_target_is_read_where_answers_come_twice_as_fast(made, lost: int, said: str) -> None:
    quality, tables, paired = made
    found = quality.summary(every(paired, lost))
    assert found["target"] == f"{said} points lost at 3x, 2 seeds"
    assert found["time"]["timed"]["transformers"]["total"] == pytest.approx(0.5)
    assert set(found["tasks"]["question"]) == {
        f"{way}, {score}" for way in ("leaving", "plain") for score in ("mean", "random", "first_k")
    }
    text = tables.seq2seq_table(
        {"summary": found, "settings": {"speedups": list(FASTER), "shape_tokens": 512}}
    )
    assert found["target"] in text
    assert "* *timed on*: fast." in text
    whole = "whole answer, 30.0 ms at 1x, 60.0 in transformers"
    assert f"| times faster, {whole} | 1.00x | 1.30x | 1.70x | 2.10x | 2.40x | 2.60x |" in text
    assert text.count("times faster") == 2  # of the shape nothing was measured
    value = 90 - 0.1 * lost
    part = found["tasks"]["first-sentence"]["leaving, mean"]["3"]
    assert part["loss"]["mean"] == pytest.approx(3 * lost / 3 / ROWS)
    assert 100 * part["loss"]["error"] == pytest.approx(paired_error(3 * lost) / 3, rel=1e-3)
    assert f"{value:.1f} ± 0.0 ({0.1 * lost:.1f} ± {paired_error(lost):.1f})" in text


def paired_error(lost: int) -> float:
    """In points, of a share of rows that only one of two models is right about."""
    share = lost / ROWS
    return 100 * (share * (1 - share) / (ROWS - 1)) ** 0.5


def test_what_was_not_run_is_not_claimed(made) -> None:
    quality, _, paired = made
    assert quality.summary([run(paired, "leaving", "mean", 0, 1)])["target"] == "not measured yet"
    slow = [run(paired, "plain", "mean", 0, 1), run(paired, "leaving", "mean", 0, 1), timed(0)]
    for line in slow[2]["time"]:
        line["total_ms"] = 30.0
    assert quality.summary(slow)["target"].startswith("missed: no speed-up here makes answers twice as fast")
    again = quality.summary([*slow, timed(0)])["target"]
    assert again.startswith(("undecided", "met")), "the latest times count"
    elsewhere = quality.summary([*slow, timed(1) | {"processor": "faster"}])
    assert elsewhere["timed_on"] == "faster"
    assert elsewhere["time"]["timed"]["3"]["total"] > 2, "processors are not mixed"


def test_a_row_is_asked_in_every_way_and_counts_once(made, monkeypatch) -> None:
    quality, _, paired = made
    right = {"sentiment: {text}": [1.0, 0.0], "Is this review negative or positive? {text}": [1.0, 0.0]}
    monkeypatch.setattr(quality, "right", lambda model, table, way, *_: right.get(way.prompt, [1.0, 1.0]))
    monkeypatch.setattr(quality, "encode_prompts", lambda *_: [])
    monkeypatch.setattr(quality, "ratio_at", lambda *_: 1.0)
    monkeypatch.setattr(quality.recipe, "at", lambda *_: None)
    monkeypatch.setattr(quality.recipe, "part", lambda *_: Table("two", ["a", "b"], None, None, []))
    model = SimpleNamespace(tokenizer=None, transformer=None)
    found = quality.curve(model, "sentiment", "random", {"1": "known"})
    assert found.pop("1") == "known", "and not measured again"
    assert list(found) == ["1.5", "2", "3", "3.5", "4"]
    for cell in found.values():
        assert cell["value"] == pytest.approx(2 / 3)
        assert paired.numbers(cell["rows"]) == pytest.approx([1, 1 / 3], abs=1e-3)


def line(speedup: float, score: str, error: float, **changes) -> dict:
    """Of a prompt that takes 100 ms for each token that is left of ten."""
    ms = 1000 / speedup
    made = {"speedup": speedup, "score": score, "ms": {"median_ms": ms}, "macs_ratio": speedup}
    return (
        made | {"faster": speedup, "predicted_ms": ms * (1 + error), "error": error, "noisy": False} | changes
    )


LINES = [
    line(1.0, "all", 0.5),
    line(1.5, "mean", 0.19), line(1.5, "random", -0.2),
    line(2.0, "mean", 0.1), line(2.0, "random", -0.21),
    line(3.0, "mean", 0.3, noisy=True), line(3.0, "random", 0.0),
]  # fmt: skip


def test_a_prediction_is_judged_once_for_a_speed_up_and_not_where_it_was_fitted(prefill) -> None:
    tokens, tables, _ = prefill
    assert tokens.judged(LINES) == {"met": 1, "of": 3, "off": 0.3, "noisy": 1}
    assert tokens.judged(LINES[:1]) == {"met": 0, "of": 0, "off": None, "noisy": 0}
    run = {"what": "time", "model": "gpt2", "tokens": 512, "threads": 1, "processor": "fast"}
    runs = [run | {"lines": [line(2.0, "mean", 0.9)]}, run | {"lines": LINES}]
    text = tables.prefill_time_table({"summary": tokens.summary(runs), "runs": runs})
    assert (
        "| gpt2, 512 tokens, 1 threads: predicted within 20 % with every score | met at 1 of 3 speed-ups |"
        in text
    )
    assert text.count("gpt2, 512 tokens, 1 threads, ") == len(LINES)  # the latest run's
    assert "| gpt2, 512 tokens, 1 threads, random | 2x | 2.00x | 500.0 | 2.00x | 395.0 (-21%) |" in text
    assert "333.3" in text
    one = [run | {"lines": LINES[:1]}]
    text = tables.prefill_time_table({"summary": tokens.summary(one), "runs": one})
    assert "not measured yet" in text


def loss_run(tokens, paired, training: str, seed: int, above: list[float]) -> dict:
    """Texts of articles 4, 4 and 7; `above` is what each loses at 2x and more by the mean."""
    found = {"all": {"1": cell(paired, [2.0, 4.0, 1.0], [4, 4, 7], tokens)}}
    for score in tokens.SCORES:
        found[score] = {}
        for speedup in tokens.SPEEDUPS[1:]:
            lost = above if score == "mean" and speedup >= 2 else [0.0] * 3
            each = [own + more for own, more in zip([2.0, 4.0, 1.0], lost, strict=True)]
            found[score][f"{speedup:g}"] = cell(paired, each, [4, 4, 7], tokens)
    run = {"what": "loss", "model": "smollm2", "training": training, "tokens": 512, "seed": seed}
    return run | {"curve": found, "articles": [4, 4, 7]}


def cell(paired, each: list[float], articles: list[int], tokens) -> dict:
    return {"loss": float(tokens.of_articles(each, articles).mean()), "texts": paired.packed_numbers(each)}


def test_losses_are_means_over_articles_and_so_are_their_errors(prefill) -> None:
    """Article 4 loses 0.75 with the first seed and 0.5 with the second, article 7 0.25 and -0.25."""
    tokens, tables, paired = prefill
    runs = [
        loss_run(tokens, paired, "leaving", 0, [0.5, 1.0, 0.25]),
        loss_run(tokens, paired, "leaving", 1, [0.5, 0.5, -0.25]),
    ]
    found = tokens.summary(runs)
    cells = found["loss"]["smollm2, leaving, 512 tokens"]
    whole, less = cells["all"]["1"], cells["mean"]["2"]
    assert whole["loss"] == 2.0
    assert (less["over_whole"], less["articles"], less["seeds"]) == (0.3125, 2, 2)
    assert less["loss"] == pytest.approx(2.3125)
    assert less["over_whole_se"] == pytest.approx(0.3125)
    assert cells["random"]["2"]["over_whole_se"] == 0
    text = tables.prefill_loss_table({"summary": found})
    assert "| smollm2, leaving, 512 tokens, all tokens | 7.39 |  |  |  |  | 2 |" in text
    by_mean = " | ".join(["7.39 (+0.000 ± 0.000)", *["10.10 (+0.312 ± 0.312)"] * 3])
    assert f"| smollm2, leaving, 512 tokens, mean |  | {by_mean} | 2 |" in text
    assert "none, 512 tokens" not in text
    assert not found["recall"]
    again = tokens.summary([run | {"what": "recall"} for run in runs])
    assert (again["recall"], again["loss"]) == (found["loss"], {})
    recall = tables.prefill_loss_table({"summary": again}, "recall")
    assert f"| smollm2, leaving, 512 tokens, mean |  | {by_mean} | 2 |" in recall
    assert "are its passages still known?" in recall


def test_texts_are_spread_over_articles(prefill) -> None:
    tokens, *_ = prefill
    found = [
        (article, [article, place]) for article, count in ((0, 5), (1, 1), (3, 2)) for place in range(count)
    ]
    assert tokens.spread_out(found, 2) == [(0, [0, 0]), (1, [1, 0])]
    assert tokens.spread_out(found, 5) == [(0, [0, 0]), (1, [1, 0]), (3, [3, 0]), (0, [0, 1]), (3, [3, 1])]
    assert len(tokens.spread_out(found, 50)) == 8
    many = [(article, [article]) for article in range(60)]
    assert [article for article, _ in tokens.spread_out(many, 6)] == [0, 10, 20, 30, 40, 50]
    assert tokens.spread_out([], 4) == []


def test_training_reads_as_much_of_reviews_as_of_articles(prefill, monkeypatch) -> None:
    tokens, *_ = prefill
    whole = tokens.TRAINING["prompt_tokens"] + tokens.TRAINING["new_tokens"]
    half = tokens.TRAINING["rows"] // 2
    monkeypatch.setattr(tokens, "pieces", lambda *_: [(place, [1] * whole) for place in range(3 * half)])
    reviews = Table("reviews", ["short", *["long"] * 3 * half], None, None, [])
    monkeypatch.setattr(tokens, "documents", lambda _: reviews)
    read = {"short": [2] * 9, "long": [2] * (whole + 5)}
    model = SimpleNamespace(tokenizer=lambda text, verbose: {"input_ids": read[text]})
    lessons = tokens.lessons_of(model)
    assert [sum(each.prompt[0] == kind for each in lessons) for kind in (1, 2)] == [half, half]
    assert {(len(each.prompt), len(each.answer)) for each in lessons} == {
        (tokens.TRAINING["prompt_tokens"], tokens.TRAINING["new_tokens"])
    }
