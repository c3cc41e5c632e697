"""How far long work is: a bar with time left on stderr, and a line now and then where that is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lessen.errors import Interrupted

SECONDS_BETWEEN_LINES = 30.0

Watch = Callable[[int, int], None]
"""`watch(done, total)`, called whenever a part is finished."""

Part = TypeVar("Part")


class Bar:
    """Parts done, a note such as the running loss, and the time left.

    Args:
        title: Of the work.
        unit: Of its parts, where lines are printed.
        quiet: Show nothing.
    """

    def __init__(self, title: str, unit: str = "step", *, quiet: bool = False) -> None:
        self.title, self.unit, self.quiet = title, unit, quiet
        self.note = ""
        self._drawn: Progress | None = None
        self._task = TaskID(0)
        self._began = self._printed = 0.0
        self._first = 0

    def begin(self, done: int, total: int) -> None:
        """The work begins, or goes on, with so many parts done."""
        self._began = self._printed = time.monotonic()
        self._first = done
        if self.quiet or not sys.stderr.isatty():
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self._drawn = Progress(*columns, console=Console(stderr=True))
        self._drawn.start()
        self._task = self._drawn.add_task(self.title, total=total, completed=done, note="")

    def show(self, done: int, total: int) -> None:
        """So many parts are done."""
        if self._drawn is not None:
            self._drawn.update(self._task, completed=done, total=total, note=self.note)
        elif not self.quiet and time.monotonic() - self._printed > SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            each = (self._printed - self._began) / max(1, done - self._first)
            left = each * (total - done) / 60
            said = [f"{self.title}: {self.unit} {done}/{total}", self.note, f"{left:.1f} min left"]
            print(" ".join(filter(None, said)), file=sys.stderr, flush=True)

    def end(self) -> None:
        """The work is over, or was stopped."""
        if self._drawn is not None:
            self._drawn.stop()


def watched(parts: Sequence[Part], watch: Watch) -> Iterator[Part]:
    """The parts one by one; `watch` is called as each is finished, and before the first."""
    for done, part in enumerate(parts):
        watch(done, len(parts))
        yield part
    watch(len(parts), len(parts))


def adding(watch: Watch, total: int) -> Callable[[int], None]:
    """What is told of some parts more, and tells `watch` of all so far."""
    done = 0
    watch(0, total)

    def told(more: int) -> None:
        nonlocal done
        done += more
        watch(done, total)

    return told


@contextmanager
def counting(title: str, unit: str, *, quiet: bool = False, kept: bool = True) -> Iterator[Watch]:
    """Show how far the work inside the block is; it is done in equal parts and can be stopped between them.

    Args:
        title: Of the work.
        unit: What is counted.
        quiet: Show nothing.
        kept: Whether the same command goes on from what is finished, as a stopped one is told.

    Raises:
        Interrupted: On Ctrl-C.
    """
    bar, so_far = Bar(title, unit, quiet=quiet), (0, 0)

    def watch(done: int, total: int) -> None:
        nonlocal so_far
        begun, so_far = so_far[1] > 0, (done, total)
        (bar.show if begun else bar.begin)(done, total)

    try:
        yield watch
    except KeyboardInterrupt:
        next_time = "run the same command to continue" if kept else "nothing was kept"
        raise Interrupted(f"stopped after {so_far[0]:,} of {so_far[1]:,} {unit}; {next_time}") from None
    finally:
        bar.end()
