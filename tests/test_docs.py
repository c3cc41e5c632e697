"""Documentation that is generated, and commands the README names."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from lessen.depth.criteria import CRITERIA
from lessen.depth.language_losses import LanguageObjective
from lessen.plan import FEW_BITS, TokenScore
from lessen.train.objectives import OBJECTIVES
from lessen.train.teaching import DISTILLATIONS

ROOT = Path(__file__).parent.parent


def test_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_tables_are_those_of_the_results() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_ci_runs_what_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make test" in readme
    assert "make lint test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_tree_names_every_room() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for entry in (ROOT / "src" / "lessen").iterdir():
        if entry.name.startswith("__") or entry.name == "py.typed":
            continue
        assert entry.name in readme, entry.name


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{page} links to {target}"


def test_the_guide_names_every_choice() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    objectives = (*OBJECTIVES, *DISTILLATIONS, *get_args(LanguageObjective))
    for name in (*CRITERIA, *objectives, *get_args(TokenScore), *FEW_BITS):
        assert f"`{name}`" in guide, name


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_commands_on_the_page_have_the_options_they_are_given(page: str) -> None:
    sections = re.split(
        r"^## lessen ", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    options = {part.split()[0]: set(re.findall(r"(--[a-z-]+)", part)) for part in sections[1:]}
    lines = re.findall(r"^\$ lessen (.*)", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert lines
    for command, *words in (line.split() for line in lines):
        given = {word for word in words if word.startswith("--")}
        assert given <= options[command], f"lessen {command}: {given - options[command]}"
