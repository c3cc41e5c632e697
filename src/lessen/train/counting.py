"""A progress bar for work that is done in equal parts and can be stopped between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TypeVar

from lessen.errors import Interrupted
from lessen.train.progress import Progress

Watch = Callable[[int, int], None]
"""`watch(done, total)`, called whenever a part is finished."""


Part = TypeVar("Part")


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
    """Show how far the work inside the block is.

    Args:
        title: Of the work.
        unit: What is counted.
        quiet: Show nothing.
        kept: Whether the same command goes on from what is finished, as a stopped one is told.

    Raises:
        Interrupted: On Ctrl-C.
    """
    progress = Progress(quiet=quiet, title=title)
    state = SimpleNamespace(max_steps=0, global_step=0)

    def watch(done: int, total: int) -> None:
        begun = state.max_steps > 0
        state.max_steps, state.global_step = total, done
        (progress.on_step_end if begun else progress.on_train_begin)(None, state, None)

    try:
        yield watch
    except KeyboardInterrupt:
        done = f"{state.global_step:,} of {state.max_steps:,} {unit}"
        next_time = "run the same command to continue" if kept else "nothing was kept"
        raise Interrupted(f"stopped after {done}; {next_time}") from None
    finally:
        progress.on_train_end(None, state, None)
