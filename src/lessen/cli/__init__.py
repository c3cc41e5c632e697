"""The command line: one file per command, errors in one line, `--json` for machines."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TextIO

import typer

from lessen.cli import bench, calibrate, compress, demo, evaluate, generate, inspect, predict, report
from lessen.cli.panels import InPanels
from lessen.errors import Interrupted, LessenError, LessenWarning
from lessen.memory import keep_freed_memory

app = typer.Typer(
    name="lessen",
    help="Make pre-trained Transformers do less work wherever less is enough. (--version, --debug)",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = {
    "demo": demo,
    "compress": compress,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "bench": bench,
    "predict": predict,
    "generate": generate,
    "report": report,
    "inspect": inspect,
}
INTERRUPTED = 130
"""Exit code after Ctrl-C."""


class Command(InPanels):
    """A command that loads libraries when it runs: it takes seconds, which help and usage errors need not."""

    def invoke(self, ctx: Any) -> Any:
        """Run it, with libraries that say nothing of their own accord."""
        _quiet_libraries()
        return super().invoke(ctx)


for name, module in COMMANDS.items():
    app.command(name=name, cls=Command)(module.command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point; exits 0 on success, 2 on bad usage or input, 130 when interrupted, 1 on a defect."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    keep_freed_memory()
    try:
        with _stopped_as_by_ctrl_c():
            code = _run(given, debug)
    except KeyboardInterrupt:  # while libraries are loaded, which takes seconds
        print("lessen: interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


@contextmanager
def _stopped_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: with its line, and nothing lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(given: list[str], debug: bool) -> int:
    if given == ["--version"]:
        print(version("lessen"))
        return 0
    try:
        with _warnings_in_a_line():
            if app(given, standalone_mode=False, prog_name="lessen") == INTERRUPTED:  # typer swallows Ctrl-C
                raise KeyboardInterrupt
    except typer.TyperException as error:
        message = error.format_message()
        command = next((word for word in given if not word.startswith("-")), "")
        if not message.startswith("Usage:"):
            where = f"lessen {command}" if command in COMMANDS else "lessen"
            message = f"lessen: {' '.join(message.split())} (see {where} --help)"
        print(message, file=sys.stderr)
        return 2
    except LessenError as error:
        if debug:
            traceback.print_exc()
        print(f"lessen: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt, typer.Abort) as error:
        print(f"lessen: {str(error) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        cause = " ".join(str(error).split())[:300]
        print(f"lessen: {type(error).__name__}: {cause} (a defect; --debug shows where)", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Our own warnings look as our errors do."""
    show = warnings.showwarning

    def shown(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, LessenWarning):
            print(f"lessen: {' '.join(str(message).split())}", file=sys.stderr)
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = shown
        yield


def _quiet_libraries() -> None:
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
