"""Write all tables into docs/results.md from the results files, and some of them into the README.

`--check` fails if either is stale.

python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bits_tables import bits_quality_table, bits_speed_table, bits_warm_table
from cells import read
from exit_tables import accuracy_table, latency_table, promise_table, speed_table
from generator_tables import generator_decode_table, generator_exits_table
from prefill_tables import prefill_tables, seq2seq_table
from token_tables import token_ablation_table, token_points_table, token_quality_table, token_speed_table
from width_tables import width_brief_table, width_quality_table, width_speed_table

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- tables: made by benchmarks/tables.py, do not edit -->\n"
END = "<!-- end of tables -->"

Table = Callable[[dict[str, Any]], str]
"""From what a results file holds to its table, with a title above."""


GROUPS: dict[str, dict[str, Table]] = {
    "Exits": {
        "sst2_exits": accuracy_table,
        "promise": promise_table,
        "exit_latency": latency_table,
        "dense_speed": speed_table,
    },
    "Tokens": {
        "token_quality": token_quality_table,
        "token_ablation": token_ablation_table,
        "token_points": token_points_table,
        "token_speed": token_speed_table,
    },
    "Width": {
        "width_quality": width_quality_table,
        "width_mpnet-l12": width_quality_table,
        "width_speed": width_speed_table,
    },
    "Bits": {
        "bits_quality": bits_quality_table,
        "bits_warm": bits_warm_table,
        "bits_speed": bits_speed_table,
    },
    "Generators": {
        "generator_exits": generator_exits_table,
        "generator_decode": generator_decode_table,
        "prefill_tokens": prefill_tables,
    },
    "T5": {
        "seq2seq_quality": seq2seq_table,
    },
}
"""In docs/results.md, by what there is less of."""

IN_README: dict[str, Table] = {
    "sst2_exits": accuracy_table,
    "exit_latency": latency_table,
    "token_quality": partial(token_quality_table, selections=("mean",), tasks=("imdb",)),
    "width_quality": width_brief_table,
    "dense_speed": speed_table,
}
"""One of each kind, without controls."""

NOT_RUN = {
    "bits_quality": "Binary weights from scratch",
    "generator_exits": "Exits that learn a generator's own next tokens",
    "generator_decode": "How a generator with exits decodes",
    "prefill_tokens": "Prompt tokens that leave",
    "seq2seq_quality": "A small T5 from scratch",
}
"""Said to be missing while they are."""


def grouped() -> str:
    """All tables, under a heading for each group, after links to these."""
    links = ", ".join(f"[{group}](#{group.lower()})" for group in GROUPS)
    return "\n".join([f"{links}\n", *(f"## {group}\n\n{tables(chosen)}" for group, chosen in GROUPS.items())])


def tables(chosen: Mapping[str, Table]) -> str:
    """Those whose benchmarks have been run; of some it is said that they have not."""
    parts = []
    for name, table in chosen.items():
        if (result := read(name)) is not None:
            place = f"`benchmarks/results/{name}.json`: {measured(result)}"
            parts.append(f"{table(result)}\n<sub>{place}</sub>\n")
        elif name in NOT_RUN:
            parts.append(f"### {NOT_RUN[name]}\n\nNot run yet (`benchmarks/{name}.py`).\n")
    return "\n".join(parts)


def measured(result: Mapping[str, Any]) -> str:
    """On what, when and at which commits; of each part, where a file has parts of several machines."""
    if "machines" in result:
        each = (found for parts in result["machines"].values() for found in parts.items())
        return "; ".join(f"{part} {measured(facts)}" for part, facts in each)
    found = f"{result['machine']['processor']}, {result['machine']['date'][:10]}"
    if commits := measured_at(result):
        found += f", commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    return found


def measured_at(result: Mapping[str, Any]) -> list[str]:
    """The commits the runs of a file were made at, the first first; its own where runs do not say."""
    runs = result.get("runs", ())
    of = [run["commit"] for run in runs if isinstance(run, Mapping) and run.get("commit")]
    return list(dict.fromkeys(of or filter(None, [result.get("commit")])))


def main() -> None:
    """Rewrite both files, or check them."""
    for name, made in (("README.md", tables(IN_README)), ("docs/results.md", grouped())):
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        fresh = head + BEGIN + made + END + rest.split(END, 1)[1]
        if "--check" not in sys.argv:
            path.write_text(fresh, encoding="utf-8")
        elif fresh != text:
            sys.exit(f"{name}: the tables are stale; run python benchmarks/tables.py")


if __name__ == "__main__":
    main()
