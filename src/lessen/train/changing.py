"""What a training changes of a model besides its weights, and puts back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def changed(attributes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes as given for as long as the block runs, then as they were.

    Args:
        attributes: Of each its object, name and value; what is named twice is put back to its first value.
    """
    before: list[tuple[Any, str, Any]] = []
    try:
        for part, name, value in attributes:
            before.append((part, name, getattr(part, name)))
            setattr(part, name, value)
        yield
    finally:
        for part, name, value in reversed(before):
            setattr(part, name, value)
