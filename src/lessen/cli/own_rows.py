"""The rows a model was made from, read and split again as its `plan.json` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lessen.cli.output import say
from lessen.errors import InputError, LessenError


def rows_of_split(folder: Path, split: str) -> tuple[Any, str]:
    """Rows of one split of a classifier's data, and what they are.

    Args:
        folder: Written by `lessen compress`.
        split: `test` or `calibration`.

    Raises:
        InputError: When they cannot be read again.
    """
    from lessen.systems.dividing import read_splits
    from lessen.systems.planning import CompressionPlan

    plan, splits = _again(folder, split, "rows", CompressionPlan, read_splits)
    return splits[split], _named(plan, split, "rows")


def documents_of_split(folder: Path, split: str) -> tuple[Any, str]:
    """The same of the text a generator was made from."""
    from lessen.systems.generator import LanguagePlan, read_documents

    plan, splits = _again(folder, split, "documents", LanguagePlan, read_documents)
    return splits[split], _named(plan, split, "documents")


def _again(folder: Path, split: str, unit: str, kind: Any, reading: Any) -> tuple[Any, Any]:
    from lessen.history import learned_before
    from lessen.records import parse

    place = folder / "plan.json"
    try:
        plan = parse(kind, json.loads(place.read_text(encoding="utf-8")), str(place))
        return plan, reading(plan, learned_before(folder))
    except (OSError, ValueError, LessenError) as error:
        raise InputError(
            f"the {split} {unit} of {folder} cannot be read again ({error}); give --data"
        ) from None


def _named(plan: Any, split: str, unit: str) -> str:
    return f"{split} {unit} of {(plan.test_data if split == 'test' else None) or plan.data}"


def read_again(reading: Any, folder: Path) -> Any:
    """Those that answers in another precision were kept of; says that it reads them."""
    table_of, about = reading(folder, "calibration")
    say(f"the kept answers are another precision's; {about} are read again")
    return table_of
