"""Certificates of models whose weights are rounded when they are loaded."""

import shutil
from pathlib import Path

import pytest
from conftest import run

import lessen


@pytest.mark.parametrize(("precision", "other"), [("int8", "float32"), ("int4", "int8")])
def test_a_certificate_holds_in_its_precision_alone(
    precision: str, other: str, small: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small, folder)
    more = tmp_path / "more.csv"
    lines = data.read_text().splitlines()
    more.write_text("\n".join([lines[0], *(line.replace("number", "more") for line in lines[1:])]))
    code, _, said = run("calibrate", folder, "--data", more, "--precision", precision, "--max-drop", "20%")
    assert code == 0, said
    assert kinds(folder, precision) == {"certified"}
    assert kinds(folder, other) == {"uncertified"}


def kinds(folder: Path, precision: str) -> set[str]:
    """Of the promises of all Points, as they are loaded."""
    points = lessen.load(folder, precision=precision).points.values()
    return {point.promise.kind for point in points if point.promise}
