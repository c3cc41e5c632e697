"""Libraries that are not used, and how that is said."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run

from lessen.errors import LessenWarning
from lessen.native import available, binding, native


class Altered:
    """The library, with functions of other answers."""

    def __init__(self, library, **answers):
        self._library, self._answers = library, answers

    def __getattr__(self, name):
        answer = self._answers.get(name)
        return getattr(self._library, name) if answer is None else lambda *_: answer


@pytest.fixture
def altered(monkeypatch):
    """Call it with answers; what is opened has them."""
    if native() is None:
        pytest.skip("the kernels are not built")
    real = ctypes.CDLL

    def alter(**answers):
        def opened(name):
            return Altered(real(name), **answers) if name else real(name)

        monkeypatch.setattr(binding.ctypes, "CDLL", opened)
        monkeypatch.setattr(binding, "_declared", lambda library: library)

    return alter


def test_another_version_is_refused_before_anything_of_it_is_declared(altered):
    altered(lessen_abi=binding.ABI - 1)
    library, why = binding.opened()
    assert library is None
    assert why.endswith("is of another version: install lessen again")


@pytest.mark.parametrize("apart", [0.01, float("nan")])
def test_kernels_that_compute_wrong_results_are_refused(altered, apart):
    altered(lessen_self_check=apart)
    library, why = binding.opened()
    assert library is None
    assert why.endswith("computes wrong results on this processor")


def test_a_file_that_is_no_library_is_refused(monkeypatch, tmp_path: Path):
    (tmp_path / "liblessen.so").write_bytes(b"no library")
    monkeypatch.setattr(binding, "_place", lambda: tmp_path / "liblessen.so")
    library, why = binding.opened()
    assert library is None
    assert "cannot be loaded" in why


@pytest.mark.parametrize("whole", [False, True])
def test_the_library_of_another_install_is_left_alone(monkeypatch, tmp_path, whole):
    """Where packages are, an editable install has the library alone, another one all of the package."""
    installed, source = tmp_path / "packages" / "lessen", tmp_path / "source" / "native" / "binding.py"
    (installed / "native").mkdir(parents=True)
    (installed / "native" / "liblessen.so").touch()
    if whole:
        (installed / "__init__.py").touch()
    monkeypatch.setattr(binding.sysconfig, "get_path", lambda name: str(tmp_path / "packages"))
    monkeypatch.setattr(binding, "__file__", str(source))
    assert binding._place() == (None if whole else installed / "native" / "liblessen.so")


@pytest.fixture
def not_built(monkeypatch):
    monkeypatch.delenv("LESSEN_DISABLE_NATIVE", raising=False)
    monkeypatch.setattr(binding, "_place", lambda: None)
    available._loaded.cache_clear()
    yield
    available._loaded.cache_clear()


def test_that_torch_computes_is_said_once(not_built):
    with pytest.warns(LessenWarning, match=r"the kernels are not used \(not built: .*torch computes") as said:
        assert [native(), native()] == [None, None]
    assert len(said) == 1


def test_commands_say_it_in_a_line(not_built, small: Path):
    code, _, err = run("predict", small, "a good film", "--json")
    assert code == 0
    (line,) = [line for line in err.splitlines() if "kernels are not used" in line]
    assert line.startswith("lessen: ")


@pytest.mark.parametrize(
    ("given", "off"),
    [("1", True), ("true", True), ("yes", True), ("", False), ("0", False), ("False", False)],
)
def test_the_switch_is_understood_as_people_write_it(monkeypatch, given, off):
    monkeypatch.setenv("LESSEN_DISABLE_NATIVE", given)
    assert binding.switched_off() is off


def test_switched_off_it_is_not_said():
    code = "from lessen.native import native; assert native() is None"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"LESSEN_DISABLE_NATIVE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
