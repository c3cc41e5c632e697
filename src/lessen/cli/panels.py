"""The help of a command, its options under headings."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

PLAIN = "Options"


class InPanels(TyperCommand):
    """A command whose options are listed by their `rich_help_panel`, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, options without a heading, then each heading with its own, as first met."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], PLAIN: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_option = parameter.param_type_name == "option"
                heading = (getattr(parameter, "rich_help_panel", None) or PLAIN) if is_option else "Arguments"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
