"""Certificates of models whose weights are rounded when they are loaded."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import run

import lessen
from lessen.errors import PlanError
from lessen.model.matrices import Numbers, linear
from lessen.plan import Bits


@pytest.mark.parametrize(("precision", "other"), [("int8", "float32"), ("int4", "int8")])
def test_a_certificate_holds_in_its_precision_alone(
    precision: str, other: str, small: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    more = tmp_path / "more.csv"
    lines = data.read_text().splitlines()
    more.write_text("\n".join([lines[0], *(line.replace("number", "more") for line in lines[1:])]))
    asked = ("--data", more, "--precision", precision, "--max-drop", "20%")
    code, _, said = run("calibrate", folder, *asked, "--overwrite")
    assert code == 0, said
    assert kinds(folder, precision) == {"certified"}
    assert kinds(folder, other) == {"uncertified"}


def test_a_point_of_another_precision_is_not_answered_at(small: Path, tmp_path: Path) -> None:
    model = lessen.load(small)
    point = model.points["drop-20%"].model_copy(
        update={"name": "quick", "precision": "int8", "promise": None}
    )
    written = [point.model_dump(mode="json", exclude_none=True)]
    model.config.points, model.config.point = written, "quick"
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(PlanError, match="point 'quick' is for int8, and this model runs in float32"):
        lessen.load(tmp_path / "m")
    assert lessen.load(tmp_path / "m", precision="int8").point.name == "quick"
    assert lessen.load(tmp_path / "m", point="full").point.name == "full"


def kinds(folder: Path, precision: str) -> set[str]:
    """Of the promises of all Points, as they are loaded."""
    points = lessen.load(folder, precision=precision).points.values()
    return {point.promise.kind for point in points if point.promise}


@torch.no_grad()
@pytest.mark.parametrize("numbers", [(8, 8), (8, 32), (4, 8), (1, 32), (1, 8), (1, 1)], ids=str)
def test_a_matrix_without_inputs_gives_its_bias(numbers: tuple[Bits, Bits]) -> None:
    """As what follows an attention all of whose heads left does."""
    part = linear(0, 5, numbers=Numbers(*numbers))
    for parameter in part.parameters():
        parameter.data.fill_(2)
    assert torch.equal(part(torch.empty(3, 0)), torch.full((3, 5), 2.0))
