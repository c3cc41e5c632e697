"""Tables and the figures in them, as Markdown. Needs the standard library only."""

from __future__ import annotations


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table, first column left, others right."""
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join([':--', *['--:'] * (len(columns) - 1)])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def percent(share: float) -> str:
    """A share as a number of hundredths."""
    return f"{100 * share:.1f}"


def signed(difference: dict[str, float]) -> str:
    """A difference in hundredths, and its standard error."""
    return f"{100 * difference['mean']:+.1f} ± {100 * difference['se']:.1f}"
