"""Parts of a table that share no text: exact sizes, and the same parts on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction

from lessen.data.table import Table, keys_of, row_key, words
from lessen.errors import InputError

IN_PLAIN_TEXT = " (in a .txt texts are parted by empty lines; a .csv or .jsonl has one a row)"


def split(table: Table, shares: Mapping[str, float], seed: int) -> dict[str, Table]:
    """Cut a table into disjoint parts of exact size, by a seeded hash of each text.

    Rows that say the same (`row_key`) go to the same part. Sizes are rounded by largest remainder and are
    exact as long as enough texts occur only once; the rows of a part keep the table's order. Which texts a
    part gets depends on the texts, the shares and the seed, not on the order of the rows.

    Args:
        table: What to cut.
        shares: The share of each part, in (0, 1]; when they add up to less than 1 the rest is in no part.
        seed: Another seed gives other parts.

    Raises:
        InputError: When a share is not in (0, 1], the shares exceed 1, or a part would have no rows.
    """
    sizes = _sizes(table, shares)
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(table.texts):
        groups.setdefault(row_key(text), []).append(row)
    drawn = {key: hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest() for key in groups}
    parts: dict[str | None, list[int]] = {part: [] for part in sizes}
    for key in sorted(
        groups, key=lambda key: (-len(groups[key]), drawn[key])
    ):  # single texts fill up at the end
        room = {part: sizes[part] - len(rows) for part, rows in parts.items()}
        parts[_draw(room, len(groups[key]), drawn[key])] += groups[key]
    for part in shares:
        if not parts[part]:
            raise InputError(
                f"{table.name}: {len(table)} rows are too few, {part!r} would get none; give more rows"
                f"{IN_PLAIN_TEXT if table.name.endswith('.txt') else ''}"
            )
    return {part: replace(table.take(sorted(parts[part])), name=f"{table.name} ({part})") for part in shares}


def _draw(room: dict[str | None, int], rows: int, drawn: bytes) -> str | None:
    """A part with room for so many rows, its chance as large as its room; else the one with most room."""
    fitting = [part for part in room if room[part] >= rows] or [max(room, key=room.__getitem__)]
    at = int.from_bytes(drawn[8:]) % sum(room[part] for part in fitting)  # the first bytes made the order
    for part in fitting:
        at -= room[part]
        if at < 0:
            break
    return part


def _sizes(table: Table, shares: Mapping[str, float]) -> dict[str | None, int]:
    """Rows for each part, and for the rest (None); together all rows of the table."""
    for part, share in shares.items():
        if not 0 < share <= 1:
            raise InputError(f"the share of {part!r} is {share}; it must be above 0 and at most 1")
    exact: dict[str | None, Fraction] = {part: Fraction(repr(float(share))) for part, share in shares.items()}
    total = sum(exact.values(), Fraction(0))
    if not exact or total > 1 + Fraction(1, 10**9):
        raise InputError(
            f"the shares of {', '.join(shares) or 'no parts'} add up to {float(total)}; at most 1 is there"
        )
    exact = {part: share / max(total, Fraction(1)) for part, share in exact.items()}
    exact[None] = max(1 - total, Fraction(0))
    sizes = {part: int(share * len(table)) for part, share in exact.items()}
    remainders = sorted(exact, key=lambda part: sizes[part] - exact[part] * len(table))
    for up in remainders[: len(table) - sum(sizes.values())]:
        sizes[up] += 1
    return sizes


def without(table: Table, others: Iterable[Table]) -> tuple[Table, int]:
    """Drop the rows that say the same as a row of the others; returns the rest, and how many were dropped."""
    taken = {row_key(text) for other in others for text in other.texts}
    kept = [row for row, text in enumerate(table.texts) if row_key(text) not in taken]
    return table.take(kept), len(table) - len(kept)


def without_keys(table: Table, keys: Collection[str]) -> tuple[Table, int]:
    """Drop the rows whose text has one of some hashes (`keys_of`); returns the rest, and the count."""
    if not keys:
        return table, 0
    known = frozenset(keys)
    kept = [row for row, text in enumerate(table.texts) if known.isdisjoint(keys_of(text))]
    return table.take(kept), len(table) - len(kept)


def without_repeats(table: Table) -> Table:
    """The first row of each text; later ones that say the same are dropped."""
    first: dict[str, int] = {}
    for row, text in enumerate(table.texts):
        first.setdefault(row_key(text), row)
    return table.take(sorted(first.values()))


def without_contained(table: Table, others: Iterable[Table]) -> tuple[Table, int]:
    """Drop the rows that stand, as whole words, inside a text of the others; returns the rest and the count.

    SST-2 trains on phrases of its own sentences: no phrase of a held-out sentence may stay in training. A
    pair is dropped when both its texts stand inside texts of the others. A text without any word is kept.

    The table's texts become a prefix tree over words; the others are read through it once, from each word on,
    as long as some text of the table goes on like that. Exact, and nearly linear in both.
    """
    numbers: dict[str, int] = {}
    steps: dict[int, int] = {}  # (node << 32 | word) -> node; the root is 0
    ends: list[list[int]] = []
    for text in table.texts:
        row = []
        for part in _parts(text):
            node = 0
            for word in words(part):
                number = numbers.setdefault(word, len(numbers))
                node = steps.setdefault(node << 32 | number, len(steps) + 1)
            row.append(node)
        ends.append(row)
    inside: set[int] = set()
    for other in others:
        for text in other.texts:
            for part in _parts(text):
                path = [numbers.get(word, -1) for word in words(part)]
                for start in range(len(path)):
                    inside.update(_walk(steps, path, start))
    kept = [row for row, nodes in enumerate(ends) if not inside.issuperset(nodes)]
    return table.take(kept), len(table) - len(kept)


def _walk(steps: dict[int, int], path: list[int], start: int) -> list[int]:
    """The nodes met from `start` on; a word the tree does not know (-1) ends the walk."""
    node, met = 0, []
    for at in range(start, len(path)):
        node = steps.get(node << 32 | path[at], 0) if path[at] >= 0 else 0
        if not node:
            break
        met.append(node)
    return met


def _parts(text: str | tuple[str, str]) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text
