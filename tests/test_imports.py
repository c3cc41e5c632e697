"""The import contract of docs/architecture.md: arrows point one way, and axes do not know one another."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "lessen"

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "progress": {"errors"},
    "records": {"errors"},
    "plan": {"errors", "records"},
    "artefact": {"errors"},
    "gguf": {"errors"},
    "builtin": {"errors", "gguf"},
    "certificate": {"errors", "records", "plan", "artefact"},
    "guarantee": set(),
    "memory": set(),
    "native": {"errors"},
    "machine": {"native"},
    "bits": {"errors", "plan", "native"},
    "model": {"errors", "records", "plan", "native", "bits"},
    "config": {"errors", "records", "plan", "model"},
    "card": {"errors", "artefact", "certificate", "model", "config"},
    "data": {"errors", "builtin"},
    "kept": {"errors"},
    "history": {"artefact", "kept", "data"},
    "saving": {"errors", "plan", "artefact", "certificate", "card", "history", "bits", "model"},
    "families": {"errors", "records", "plan", "model"},
    "depth": {"errors", "plan", "model"},
    "tokens": {"errors", "plan", "model"},
    "width": {"errors", "plan", "model"},
    "runtime": {
        "errors", "records", "plan", "artefact", "certificate", "machine", "native", "model", "depth",
        "tokens", "data",
    },
    "train": {
        "errors", "progress", "records", "plan", "memory", "bits", "model", "depth", "tokens", "data",
        "runtime",
    },
    "hf": {
        "errors", "plan", "certificate", "saving", "model", "config", "depth", "tokens", "data", "runtime",
    },
    "registration": {"errors", "config", "hf"},
    "reshaping": {"errors", "records", "plan", "bits", "model", "config", "families", "hf"},
    "foreign": {"errors", "plan", "config", "families", "hf", "reshaping"},
    "loading": {
        "errors", "records", "plan", "artefact", "builtin", "certificate", "bits", "model", "config",
        "families", "hf", "reshaping", "foreign",
    },
    "measure": {
        "errors", "plan", "artefact", "machine", "native", "bits", "model", "families", "depth", "tokens",
        "data", "runtime", "hf", "reshaping", "loading",
    },
    "promise": {
        "errors", "records", "plan", "artefact", "certificate", "kept", "history", "guarantee", "machine",
        "model", "depth", "tokens", "data", "runtime", "hf", "reshaping", "loading", "measure",
    },
    "report": {
        "errors", "plan", "artefact", "certificate", "machine", "model", "data", "runtime", "measure",
        "promise",
    },
    "systems": {
        "errors", "progress", "records", "plan", "artefact", "certificate", "bits", "model", "depth",
        "tokens", "width", "data", "history", "runtime", "train", "hf", "reshaping", "loading", "measure",
        "promise", "card", "saving",
    },
    "cli": {
        "errors", "progress", "records", "plan", "artefact", "certificate", "card", "machine", "memory",
        "native", "model", "data", "history", "runtime", "train", "hf", "reshaping", "loading", "measure",
        "promise", "report", "systems",
    },
    "__main__": {"cli"},
}  # fmt: skip
"""What each room may import, rooms in order; a new one is added here and in docs/architecture.md."""


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("lessen.")}
    return rooms


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in MAY_IMPORT, (
        f"new room {room}: say in MAY_IMPORT and docs/architecture.md what it may import"
    )
    forbidden = imports_of(path) - MAY_IMPORT[room] - {room}
    assert not forbidden, f"{room} may not import {', '.join(sorted(forbidden))}"


def test_only_the_adapter_and_its_neighbours_know_transformers() -> None:
    allowed = {"hf", "registration.py", "config.py", "loading.py", "train", "measure", "cli", "model"}
    allowed |= {"families", "foreign.py", "gguf.py"}
    parts = {"model": "ACT2FN", "families": "ROPE_INIT_FUNCTIONS"}
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).parts[0]
        text = path.read_text(encoding="utf-8")
        if place not in allowed:
            assert "import transformers" not in text, path
            assert "from transformers" not in text, path
        if place in parts:
            lines = [line for line in text.splitlines() if "transformers" in line and "import" in line]
            assert all(parts[place] in line for line in lines), path


def test_every_public_name_is_documented() -> None:
    import lessen

    page = (SOURCE.parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    readme = (SOURCE.parent.parent / "README.md").read_text(encoding="utf-8")
    missing = [name for name in lessen.__all__ if f"`{name}" not in page + readme]
    assert not missing, f"public names not in README.md or docs/architecture.md: {missing}"


def test_arrows_point_one_way() -> None:
    """A room may only import rooms that stand before it in the table."""
    order = list(MAY_IMPORT)
    for place, (room, allowed) in enumerate(MAY_IMPORT.items()):
        assert allowed <= set(order[:place]), f"{room} may import a room that stands after it"
