"""From labels as they stand in a file to numbers, and which task they are for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from lessen.data.table import KINDS, Kind
from lessen.errors import InputError

MANY_CLASSES = 50
"""Above so many classes, with fewer than two rows for each, a label column is taken for a mistake."""

Where = Callable[[int], str]
"""Says in which file and row the value at an index stands."""


def code_labels(
    values: Sequence[Any],
    name: str,
    where: Where,
    task: str | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[Kind, list[Any], list[str]]:
    """Turn labels as they stand in a file into numbers.

    Without `task` the values decide: lists are multi-label; strings, integers and booleans are classes;
    numbers with a fraction anywhere are regression targets. Floats that are all whole are regression targets
    too, unless there are at most two different ones (0.0 and 1.0 are how other tools write a class column
    with gaps).

    Args:
        values: One label for each row.
        name: The data, for messages about all of it.
        where: Names file and row, for messages about one label.
        task: "classification", "multi-label" or "regression", or the names of them in `Table.kind`.
        classes: Names of the integer labels, where the file declares them.

    Returns:
        The kind of task, the labels as `Table` holds them, and the label names.

    Raises:
        InputError: For a missing or unusable label, naming its row; for an unknown `task`.
    """
    if task is not None and task not in KINDS and task not in KINDS.values():
        raise InputError(f"unknown task {task!r}; choose {', '.join(KINDS)}")
    for row, value in enumerate(values):
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            raise InputError(f"{where(row)}: the label is missing; fill it in or remove the row")
        if not isinstance(value, str | int | float | list | tuple):
            raise InputError(
                f"{where(row)}: a label cannot be of type {type(value).__name__}; use text or a number"
            )
    kind = _kind(values, name, where, classes) if task is None else KINDS.get(task, task)
    if kind == "regression":
        return "regression", [_target(value, where(row)) for row, value in enumerate(values)], []
    if kind == "multi_label_classification":
        return "multi_label_classification", *_label_sets(values, name, where, classes)
    return "single_label_classification", *_class_indices(values, where, classes)


def _kind(values: Sequence[Any], name: str, where: Where, classes: Sequence[str] | None) -> Kind:
    types = set(map(type, values))
    if types <= {list, tuple}:
        return "multi_label_classification"
    if types & {list, tuple}:
        first = isinstance(values[0], list | tuple)
        row = next(i for i, value in enumerate(values) if isinstance(value, list | tuple) != first)
        raise InputError(f"{where(row)}: labels mix lists and single values; make all of them lists")
    different = set(values)
    if float in types and types <= {int, float}:
        fractions = any(not float(value).is_integer() for value in different if isinstance(value, float))
        if fractions or len(different) > 2:
            return "regression"
    if classes is None and len(different) > MANY_CLASSES and 2 * len(different) > len(values):
        raise InputError(
            f"{name}: the label column has {len(different)} different values in {len(values)} rows; "
            "name another column as the label, or say which task it is"
        )
    return "single_label_classification"


def _target(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: the target {value!r} is not a number") from None
    if not math.isfinite(number):
        raise InputError(f"{where}: the target is {number}; regression needs finite numbers")
    return number


def _class_name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _class_names(values: Sequence[Any]) -> list[str]:
    if set(map(type, values)) <= {int, float}:
        return list(dict.fromkeys(map(_class_name, sorted(set(values)))))
    return sorted(set(map(_class_name, values)))


def _class_indices(
    values: Sequence[Any], where: Where, classes: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    for row, value in enumerate(values):
        if isinstance(value, list | tuple):
            raise InputError(f"{where(row)}: classification takes one label for a row, not a list of them")
    if classes is None:
        names = _class_names(values)
        place = {label: index for index, label in enumerate(names)}
        indices = [place[_class_name(value)] for value in values]
    else:
        names = list(classes)
        indices = [_declared(value, classes, where(row)) for row, value in enumerate(values)]
    return indices, names


def _declared(value: Any, classes: Sequence[str], where: str) -> int:
    if type(value) is not int or not 0 <= value < len(classes):
        raise InputError(f"{where}: label {value!r} is none of the {len(classes)} declared classes")
    return value


def _label_sets(
    values: Sequence[Any], name: str, where: Where, classes: Sequence[str] | None
) -> tuple[list[list[int]], list[str]]:
    rows = [_members(value, where(row)) for row, value in enumerate(values)]
    width = len(rows[0])
    if width > 1 and all(len(row) == width and all(_is_bit(value) for value in row) for row in rows):
        names = list(classes) if classes and len(classes) == width else [str(i) for i in range(width)]
        vectors = [[int(value) for value in row] for row in rows]
    else:
        members = [value for row in rows for value in row]
        names = _class_names(members) if classes is None else list(classes)
        place = {label: index for index, label in enumerate(names)}
        vectors = []
        for at, row in enumerate(rows):
            on = {place[_class_name(v)] if classes is None else _declared(v, classes, where(at)) for v in row}
            vectors.append([int(i in on) for i in range(len(names))])
    if not any(map(any, vectors)):
        raise InputError(f"{name}: no row has a label; multi-label data needs at least one")
    return vectors, names


def _is_bit(value: Any) -> bool:
    return not isinstance(value, str) and value in (0, 1)


def _members(value: Any, where: str) -> list[Any]:
    """The labels of one row: a list, a JSON list in a CSV cell, labels separated by `;`, or one label."""
    members = value if isinstance(value, list | tuple) else [value]
    if isinstance(value, str):
        members = value.split(";")
        if value.lstrip().startswith("["):
            try:
                members = json.loads(value)
            except (ValueError, RecursionError):
                raise InputError(f"{where}: {value[:40]!r} is not a JSON list of labels") from None
    for member in members:
        if not isinstance(member, str | int | float) or member != member or not str(member).strip():
            raise InputError(
                f"{where}: {str(member)[:40]!r} cannot be one of a row's labels; use text or a number"
            )
    return list(members)
