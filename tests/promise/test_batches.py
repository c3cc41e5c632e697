"""Finished batches on disk: read again by the same work only, and made anew where they are damaged."""

from pathlib import Path

import pytest
import torch
from conftest import early_generator, ragged_ids

from lessen.errors import ArtefactError
from lessen.promise.batches import KeptBatches
from lessen.promise.traces import identity_of, trace


def test_a_part_is_read_by_the_same_work_only(tmp_path: Path) -> None:
    found = {"scores": torch.arange(6.0).reshape(2, 3), "right": torch.tensor([True, False])}
    KeptBatches(tmp_path / "p", "one").put(3, found)
    again = KeptBatches(tmp_path / "p", "one").get(3)
    assert again.keys() == found.keys()
    assert all(torch.equal(again[name], value) for name, value in found.items())
    assert KeptBatches(tmp_path / "p", "one").get(2) is None
    assert KeptBatches(tmp_path / "p", "two").get(3) is None
    (place,) = (tmp_path / "p").iterdir()
    place.write_bytes(place.read_bytes()[:-4])
    assert KeptBatches(tmp_path / "p", "one").get(3) is None
    assert KeptBatches(None, "one").put(3, found) is found
    assert KeptBatches(None, "one").get(3) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="cannot write"):
        KeptBatches(tmp_path / "file", "one").put(0, found)


def test_traces_from_kept_parts_are_the_same_and_others_are_made_anew(tmp_path: Path) -> None:
    """Other weights, prompts or lengths have parts of their own."""
    model = early_generator(tmp_path / "model").transformer
    prompts = [ids.tolist() for ids in ragged_ids([4] * 20)]
    keys, said = [f"{i:016x}" for i in range(20)], []

    def traced(**changes):
        given = {"prompts": prompts, "new_tokens": 4, "kept_in": tmp_path / "parts", **changes}
        return trace(model, keys=keys, criteria=["entropy"], watch=lambda *at: said.append(at), **given)

    first = traced()
    assert said == [(0, 20), (16, 20), (20, 20)]
    assert sorted(place.name for place in (tmp_path / "parts").iterdir()) == [
        "00000.safetensors", "00001.safetensors",
    ]  # fmt: skip
    alone = traced(kept_in=None)
    assert first.digest == traced().digest == alone.digest
    assert traced(prompts=prompts[::-1]).digest != first.digest
    assert traced(new_tokens=3).right.shape[2] == 3
    model.language_exits["1"].output.weight.data.neg_()
    assert traced().digest == traced(kept_in=None).digest != first.digest


def test_other_precisions_are_other_work(tmp_path: Path) -> None:
    """Where weights are published in bfloat16 they are the same numbers in float32, but answers are not."""
    wide = early_generator(tmp_path / "model").transformer.bfloat16().float()
    before = identity_of(wide, [])
    assert identity_of(wide, []) == before
    assert identity_of(wide.bfloat16(), []) != before
