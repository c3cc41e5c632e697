"""Records read from JSON, and errors that say in one line which field is wrong, and why."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lessen.errors import PlanError

MOST_SEED = 2**32 - 1
"""What all sources of random numbers take."""

Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]

FORMAT_VERSION = 1
"""Of Shape and Point; a higher one in a file is refused."""

Record = TypeVar("Record", bound=BaseModel)


class Strict(BaseModel):
    """Immutable, and refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def parse(kind: type[Record], value: object, where: str) -> Record:
    """Validate untrusted JSON as a `Shape`, `Point`, ... .

    Args:
        kind: The record class to build.
        value: The decoded JSON value.
        where: File and field named in the error, such as `small/config.json: shape`.

    Raises:
        PlanError: With one line naming the field, what is wrong with it, and (for an unknown field) the
            nearest known one.
    """
    if isinstance(value, Mapping):
        version = value.get("version", FORMAT_VERSION)
        if "version" in kind.model_fields and isinstance(version, int) and version > FORMAT_VERSION:
            raise PlanError(
                f"{where}: written by a newer lessen (format {version}, this one reads {FORMAT_VERSION}); "
                "upgrade lessen"
            )
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _first_problem(kind, error, where) from None


def suggestion(field: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown field: which known one is near."""
    near = difflib.get_close_matches(field, sorted(known), n=1)
    return f", did you mean {near[0]!r}?" if near else "; it may come from a newer lessen"


def _first_problem(kind: type[BaseModel], error: ValidationError, where: str) -> PlanError:
    problems = error.errors()
    problem = problems[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(
        "."
    )
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        field = str(problem["loc"][-1])
        message = "unknown field" + suggestion(field, _fields(kind))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    at = f"{where}: {place}" if place else where
    names = [part for part in problem["loc"] if isinstance(part, str)]
    return PlanError(f"{at}: {message}{more}", names[-1] if names else "", message, problem["input"])


def _fields(kind: type[BaseModel]) -> set[str]:
    """Of a record, and of those inside it."""
    schema = kind.model_json_schema()
    return {
        name for each in (schema, *schema.get("$defs", {}).values()) for name in each.get("properties", ())
    }
