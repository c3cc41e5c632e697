"""Unfinished work is taken over on the rows and the model it was begun with, and on no others."""

from pathlib import Path

import pytest
import torch

from lessen.data.reading import read
from lessen.errors import InputError
from lessen.plan import Latent
from lessen.systems.working import begin_work, working_folder

PLAN = Latent()


def table(folder: Path, first: str = "fine"):
    path = folder / "rows.csv"
    path.write_text(f"text,label\n{first},1\nbad,0\n")
    return read(str(path))


def test_the_same_work_goes_on(tiny_classifier, tmp_path: Path) -> None:
    for _ in range(2):
        work = working_folder(PLAN, tmp_path / "out")
        begin_work(work, PLAN, {"train": table(tmp_path)}, tiny_classifier)
    assert work == tmp_path / "out.work"


@pytest.mark.parametrize("what", ["rows: train", "model", "inputs.json"])
def test_other_inputs_are_refused_by_name(what: str, tiny_classifier, tmp_path: Path) -> None:
    work = working_folder(PLAN, tmp_path / "out")
    begin_work(work, PLAN, {"train": table(tmp_path)}, tiny_classifier)
    first = "better" if what == "rows: train" else "fine"
    if what == "model":
        with torch.no_grad():
            tiny_classifier.transformer.layers[0].attention.qkv.weight[0, 0] += 1
    if what == "inputs.json":
        (work / what).write_text("[]")
        what = "model, rows: train"
    with pytest.raises(InputError, match=rf"out.work holds unfinished work .* changed since \({what}\)"):
        begin_work(work, PLAN, {"train": table(tmp_path, first)}, tiny_classifier)


def test_order_and_labels_of_rows_count(tmp_path: Path) -> None:
    rows = table(tmp_path)
    other = rows.take([1, 0])
    assert rows.digest() == table(tmp_path).digest()
    assert len({rows.digest(), other.digest(), table(tmp_path, "fine,0\nodd").digest()}) == 3


def test_another_plan_or_a_damaged_one_is_refused(tiny_classifier, tmp_path: Path) -> None:
    work = working_folder(PLAN, tmp_path / "out")
    begin_work(work, PLAN, {"train": table(tmp_path)}, tiny_classifier)
    with pytest.raises(InputError, match=r"out\.work holds the unfinished work of another plan"):
        working_folder(PLAN.model_copy(update={"scale": "none"}), tmp_path / "out")
    (work / "plan.json").write_text('{"of": "another kind"}')
    with pytest.raises(InputError, match="of another plan"):
        working_folder(PLAN, tmp_path / "out")
    (work / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"plan.json is damaged; delete .*out.work to begin anew"):
        working_folder(PLAN, tmp_path / "out")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    """It would be deleted when the run is finished."""
    work = tmp_path / "out.work"
    work.write_text("")
    with pytest.raises(InputError, match=r"out.work is a file"):
        working_folder(PLAN, tmp_path / "out")
    work.unlink()
    for name in ("thesis.txt", "stage-1"):
        work.mkdir()
        (work / "inputs.json").write_text("{}")
        (work / name).write_text("mine")
        with pytest.raises(InputError, match=r"out.work holds what is no unfinished work"):
            working_folder(PLAN, tmp_path / "out")
        (work / name).unlink()
        assert working_folder(PLAN, tmp_path / "out") == work, "killed as it began"
        (work / "inputs.json").unlink()
        work.rmdir()
