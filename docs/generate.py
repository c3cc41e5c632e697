"""Write `docs/cli.md` from the commands' own help, and the JSON schemas of Shape and Point."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from lessen.cli import app
from lessen.plan import Point, Shape

DOCS = Path(__file__).parent

HEADER = """# Commands

Generated from the commands' own help by `make docs`; a test keeps it current.

`--json` on every command prints one JSON object on stdout; progress goes to stderr. Exit code 0 means
success, 2 bad usage or bad input (one line says what), 130 interrupted. `--debug` shows the traceback of an
error.
"""


def cli_page() -> str:
    """The help of every command as one Markdown page."""
    group: Any = typer.main.get_command(app)
    parts = [HEADER]
    for name, command in group.commands.items():
        context = typer.Context(
            command, info_name=f"lessen {name}", terminal_width=100, max_content_width=100
        )
        parts.append(f"## lessen {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def schemas() -> dict[str, str]:
    """File name to content."""
    return {
        f"schema/{kind.__name__.lower()}.json": json.dumps(kind.model_json_schema(), indent=2) + "\n"
        for kind in (Shape, Point)
    }


def main() -> None:
    """Write the pages, or with --check exit 1 if they are stale."""
    stale = []
    for name, content in {"cli.md": cli_page(), **schemas()}.items():
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(stale)}; run make docs")


if __name__ == "__main__":
    main()
