"""The model folder: refused with one clear line when damaged, and never lost while saving."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
import torch
from conftest import tiny_hugging_face
from safetensors.torch import load_file, save_file

import lessen
from lessen import artefact
from lessen.certificate import digests_of
from lessen.errors import ArtefactError, LessenError


@pytest.fixture
def folder(tiny_classifier, tmp_path: Path) -> Path:
    tiny_classifier.save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_shape(folder: Path, **changes: object) -> None:
    edit(folder, shape=json.loads((folder / "config.json").read_text())["shape"] | changes)


def edit_facts(folder: Path, **changes: object) -> None:
    edit(folder, architecture=json.loads((folder / "config.json").read_text())["architecture"] | changes)


def edit_layer(folder: Path, *, only: bool = False, **changes: object) -> None:
    """Change the first layer, or leave nothing but it, changed."""
    layers = json.loads((folder / "config.json").read_text())["shape"]["layers"]
    edit_shape(folder, layers=[layers[0] | changes, *([] if only else layers[1:])])
    if only:
        edit_shape(folder, exits=[{"layer": 1}])


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def foreign_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({**load_file(path), "transformer.layers.9.up": torch.zeros(2)}, path)


def missing_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("transformer.layers.1.attention.qkv.weight")
    save_file(tensors, path)


def one_deeper(folder: Path) -> None:
    inside = folder / "1of2"
    inside.mkdir()
    (folder / "config.json").rename(inside / "config.json")


DAMAGE = {
    "truncated": (truncate, "model.safetensors is truncated"),
    "garbage": (
        lambda f: (f / "model.safetensors").write_bytes(b"no"),
        "is truncated or not a safetensors file",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "foreign tensor": (foreign_tensor, "unknown tensor transformer.layers.9.up"),
    "missing tensor": (missing_tensor, "no tensor transformer.layers.1.attention.qkv.weight"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json; it is not a model folder"),
    "several sizes": (one_deeper, "has no config.json; name one of those in it: 1of2"),
    "bad json": (lambda f: (f / "config.json").write_text("{,"), "not valid JSON (line 1"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object"),
    "unknown field": (lambda f: edit(f, pionts=[]), "unknown field 'pionts', did you mean 'points'?"),
    "newer format": (lambda f: edit(f, format_version=2), "format_version 2 is newer than this lessen reads"),
    "newer shape": (lambda f: edit_shape(f, version=7), "shape: written by a newer lessen (format 7"),
    "unknown shape field": (lambda f: edit_shape(f, layer=3), "shape: layer: unknown field"),
    "bad point": (lambda f: edit(f, points=[{"name": "x", "exits": 3}]), "points[0]: exits"),
    "point missing": (lambda f: edit(f, point="gone"), "no point named 'gone'"),
    "exit nowhere": (
        lambda f: edit(f, points=[{"name": "x", "exits": {"criterion": "entropy", "thresholds": {"17": 1}}}]),
        "points[0].exits.thresholds: there is no exit after layer 17",
    ),
    "a second full": (
        lambda f: edit(f, points=[{"name": "full", "exits": {"criterion": "entropy", "threshold": 1}}]),
        "'full' is the whole model",
    ),
    "tokens taken": (
        lambda f: edit(f, points=[{"name": "x", "retention": [0.5, 0.4, 0.3, 0.2]}]),
        "points[0].retention: it has 4 shares, the model 3 layers",
    ),
    "head beyond": (lambda f: edit_layer(f, heads=[0, 9]), "layers[0].heads: 9, but the architecture has 4"),
    "layer beyond": (lambda f: edit_layer(f, layer=40, only=True), "layers[0].layer: 40, but"),
    "labels with a gap": (lambda f: edit(f, id2label={"0": "a", "2": "b"}), "id2label must name the outputs"),
    "labels in a list": (lambda f: edit(f, id2label=["a", "b", "c"]), "id2label must name the outputs"),
    "unknown task": (lambda f: edit(f, problem_type="foo"), "problem_type 'foo' is none of"),
    "regression of many": (lambda f: edit(f, problem_type="regression"), "regression has one output"),
    "unknown type": (lambda f: edit(f, dtype="garbage"), "dtype 'garbage'"),
    "impossible dropout": (lambda f: edit_facts(f, dropout=3), "architecture: dropout"),
    "no positions": (lambda f: edit_facts(f, position_offset=70), "leaves no positions"),
    "other model": (
        lambda f: edit(f, model_type="gpt9"),
        "model_type 'gpt9' is not supported; lessen reads bert",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_in_one_line(folder: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(LessenError) as error:
        lessen.load(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def rename_tensors(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({f"foo.{name}": tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def drop_layer(folder: Path) -> None:
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if ".layer.1." not in name}
    save_file(kept, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "cannot read the weights"),
        (rename_tensors, "the weights lack"),
        (drop_layer, "the weights lack bert.encoder.layer.1."),
    ],
)
def test_a_damaged_hugging_face_checkpoint_is_refused(damage, message: str, tmp_path: Path) -> None:
    """transformers would fill the gaps with random numbers."""
    tiny_hugging_face("bert").save_pretrained(tmp_path / "hf")
    damage(tmp_path / "hf")
    with pytest.raises(LessenError) as error:
        lessen.load(tmp_path / "hf")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_tokenizer_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lessen.load(tiny_checkpoint).save_pretrained(tmp_path / "m")
    place = tmp_path / "m" / "tokenizer.json"
    place.write_bytes(place.read_bytes()[:1000])
    with pytest.raises(LessenError, match=r"cannot read the tokenizer of .*m: "):
        lessen.load(tmp_path / "m")


def test_without_a_tokenizer_nothing_is_answered(folder: Path) -> None:
    model = lessen.load(folder)
    assert model.tokenizer is None
    with pytest.raises(LessenError, match="no tokenizer"):
        model.predict(["a gripping film"])


@pytest.mark.parametrize(
    ("bits", "activation_bits", "message"),
    [
        (16, 32, r"shape.layers\[0\]: weights of 16 bits times activations of 32 cannot be computed"),
        (8, 1, r"shape.layers\[0\]: weights of 8 bits times activations of 1 cannot be computed"),
        (1, 8, r"model.safetensors: (no )?tensor .*layers\.0\.attention\.qkv"),
    ],
)
def test_bits_that_cannot_be_or_are_not_there(folder: Path, bits, activation_bits, message) -> None:
    shape = json.loads((folder / "config.json").read_text())["shape"]
    shape["layers"][0] |= {"bits": bits, "activation_bits": activation_bits}
    edit(folder, shape=shape)
    with pytest.raises(LessenError, match=message):
        lessen.load(folder)


def test_a_failed_save_leaves_the_old_folder(folder: Path, tiny_classifier, monkeypatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("transformers.modeling_utils.PreTrainedModel.save_pretrained", full_disk)
    with pytest.raises(LessenError, match="No space left on device; what was there before is unchanged"):
        tiny_classifier.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["small"]


def test_saving_over_a_file_is_refused(tiny_classifier, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(LessenError, match="is a file where a folder would go"):
        tiny_classifier.save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_saving_again_replaces_the_model_and_keeps_only_other_peoples_files(
    folder: Path, tiny_classifier
) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "nowhere").symlink_to("missing")
    (folder / "runs").mkdir()
    with (folder / "runs" / "log").open("w") as log:
        log.write("open while the model is saved")
        inode = os.fstat(log.fileno()).st_ino
    (folder / "certificate.json").write_text("of the old weights")
    with torch.no_grad():
        tiny_classifier.transformer.layers[0].attention.qkv.weight.zero_()
    tiny_classifier.save_pretrained(folder)
    assert lessen.load(folder).transformer.layers[0].attention.qkv.weight.abs().sum() == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "nowhere").is_symlink()
    assert (folder / "runs" / "log").stat().st_ino == inode
    assert not (folder / "certificate.json").exists()
    assert [p.name for p in folder.parent.iterdir()] == ["small"]


@pytest.mark.parametrize("name", ["plan.json", "report.html", "config.json", "model.safetensors"])
def test_files_that_are_not_a_models_are_not_written_over(tiny_classifier, tmp_path: Path, name: str) -> None:
    place = tmp_path / "project"
    place.mkdir()
    (place / name).write_text("{}")
    with pytest.raises(LessenError, match=f"project holds {name}, which is not a lessen model's"):
        tiny_classifier.save_pretrained(place)
    assert [(each.name, each.read_text()) for each in place.iterdir()] == [(name, "{}")]


def test_a_folder_with_other_things_in_it_keeps_them(tiny_classifier, tmp_path: Path) -> None:
    place = tmp_path / "project"
    place.mkdir()
    (place / "README.md").write_text("about the project")
    (place / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(place)
    tiny_classifier.save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").readlink() == place
    assert (place / "README.md").read_text() == "about the project"
    assert (place / "notes.txt").read_text() == "mine"
    assert lessen.load(place).config.form() == tiny_classifier.config.form()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "project"]
    tiny_classifier.save_pretrained(place)
    assert "lessen" in (place / "README.md").read_text(), "it is a model's folder by now"


def test_nothing_of_another_tokenizer_stays(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model, place = lessen.load(tiny_checkpoint), tmp_path / "small"
    model.save_pretrained(place)
    (place / "spiece.model").write_text("of the tokenizer before")
    model.save_pretrained(place)
    assert not (place / "spiece.model").exists()
    tokenizer, model.tokenizer = model.tokenizer, None
    assert tokenizer is not None
    model.save_pretrained(place)
    assert lessen.load(place).tokenizer is not None, "somebody may have put it there"


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
def test_what_cannot_be_moved_over_is_not_lost(folder: Path, tiny_classifier, monkeypatch, error) -> None:
    """The new model is in place already; of the user's files one stays where the old one is."""
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / name).write_text(f"mine, {name}")
    rename = os.rename

    def fails(one: Path, other: Path) -> None:
        if Path(one).name == "b.txt":
            raise error
        rename(one, other)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises((ArtefactError, KeyboardInterrupt)) as raised:
        tiny_classifier.save_pretrained(folder)
    assert lessen.load(folder).config.form() == tiny_classifier.config.form()
    [old] = [place for place in folder.parent.iterdir() if place != folder]
    if isinstance(error, OSError):
        said = rf"is written, but b.txt of the folder .* it is in .*{re.escape(old.name)}"
        assert re.search(said, str(raised.value))
        assert (folder / "a.txt").exists()
        assert (folder / "c.txt").exists()
    for name in ("a.txt", "b.txt", "c.txt"):
        place = folder if (folder / name).exists() else old
        assert (place / name).read_text() == f"mine, {name}"


def test_a_folder_keeps_its_permissions(folder: Path, tiny_classifier) -> None:
    folder.chmod(0o700)
    tiny_classifier.save_pretrained(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_weights_are_one_file(tiny_classifier, tmp_path: Path) -> None:
    tiny_classifier.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    assert [path.name for path in (tmp_path / "m").glob("*.safetensors*")] == ["model.safetensors"]
    lessen.load(tmp_path / "m")
    with pytest.raises(LessenError, match="variant 'fp16': a folder has one file of weights"):
        tiny_classifier.save_pretrained(tmp_path / "n", variant="fp16")
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("left", ["nothing", "no weights", "no folder"])
def test_it_is_saved_though_the_folder_it_came_from_is_gone(left: str, folder: Path, tmp_path: Path) -> None:
    model = lessen.load(folder)
    for path in folder.iterdir():
        if left != "no weights" or path.suffix == ".safetensors":
            path.unlink()
    if left == "no folder":
        folder.rmdir()
    model.save_pretrained(tmp_path / "again")
    assert lessen.load(tmp_path / "again").config.form() == model.config.form()


def test_saving_works_where_folders_cannot_be_exchanged(folder: Path, tiny_classifier, monkeypatch) -> None:
    monkeypatch.setattr(artefact, "_exchange", lambda one, other: False)
    (folder / "notes.txt").write_text("mine")
    tiny_classifier.save_pretrained(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert [p.name for p in folder.parent.iterdir()] == ["small"]


def test_small_files_are_replaced_whole(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.json"
    artefact.write_json(path, {"old": 1})

    def broken(*args: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(LessenError, match="cannot write"):
        artefact.write_json(path, {"new": 1})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    tiny_hugging_face("bert", is_decoder=True).save_pretrained(tmp_path)
    with pytest.raises(LessenError, match="is_decoder=True is not supported"):
        lessen.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such model folder"),
        ("nowhere/", "no such model folder"),
        ("builtin:nothing", "no built-in model 'nothing'; there is beexformer-base, "),
        (__file__, "is a file; name the model's folder"),
        ("no-such-model-xyz", "cannot load a model named"),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str) -> None:
    with pytest.raises(LessenError) as error:
        lessen.load(name)
    assert message in str(error.value)


def test_files_may_be_read_by_whom_the_user_lets(tiny_classifier, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        tiny_classifier.save_pretrained(tmp_path / "m")
        assert {place.stat().st_mode & 0o777 for place in (tmp_path / "m").iterdir()} == {0o644}
        os.umask(0o077)
        tiny_classifier.save_pretrained(tmp_path / "n")
        assert {place.stat().st_mode & 0o777 for place in (tmp_path / "n").iterdir()} == {0o600}
    finally:
        os.umask(before)


def test_a_checkpoint_in_several_files_has_a_digest_of_all(tmp_path: Path) -> None:
    theirs = tiny_hugging_face("bert")
    theirs.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    files = sorted((tmp_path / "m").glob("*.safetensors"))
    assert len(files) > 1
    before = digests_of(tmp_path / "m")
    tensors = load_file(files[-1])
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, files[-1], metadata={"format": "pt"})
    after = digests_of(tmp_path / "m")
    assert {part for part in before if before[part] != after[part]} == {"weights"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactError, match=r"has no config.json"):
        digests_of(tmp_path / "empty")
