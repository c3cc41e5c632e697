"""A progress bar with time left on stderr, and one line now and then where stderr is not a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from transformers import TrainerCallback

SECONDS_BETWEEN_LINES = 30.0


class Progress(TrainerCallback):
    """Shows steps done, the running loss and the time left."""

    def __init__(self, *, quiet: bool = False, title: str = "training", unit: str = "step") -> None:
        self.quiet = quiet
        self.title, self.unit = title, unit
        self.loss = ""
        self.bar: Bar | None = None
        self.task: Any = None
        self.began = self.printed = 0.0
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = self.printed = time.monotonic()
        self.first_step = state.global_step
        if self.quiet or not sys.stderr.isatty():
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=Console(stderr=True))
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=state.max_steps, completed=state.global_step, loss="")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.loss = f"loss {float(logs['loss']):.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step, loss=self.loss)
        elif not self.quiet and time.monotonic() - self.printed > SECONDS_BETWEEN_LINES:
            self.printed = time.monotonic()
            each = (self.printed - self.began) / max(1, state.global_step - self.first_step)
            left = each * (state.max_steps - state.global_step)
            print(
                f"{self.title}: {self.unit} {state.global_step}/{state.max_steps} {self.loss} "
                f"{left / 60:.1f} min left",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
