"""Models of few bits as a user meets them: stored, certified, and run as they are stored."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import run

import lessen
from lessen.reshaping import in_latents, in_signs, with_shape
from lessen.width.removal import with_embedding_rank

QUICK = ("--rows", 8, "--seconds", 0.1)


@pytest.fixture(scope="module")
def eights(small: Path, tmp_path_factory) -> Path:
    """Stored in 8 bits, and certified so."""
    out = tmp_path_factory.mktemp("few") / "eights"
    before = (small / "config.json").read_bytes()
    code, printed, problems = run(
        "calibrate", small, "--precision", "int8", "--out", out, "--max-drop", "20%", "--json"
    )
    assert code == 0, problems
    assert json.loads(printed)["certified"]
    assert "calibration rows of" in problems
    assert "read again" in problems
    assert (small / "config.json").read_bytes() == before, "the model itself stays as it was"
    return out


def test_it_is_stored_and_certified_in_eight_bits(eights: Path, small: Path) -> None:
    assert json.loads((eights / "certificate.json").read_text())["precision"] == "int8"
    model = lessen.load(eights)
    assert model.precision == "int8"
    assert model.points["drop-20%"].promise.kind == "certified"
    assert model.point.name == "drop-20%"
    assert (eights / "model.safetensors").stat().st_size < (small / "model.safetensors").stat().st_size
    assert (eights / "plan.json").exists()


def test_commands_take_it_as_it_is_stored(eights: Path, data: Path, tmp_path: Path) -> None:
    code, out, err = run("predict", eights, "a good film", "--json")
    assert code == 0, err
    assert json.loads(out)["point"] == "drop-20%"
    code, out, err = run("evaluate", eights, "--data", data, "--json")
    assert code == 0, err
    code, out, err = run("bench", eights, "--data", data, "--batch", "1", *QUICK, "--json")
    assert code == 0, err
    assert "no rival is timed: shape.layers[0].bits" in err
    assert {row["kind"] for row in json.loads(out)["rows"]} == {"lessen-int8"}
    code, out, err = run("report", eights, "--out", tmp_path / "page", "--batch", "1", *QUICK, "--json")
    assert code == 0, err
    (model,) = json.loads(out)["models"]
    assert model["kind"] == "lessen-int8"
    assert {spot["promise"] for spot in model["points"]} >= {"certified"}
    code, out, err = run("calibrate", eights, "--data", data, "--max-drop", "25%", "--json")
    assert code == 0, err
    assert json.loads(out)["certified"]
    assert lessen.load(eights).points["drop-25%"].promise.kind == "certified"


def test_another_precision_than_it_is_stored_in_is_refused(eights: Path) -> None:
    for command in (("predict", eights, "a"), ("calibrate", eights)):
        code, _, err = run(*command, "--precision", "float32")
        assert code == 2
        assert "was saved with weights of 8 bits; load it in int8" in err


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "int4"])
def test_a_certificate_made_in_few_bits_goes_where_they_are_stored(
    small: Path, tmp_path: Path, precision: str
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    other = ("calibrate", folder, "--precision", precision, "--max-drop", "20%")
    code, _, err = run(*other)
    assert code == 2
    assert f"is certified in float32, which calibrating in {precision} would end; store a copy with" in err
    assert lessen.load(folder).points["drop-20%"].promise.kind == "certified"
    code, out, err = run(*other, "--overwrite")
    assert code == 0, err
    assert f"point 'drop-20%' in {precision} keeps this" in out
    code, _, err = run("calibrate", folder)
    assert code == 2
    assert f"is certified in {precision}, which calibrating in float32 would end; give --overwrite" in err
    lessen.load(folder, precision=precision).save_pretrained(tmp_path / "stored")
    assert lessen.load(tmp_path / "stored").points["drop-20%"].promise.kind == "certified"
    code, _, err = run("calibrate", tmp_path / "stored", "--max-drop", "20%")
    assert code == 0, err
    assert "kept answers are another precision's" in err


def test_a_certificate_of_floats_does_not(small: Path, tmp_path: Path) -> None:
    lessen.load(small, precision="int8").save_pretrained(tmp_path / "stored")
    assert not (tmp_path / "stored" / "certificate.json").exists()
    assert lessen.load(tmp_path / "stored").points["drop-20%"].promise.kind == "uncertified"


def test_weights_that_changed_on_the_way_take_none_along(eights: Path, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    assert run("calibrate", folder, "--precision", "int8", "--max-drop", "20%", "--overwrite")[0] == 0
    model = lessen.load(folder, precision="int8")
    model.transformer.layers[0].feed_forward.up.weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    assert not {"certificate.json", "calibration.safetensors"} & {
        p.name for p in (tmp_path / "other").iterdir()
    }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--out", "x"), "--out stores weights in few bits: give --precision int8"),
        (("--out", "x", "--precision", "bfloat16"), "--out stores weights in few bits"),
        (("--out", "{}", "--precision", "int8"), "is the model itself"),
        (("--audit", "--data", "x.csv", "--out", "y"), "--out does not go with --audit"),
    ],
)
def test_places_that_make_no_sense(small: Path, options: tuple, problem: str) -> None:
    code, _, err = run("calibrate", small, *(str(each).format(small) for each in options))
    assert code == 2
    assert problem in err


def test_a_calibration_that_fails_leaves_no_model(small: Path, eights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    (folder / "plan.json").unlink()
    stored = tmp_path / "stored"
    shutil.copytree(eights, stored)
    before = {place.name: place.read_bytes() for place in stored.iterdir()}
    for place, more in ((tmp_path / "fresh", ()), (stored, ("--overwrite",))):
        code, _, err = run("calibrate", folder, "--precision", "int8", "--out", place, *more)
        assert code == 2
        assert f"the calibration rows of {folder} cannot be read again" in err
    assert not (tmp_path / "fresh").exists()
    assert {place.name: place.read_bytes() for place in stored.iterdir()} == before


def test_rows_that_cannot_be_read_again(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(small, folder)
    (folder / "plan.json").unlink()
    code, _, err = run("calibrate", folder, "--precision", "int8", "--overwrite")
    assert code == 2
    assert "cannot be read again" in err
    assert "give --data" in err


def test_models_no_other_runtime_can_run_are_timed_alone(small: Path, data: Path, tmp_path: Path) -> None:
    model = lessen.load(small)
    in_signs(in_latents(model)).save_pretrained(tmp_path / "signs")
    state, shape = with_embedding_rank(model.transformer.state_dict(), model.config.form(), 4)
    with_shape(model, shape, state).save_pretrained(tmp_path / "slim")
    for folder in (tmp_path / "signs", tmp_path / "slim"):
        code, _, err = run("bench", folder, "--data", data, "--batch", "1", *QUICK, "--json")
        assert code == 0, err
        assert "no rival is timed" in err
        code, _, err = run("bench", folder, "--data", data, "--against", "torch")
        assert code == 2
        assert "or --against none" in err
