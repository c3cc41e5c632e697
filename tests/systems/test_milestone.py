"""What a finished piece of work left: whatever is damaged is named, with what to do."""

import json
from pathlib import Path

import pytest

from lessen.errors import InputError
from lessen.systems.milestone import Milestone


@pytest.mark.parametrize("name", ["model.safetensors", "done.json"])
def test_what_is_damaged_is_named(tiny_classifier, tmp_path: Path, name: str):
    milestone = Milestone(tmp_path / "round-6")
    form = tiny_classifier.config.form()
    milestone.leave(tiny_classifier.transformer.state_dict(), form, {"steps": 3})
    assert milestone.model(tiny_classifier).config.form() == form
    place = milestone.folder / name
    place.write_bytes(place.read_bytes()[:200])
    with pytest.raises(InputError, match=rf"round-6/{name} is damaged; delete .*round-6 to do this part"):
        milestone.model(tiny_classifier)


@pytest.mark.parametrize("how", ["a tensor is missing", "a head too many", "no such head"])
def test_what_does_not_go_together_is_damaged(tiny_classifier, tmp_path: Path, how: str):
    milestone = Milestone(tmp_path / "round-6")
    state = dict(tiny_classifier.transformer.state_dict())
    if how == "a tensor is missing":
        del state["layers.1.attention.qkv.weight"]
    milestone.leave(state, tiny_classifier.config.form(), {"steps": 3})
    place = milestone.folder / "done.json"
    record = json.loads(place.read_text())
    if how == "a head too many":
        record["shape"]["layers"][0]["heads"] = record["shape"]["layers"][0]["heads"][:-1]
    if how == "no such head":
        record["shape"]["layers"][0]["heads"] = [3, 2]
    place.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"done.json is damaged; delete .*round-6"):
        milestone.model(tiny_classifier)
