"""The folder of a run's unfinished work: whose it is, and what it was begun with."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lessen.artefact import KEPT, LEARNED, check_place, replacing_folder, write_json
from lessen.card import write_card
from lessen.data.table import Table
from lessen.errors import InputError, PlanError
from lessen.model.digests import base_digest
from lessen.promise.batches import CALIBRATING
from lessen.records import Strict, parse

Say = Callable[[str], None]
"""Is told how a run goes, line by line."""

RECORD = "training.json"
"""What a run did, in its result."""

PLAN, INPUTS, ANSWERED = "plan.json", "inputs.json", "replies"
"""A run's plan, what it was begun with, and a folder of the model's own answers to learn from, each of which
knows what it answers: they are there before the plan is."""


def working_folder(plan: Strict, out: Path) -> Path:
    """The folder of a run's unfinished work, `OUT.work`; it is deleted when the run is finished.

    Raises:
        InputError: When it holds that of another plan, or anything else.
        ArtefactError: When something at `out` would be lost.
    """
    check_place(out)
    work = work_of(out)
    place = work / PLAN
    if work.exists() and not work.is_dir():
        raise InputError(f"{work} is a file, where unfinished work would go; move it, or give another --out")
    if place.exists():
        written = _read(place, type(plan))
        if written is None:
            raise InputError(f"{place} is damaged; delete {work} to begin anew")
        if written != plan:
            raise InputError(
                f"{work} holds the unfinished work of another plan; finish it with --plan {place}, or delete "
                "it"
            )
    elif work.exists() and any(not _begins(each.name) for each in work.iterdir()):
        raise InputError(
            f"{work} holds what is no unfinished work (there is no {PLAN}), and would be deleted in the end; "
            "move it, or give another --out"
        )
    return work


def begun(out: Path) -> bool:
    """Whether a run for that place was begun and is not finished."""
    return (work_of(out) / PLAN).exists()


def work_of(out: Path) -> Path:
    """The folder of the unfinished work on what goes to a place."""
    out = out.resolve()
    return out.with_name(out.name + ".work")


@contextmanager
def result_folder(out: Path, plan: Strict, *, written: bool = True) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A run's result: a folder to save the model in, and a record for `training.json` to fill.

    What speaks of the run is written when the block ends (plan, record, model card), and only then does the
    folder take its place.

    Args:
        out: The place.
        plan: Of the run.
        written: If not, all this is done somewhere that is deleted, and what is at `out` stays.
    """
    with replacing_folder(out) if written else _elsewhere() as fresh:
        record: dict[str, Any] = {}
        yield fresh, record
        if (fresh / KEPT).exists():  # which says more than what a changed model carries along by itself
            (fresh / LEARNED).unlink(missing_ok=True)
        write_json(fresh / PLAN, plan.model_dump(mode="json"))
        write_json(fresh / RECORD, record)
        write_card(fresh, out.name)


@contextmanager
def _elsewhere() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def _begins(name: str) -> bool:
    """Whether a name is of what may be all there is where a run was killed as it began."""
    half = tuple(f".{whole}." for whole in (INPUTS, PLAN))
    return name in (INPUTS, ANSWERED, CALIBRATING) or name.startswith(half)


def begin_work(work: Path, plan: Strict, tables: Mapping[str, Table], model: Any) -> None:
    """Write a plan into its folder of unfinished work, and what it is carried out on.

    What was finished there is only taken over where rows and model are the same: rows drawn anew would be
    tested on a model that has learned them.

    Args:
        work: The folder.
        plan: Of the run.
        tables: Rows of each part.
        model: That the run starts from.

    Raises:
        InputError: When the folder holds work on other rows, or on another model.
    """
    now = {f"rows: {name}": table.digest() for name, table in tables.items()}
    now["model"] = base_digest(model.transformer)
    place = work / INPUTS
    if (work / PLAN).exists() and (before := _written(place)) != now:
        changed = sorted(name for name in now if before.get(name) != now[name])
        raise InputError(
            f"{work} holds unfinished work on what has changed since ({', '.join(changed)}); delete it to "
            "begin anew, or bring back what it was begun with"
        )
    write_json(place, now)
    write_json(work / PLAN, plan.model_dump(mode="json"))


def _written(place: Path) -> dict[str, str]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(place: Path, kind: type[Strict]) -> Strict | None:
    """The plan a file holds, perhaps written before some fields with defaults were known; None if none.

    A plan of another kind is no damage: an empty one stands for it, which equals nothing.
    """
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    try:
        return parse(kind, content, str(place))
    except PlanError:
        return Strict()
