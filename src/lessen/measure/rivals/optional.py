"""Packages only a comparison needs: imported when asked for, and kept from chattering."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any

from lessen.errors import InputError


def optional(package: str) -> Any:
    """Import a package of the `bench` extra.

    Raises:
        InputError: When it is not installed, saying how to install it.
    """
    try:
        with quietly():
            return import_module(package)
    except ImportError as error:
        missing = error.name or package
        raise InputError(
            f"this rival needs the package {missing}; run: pip install 'lessen[bench]'"
        ) from None


@contextmanager
def quietly() -> Iterator[None]:
    """Nothing printed, warned or logged below an error reaches the terminal from inside the block."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
