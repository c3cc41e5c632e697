"""Summaries, verdicts and tables of few bits, from made-up runs: each target met, missed and undecided."""

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ROWS = 1000


@pytest.fixture
def made(monkeypatch):
    """Modules of the benchmarks by name; they are no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(name)


def around(value: float, off: float = 0.05) -> list[float]:
    return [value - off, value, value + off]


def kernel(name: str, m: int, threads: int, **faster: float) -> dict:
    rivals = {"torch_fp32": 26.0, "torch_bf16": 10.0, "int8": 4.0, "int8_linear": 1.2} | faster
    return {
        "kernel": name,
        "m": m,
        "k": 768,
        "n": 3072,
        "threads": threads,
        "ms": 0.4,
        "module_ms": 0.5,
        "spread": {"ms": [0.38, 0.42]},
        "faster": {rival: around(value) for rival, value in rivals.items()},
        "module_faster": {rival: around(value / 2) for rival, value in rivals.items()},
        "limit_ms": 0.3 if name == "w1a1" else None,
    }


def speed() -> dict:
    model = {"tokens": 64, "ms": 1.0, "spread": [0.9, 1.1]}
    return {
        "kernels": [
            *(kernel("w1a1", 128, threads) for threads in (1, 2)),
            kernel("w1a1", 1, 1),
            kernel("w8a8", 24, 1, int8_linear=0.9),
            kernel("w8a8", 128, 1),
        ],
        "models": [
            model | {"mode": mode, "batch": batch, "threads": 1, "faster": around(faster)}
            for mode, batch, faster in (("W1A1", 1, 8.5), ("W1A1", 8, 7.0), ("W1A8", 1, 3.0))
        ],
        "int8": [
            model | {"name": name, "batch": 1, "threads": 1, "faster": around(faster)}
            for name, faster in (("lessen int8", 1.1), ("openvino-int8", 1.0))
        ],
        "exits": [
            model | {"name": name, "batch": batch, "threads": 1, "faster": around(faster)}
            for name, batch, faster in (
                ("lessen int8, SST-2, exits", 1, 1.2), ("lessen int8, SST-2, exits", 8, 2.0),
                ("lessen int8, SST-2", 8, 1.1),
            )
        ],
        "sizes": [{"model": "beexformer-small", "float32": 44e6, "packed": 2e6, "ratio": 22.0,
                   "parts": dict.fromkeys(("weights", "scales", "norms", "embeddings", "exits", "listing",
                                           "tokenizer"), 1e3)}],
    }  # fmt: skip


def test_every_target_of_time_and_size_is_held_against_its_figure(made) -> None:
    said = dict(made("bits_verdicts").speed_verdicts(speed()))
    assert said["W1A1, 128 rows: at least 25x torch's float32"] == "met in 2 of 2, 26.0x, 26.0x"
    assert said["W1A1, 128 rows: at least 10x torch's bfloat16"] == "undecided in 2 of 2, 10.0x, 10.0x"
    assert said["W1A1, 128 rows: at least 5x torch's _int_mm"] == "missed in 2 of 2, 4.0x, 4.0x"
    assert said["W1A1, 128 rows: at least 70% of the limit of counting bits"] == "met in 2 of 2, 75%, 75%"
    one = "W1A1, one row, dispatch included: at least 10x torch's float32"
    assert said[one] == "met in 1 of 1, 13.0x", "of the layer, not of the bare product"
    eight = "W8A8, 24 and 128 rows: at least as fast as torch's int8 linear"
    assert said[eight] == "met in 1 of 2, missed in 1, 0.9x, 1.2x"
    medium = "BEExformer-medium in {}: at least {}x its float32 twin"
    assert said[medium.format("W1A1", 8)] == "met in 1 of 2, missed in 1, 8.50x, 7.00x"
    assert said[medium.format("W1A8", 3)] == "undecided in 1 of 1, 3.00x"
    parity = "MiniLM in int8, exits off: at least on par with OpenVINO's int8"
    assert said[parity] == "met in 1 of 1, 1.10x"
    early = "MiniLM in int8, exits certified within 1%: at least 1.7x OpenVINO's int8"
    assert said[early] == "met in 1 of 2, missed in 1, 1.20x, 2.00x"
    size = "beexformer-small is at least 22x smaller on disk than its float32 twin"
    assert said[size] == "met, 22.00x"


def test_the_limit_is_met_missed_undecided_or_not_known(made) -> None:
    of_limit = made("bits_verdicts").of_limit
    for limit, said in ((0.3, "met"), (0.2, "missed"), (0.28, "undecided")):
        assert of_limit([kernel("w1a1", 128, 1) | {"limit_ms": limit}]).startswith(f"{said} in 1 of 1")
    unknown = of_limit([kernel("w1a1", 128, 1) | {"limit_ms": None}])
    assert unknown == "not measured: no limit is known of this processor"


def test_nothing_of_speed_is_met_by_default(made) -> None:
    verdicts = made("bits_verdicts")
    said = verdicts.speed_verdicts({})
    assert len(said) == 11
    assert all(each == "not measured yet" for _, each in said)
    smaller = speed()["sizes"][0] | {"ratio": 21.9}
    assert verdicts.size_verdicts([smaller])[0][1] == "missed, 21.90x"


def test_exits_in_int8_on_mixed_lengths(made) -> None:
    def row(kind: str, name: str, ms: float, off: float = 0.02) -> dict:
        times = {"ms": ms, "low": ms - off, "high": ms + off}
        return {"kind": kind, "name": name, "threads": 1, "batch": 1, **times}

    verdict = made("bits_verdicts").mixed_verdict
    rival = row("openvino-int8", "dense", 2.0)
    assert verdict([])[1] == "not measured yet"
    assert verdict([rival, row("lessen-int8", "full", 1.0)])[1] == "not measured yet"
    for ms, said in ((1.0, "met"), (1.4, "missed"), (1.18, "undecided")):
        found = verdict([rival, row("lessen-int8", "drop-1%", ms)])[1]
        assert found.startswith(f"{said} in 1 of 1"), found


def difference(mean: float, error: float = 0.002, seeds: int = 3) -> dict:
    return {"mean": mean, "se": error, "sd": 0.0, "error": error, "seeds": seeds}


def test_losses_from_scratch_and_what_exits_save(made) -> None:
    verdicts = made("bits_verdicts")

    def said(twin: float = 0.8, **changes) -> dict:
        exiting = {"macs_saved": 0.6, "macs_saved_sd": 0.01, "gain": difference(0.005)} | changes
        variants = {
            "float twin": {"last": twin, "loss": None, "exiting": None},
            "W1A32": {"loss": difference(0.005), "exiting": exiting},
            "W1A8": {"loss": difference(0.021), "exiting": None},
            "W1A1": {"loss": difference(0.05), "exiting": None},
        }
        return dict(verdicts.quality_verdicts("trec", variants, {"most frequent label": 0.7}))

    found = said()
    assert found["trec: W1A32 loses at most 1 to its float twin"] == "met, 0.5 ± 0.2 points lost, 3 seeds"
    assert found["trec: W1A8 loses at most 2 to its float twin"].startswith("undecided, 2.1")
    assert found["trec: W1A1 loses at most 4 to its float twin"].startswith("missed, 5.0")
    exits = "trec: exits save 54.85% of MACs without loss"
    assert found[exits] == "met: 60.0 ± 0.6% saved (met), +0.5 ± 0.2 points (met), 3 seeds"
    assert said(gain=difference(0.001))[exits].startswith("undecided: ")
    assert said(gain=difference(-0.005))[exits].startswith("missed: ")
    assert said(macs_saved=0.4)[exits].startswith("missed: 40.0 ± 0.6% saved (missed)")
    assert said(macs_saved=0.55)[exits].startswith("undecided: ")
    nothing = "undecided, the float twin learned nothing (the most frequent label: 70.0)"
    assert set(said(twin=0.715).values()) == {nothing}
    assert all(each == "not measured yet" for _, each in verdicts.quality_verdicts("trec", {}, {}))


def test_losses_of_the_variant_that_was_chosen(made) -> None:
    def said(lost: float) -> dict:
        chosen = {"W1A32": {"variant": "W1A32, gradual", "tune": {}}}
        models = {"W1A32, gradual": {"loss": difference(lost)}, "W1A32": {"loss": difference(0.0)}}
        return dict(made("bits_verdicts").warm_verdicts("SST-2", {"chosen": chosen, "models": models}))

    name = "SST-2: W1A32 loses at most 2 to its dense self"
    assert said(0.01)[name] == "met, 1.0 ± 0.2 points lost, 3 seeds (W1A32, gradual)"
    assert said(0.0201)[name].startswith("undecided")
    assert said(0.03)[name].startswith("missed")
    assert said(0.01)["SST-2: W1A8 loses at most 3 to its dense self"] == "not measured yet"


def run(paired, variant: str, seed: int, wrong: int, tune: float = 0.9) -> dict:
    right = np.arange(ROWS) >= wrong
    last = [paired.packed_right(right)] * 2
    early = paired.packed_right(np.arange(ROWS) >= wrong + 10)
    sweep = {
        step: {"accuracy": accuracy, "macs": macs, "answers": answers}
        for step, accuracy, macs, answers in (
            ("0", tune, 0.9, last[0]),
            ("0.5", tune, 0.4, early),
            ("1.1", tune - 0.2, 0.2, early),
        )
    }
    facts = {
        "exits": [0.5, float(right.mean())],
        "tune_exits": [0.5, tune],
        "macs": [0.5, 1.0],
        "shuffled": 0.6,
        "negated": None,
        "negated_shuffled": None,
        "overthinking": 3,
        **{part: {"rows": ROWS, "answers": last, "sweep": sweep} for part in ("tune", "test")},
    }
    return {"task": "trec", "variant": variant, "seed": seed, "facts": facts}


def test_variants_are_held_against_their_own_twins_only(made) -> None:
    paired, summary, tables = made("paired"), made("bits_summary"), made("bits_tables")
    runs = [{"task": "trec", "variant": "baselines", "seed": None, "baselines": {"simple": 0.7}}]
    for seed in (0, 1):
        runs += [
            run(paired, "float twin", seed, 100),
            run(paired, "W1A32", seed, 120),
            run(paired, "W1A32, no exits", seed, 125),
            run(paired, "W1A1", seed, 150),
            run(paired, "W1A32, FFN", seed, 110),
            run(paired, "W1A32, words first", seed, 90),
        ]
    found = summary.summary(runs)["trec"]
    variants = found["variants"]
    assert variants["W1A32"]["loss"]["mean"] == pytest.approx(0.02)
    assert variants["W1A1"]["loss"]["mean"] == pytest.approx(0.05)
    for name in ("float twin", "W1A32, FFN", "W1A32, words first", "W1A32, no exits"):
        assert variants[name]["loss"] is None, "its float twin was not run, or there is none"
    exiting = {name for name, line in variants.items() if line["exiting"] is not None}
    assert exiting == {"W1A32"}, "others have no model without exits that was trained the same way"
    step = variants["W1A32"]["exiting"]
    assert step["thresholds"] == ["0.5", "0.5"], "the smallest that saves enough on tuning rows"
    assert step["macs_saved"] == 0.6
    assert step["gain"]["mean"] == pytest.approx(-0.005), "on test rows: 130 are wrong, and 125"
    assert summary.chosen({"tune": {"sweep": {"0": {"macs": 0.5}}}}) is None
    assert summary.step_of(runs[2]["facts"]["test"], None)["macs"] == 1.0
    assert variants["W1A32"]["learned"] == 2
    failed = run(paired, "W1A32, no exits", 1, 900, tune=0.2)
    frequent = {**runs[0], "baselines": {"most frequent label": 0.3}}
    again = summary.summary([frequent, *(failed if each is runs[9] else each for each in runs[1:])])
    variants = again["trec"]["variants"]
    assert variants["W1A32, no exits"]["learned"] == 1
    assert variants["W1A32"]["exiting"]["thresholds"] == ["0.5"], "not by a model that learned nothing"
    settings = {"model": "m", "epochs": {"trec": 20.0}, "changes": {}}
    text = tables.bits_quality_table({"settings": settings, "summary": {"trec": found}})
    assert "* *epochs*: trec 20." in text
    assert "| trec, W1A32 | 50.0 88.0 | 88.0 ± 0.0 | 2.0 ± 0.4 | 60.0 |  | 3 | 60% | -0.5 ± 0.2 | 2 |" in text
    assert "| trec, simple |  | 70.0 |" in text
    assert len({row.count("|") for row in text.splitlines() if row.startswith("| trec, ")}) == 1


def test_a_warm_start_is_chosen_on_tuning_rows(made) -> None:
    paired, summary, tables = made("paired"), made("bits_warm_summary"), made("bits_tables")

    def warm(variant: str, seed: int, tune: float, wrong: int) -> dict:
        right = np.arange(ROWS) >= wrong
        part = {"rows": ROWS, "answers": [paired.packed_right(right)], "exits": [float(right.mean())]}
        facts = {"tune": part | {"exits": [tune]}, "test": part, "shuffled": 0.6}
        return {"task": "sst2", "variant": variant, "seed": seed, "facts": facts}

    runs = [
        warm("dense", 0, 0.91, 80),
        warm("W1A32", 0, 0.88, 90),
        warm("W1A32, gradual", 0, 0.89, 100),
        warm("W1A32", 1, 0.99, 90),
    ]
    found = summary.summary(runs)["sst2"]
    assert found["chosen"]["W1A32"] == {
        "variant": "W1A32, gradual",
        "tune": {"W1A32": 0.88, "W1A32, gradual": 0.89},
    }, "worse on test rows, and another seed does not count"
    assert "W1A8" not in found["chosen"]
    assert found["models"]["W1A32, gradual"]["loss"]["mean"] == pytest.approx(0.02)
    assert found["models"]["W1A32"]["loss"]["seeds"] == 1, "seed 1 has no dense model"
    assert found["models"]["dense"]["loss"] is None
    text = tables.bits_warm_table({"summary": {"sst2": found}})
    assert 'W1A32 as "W1A32, gradual" (W1A32 88.0, W1A32, gradual 89.0)' in text


def at_machines(parts: dict) -> dict:
    return {"machines": {"a processor, avx512": {name: {"lines": lines} for name, lines in parts.items()}}}


def test_the_table_of_speed_shows_what_was_run(made, monkeypatch) -> None:
    tables = made("bits_tables")
    monkeypatch.setattr(tables, "read", lambda name: None)
    text = tables.bits_speed_table(at_machines(speed()))
    first = "| W1A1, 128 x 768 x 3072, 1 threads | 0.400 | 0.500 | 26.0x | 10.0x | 4.0x | 1.2x | 75% |"
    assert first in text
    assert "| lessen int8, 1 x 64, 1 threads | 1.00 | 1.10x (1.05 to 1.15) |" in text
    bare = tables.bits_speed_table(at_machines({}))
    assert "Products with few bits" not in bare
    assert bare.count("not measured yet") == 11


def test_every_part_says_where_and_when_it_was_measured(made) -> None:
    def at(processor: str, day: str) -> dict:
        return {"machine": {"processor": processor, "date": f"{day}T10:00:00"}, "commit": day[-2:]}

    measured = made("tables").measured
    assert measured(at("old", "2026-01-02")) == "old, 2026-01-02, commit 02"
    machines = {"a": {"sizes": at("old", "2026-01-02")}, "b": {"models": at("new", "2026-01-03")}}
    said = "sizes old, 2026-01-02, commit 02; models new, 2026-01-03, commit 03"
    assert measured(at("new", "2026-01-03") | {"machines": machines}) == said
