"""Slimming as a user meets it: sizes asked for, inspected, and refused."""

import json
from pathlib import Path

import pytest
from conftest import run, tiny_generator

QUICK = ("--epochs", 0.5, "--learning-rate", 1e-3, "--max-drop", "20%")


@pytest.fixture(scope="module")
def sizes(tiny_checkpoint: Path, data: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "sizes"
    code, printed, problems = run(
        "compress", tiny_checkpoint, "--data", data, "--out", out, "--system", "cost-eff",
        "--params", "1/2,1/4", "--rank", 0.25, *QUICK, "--json",
    )  # fmt: skip
    assert code == 0, problems
    found = json.loads(printed)
    assert [Path(size["out"]).name for size in found["sizes"]] == ["1of2", "1of4"]
    return out


def test_each_size_is_kept_and_inspected(sizes: Path, tiny_checkpoint: Path) -> None:
    whole = json.loads(run("inspect", tiny_checkpoint, "--json")[1])["parameters"]["total"]
    for name, share in (("1of2", 0.5), ("1of4", 0.25)):
        facts = json.loads(run("inspect", sizes / name, "--json")[1])
        assert 0.8 * share * whole < facts["parameters"]["total"] <= share * whole
        assert facts["embedding_rank"] < 32
        assert facts["bytes"] == (sizes / name / "model.safetensors").stat().st_size
        assert {"parameters", "bytes", "macs", "layers"} <= set(facts)
        assert {"total", "encoder"} <= set(facts["parameters"])
        for layer in facts["layers"]:
            assert {"heads", "ffn", "keep", "bits", "exit"} <= set(layer)
            assert (layer["keep"], layer["bits"], layer["exit"]) == (1.0, 32, True)
        assert all(layer["exit"] and layer["heads"] < 4 and layer["rank"]["up"] for layer in facts["layers"])
    code, printed, _ = run("inspect", sizes / "1of2")
    assert code == 0
    assert "up 8" in printed
    assert "product of rank" in printed
    assert run("predict", sizes / "1of4", "a good film")[0] == 0


def test_fewer_layers(tiny_checkpoint: Path, data: Path, tmp_path: Path) -> None:
    code, _, problems = run(
        "compress", tiny_checkpoint, "--data", data, "--out", tmp_path / "short", "--system", "layer-chop",
        "--layers", 2, *QUICK,
    )  # fmt: skip
    assert code == 0, problems
    assert len(json.loads(run("inspect", tmp_path / "short", "--json")[1])["layers"]) == 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--system", "cost-eff", "--params", "1/1000"], "with one head and one neuron a layer there are"),
        (
            ["--system", "cost-eff", "--size", "3KB"],
            "3,000 bytes cannot be reached: with one head and one neuron",
        ),
        (["--system", "layer-chop", "--params", "2K"], "2,000 parameters cannot be reached: with one layer"),
        (["--system", "layer-chop", "--layers", "9"], "9 layers cannot be left: there are 3"),
        (["--system", "cost-eff", "--params", "1/2", "--size", "2MB"], "give one of them"),
        (["--system", "cost-eff", "--layers", "2"], "use the system layer-chop"),
        (["--system", "cost-eff"], "needs a size to reach"),
        (["--system", "cost-eff", "--params", "1/2,0.5"], "two of them are the same size"),
        (["--system", "cost-eff", "--params", "1/2", "--rank", "1.5"], "rank"),
        (["--system", "cost-eff", "--params", "1/2", "--importance", "loss"], "importance"),
        (["--system", "layer-chop", "--layers", "3"], "that small already"),
        (["--system", "layer-chop", "--layers", "2", "--uneven"], "--uneven: layer-chop has no such choice"),
        (["--layers", "2"], "use the system cost-eff or layer-chop"),
        (
            ["--system", "cost-eff", "--params", "1/2", "--uneven", "--exits", "1,3"],
            "layers compete for parts only where each has an exit",
        ),
        (
            ["--system", "cost-eff", "--params", "1/2", "--importance", "magnitude", "--last-exit-only"],
            "magnitude scores know no exit",
        ),
        (
            ["--system", "cost-eff", "--params", "1/2", "--selection-share", "0.01"],
            "rows are left to select steps on, at least 20 are needed",
        ),
    ],
)
def test_sizes_that_cannot_be_are_one_clear_line(tiny_checkpoint, data, tmp_path, options, problem) -> None:
    code, _, said = run("compress", tiny_checkpoint, "--data", data, "--out", tmp_path / "m", *options)
    assert code == 2
    assert problem in said.splitlines()[-1]
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("system", "option", "given"),
    [
        ("self-exit", "--params", ["1/2"]),
        ("latency-adjustable", "--size", ["1MB"]),
        ("self-exit", "--layers", ["2"]),
        ("self-exit", "--selection-share", ["0.1"]),
        ("self-exit", "--uneven", []),
        ("latency-adjustable", "--uneven", []),
    ],
)
def test_models_that_generate_refuse_them(
    data: Path, tmp_path: Path, system: str, option: str, given: list[str]
) -> None:
    out, model = tmp_path / "m", tmp_path / "llama"
    tiny_generator("llama-grouped").save_pretrained(model)
    code, _, said = run("compress", model, "--data", data, "--out", out, "--system", system, option, *given)
    assert code == 2
    assert option in said.splitlines()[-1]
    assert not out.exists()


def test_a_size_that_was_saved_stays_when_the_run_goes_on(
    tiny_checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been calibrated since, and calibrations are counted."""
    from lessen.systems import pipeline

    out, save = tmp_path / "sizes", pipeline._saved
    options = ("compress", tiny_checkpoint, "--data", data, "--out", out, "--system", "cost-eff", *QUICK)

    def stopped_at_the_second(*arguments, stays):
        if arguments[-1].name == "1of4":
            raise KeyboardInterrupt
        return save(*arguments, stays=stays)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_saved", stopped_at_the_second)
        assert run(*options, "--params", "1/2,1/4")[0] == 130
    assert run("calibrate", out / "1of2", "--max-drop", "30%")[0] == 0
    before = {place.name: place.read_bytes() for place in (out / "1of2").iterdir()}
    code, printed, err = run(*options, "--params", "1/2,1/4", "--json")
    assert code == 0, err
    assert "was saved before and stays as it is" in err
    assert {place.name: place.read_bytes() for place in (out / "1of2").iterdir()} == before
    first, second = json.loads(printed)["sizes"]
    assert first["parameters"]["total"] > second["parameters"]["total"] > second["parameters"]["encoder"]
    assert (out / "1of4" / "config.json").exists()
    assert not out.with_name("sizes.work").exists()


def test_sizes_are_named_where_their_points_are(sizes: Path, tiny_checkpoint: Path, data: Path) -> None:
    out = sizes.with_name("one")
    code, printed, _ = run(
        "compress", tiny_checkpoint, "--data", data, "--out", out, "--system", "cost-eff", "--params", "1/2",
        *QUICK,
    )  # fmt: skip
    assert code == 0
    total = json.loads(run("inspect", out, "--json")[1])["parameters"]["total"]
    assert f"{total / 1e6:.4g}M parameters, " in printed
    assert "of them in the encoder; on 40 rows kept aside" in printed
