"""What happens between the steps of a training: stopping when asked, clipping, telling how much is done."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from lessen.bits.binarizer import clip
from lessen.progress import Bar


class Along(TrainerCallback):
    """How much of a training is done, and who is told.

    Attributes:
        share: Of its steps, from 0 to 1.
    """

    def __init__(self, told: Callable[[float], None] | None = None) -> None:
        self.share = 0.0
        self.told = told

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._tell(state.global_step / max(1, state.max_steps))

    def finish(self) -> None:
        """All of it is done."""
        self._tell(1.0)

    def _tell(self, share: float) -> None:
        self.share = share
        if self.told is not None:
            self.told(share)


class Shown(TrainerCallback):
    """A training's steps and running loss on a progress bar."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.begin(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.bar.note = f"loss {float(logs['loss']):.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.show(state.global_step, state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.end()


class Clipping(TrainerCallback):
    """After each step, keep the real numbers behind binary weights where they can still learn."""

    def __init__(self, latents: Sequence[Tensor]) -> None:
        self.latents = latents

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        clip(self.latents)


class BestBeside(TrainerCallback):
    """The best checkpoint lies beside the newest, wherever their folder was when they were written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.best_global_step:
            state.best_model_checkpoint = str(self.folder / f"checkpoint-{state.best_global_step}")


class StopAtStepEnd(TrainerCallback):
    """On the first Ctrl-C or SIGTERM finish the step, save and stop; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        if self.asked:
            control.should_save = True
            control.should_training_stop = True
        return control

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen while the block runs (in the main thread only, where signals arrive)."""
        try:
            before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step, writing a checkpoint (again to stop at once)", file=sys.stderr)
