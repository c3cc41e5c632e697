"""Errors are part of the interface: each message says what is wrong, where, and what to do, in one line."""

from __future__ import annotations


class LessenError(Exception):
    """Base of every error a user can cause; the command line prints it as one line and exits with code 2."""


class InputError(LessenError):
    """A file, a column, a row or an option the user gave cannot be used."""


class PlanError(LessenError):
    """A Shape, a Point or another part of `config.json` is malformed, unknown or from a newer version.

    Attributes:
        field: The one that is wrong; empty where that is not known.
        problem: What is wrong with it.
        found: What it was.
    """

    def __init__(self, message: str, field: str = "", problem: str = "", found: object = None) -> None:
        super().__init__(message)
        self.field = field
        self.problem = problem
        self.found = found


class ArtefactError(LessenError):
    """A model folder is incomplete, truncated, foreign, or cannot be written."""


class UnsupportedModelError(LessenError):
    """The checkpoint's architecture is not one lessen knows; the message names those it does."""


class Interrupted(Exception):
    """Training was stopped by the user; the checkpoint in the working folder continues it."""


class LessenWarning(UserWarning):
    """What a user should know that is no error; the command line prints it as one line."""


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; its kind where it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
