"""What a finished piece of work left: whatever is damaged is named, with what to do."""

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
