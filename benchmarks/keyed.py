"""Runs that are made once, each under a key: a hash of everything that decides what comes out of it.

A change of recipe, task or variant is another key, so it is never answered with what was trained before, and
takes nothing from what is in the results already: runs of other keys stay in the file beside the others, and
are left out of its summary.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from results import CACHE, RESULTS, alone, commit, write_results

from lessen.systems.milestone import Milestone

About = dict[str, Any]
"""What a run is called by: task, seed, variant."""

Run = dict[str, Any]
"""About, `key`, `settings`, `commit`, and what was found."""


def key_of(facts: Any) -> str:
    """A hash of anything JSON can say, in 12 hex digits."""
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def named(name: str, changes: Mapping[str, Any]) -> str:
    """A results file of its own for runs that were changed from the command line."""
    return f"{name}-{key_of(dict(changes))}" if changes else name


@dataclass(frozen=True)
class Ledger:
    """A results file of keyed runs.

    Attributes:
        name: Of the file.
        fields: Names in `About`.
        settings: What tables say of all runs.
        decided_by: Everything that decides a run, what it is called by aside; None of one there is no more.
        summary: Made of all runs whose key is the one they would have now.
    """

    name: str
    fields: tuple[str, ...]
    settings: dict[str, Any]
    decided_by: Callable[[About], dict[str, Any] | None]
    summary: Callable[[list[Run]], dict[str, Any]]

    def key(self, about: About) -> str | None:
        """Of a run, as it would be made now."""
        settings = self.decided_by(about)
        return None if settings is None else key_of([about, settings])

    def everything(self) -> list[Run]:
        """All runs in the file."""
        path = RESULTS / f"{self.name}.json"
        return json.loads(path.read_text())["runs"] if path.exists() else []

    def current(self, runs: Sequence[Run]) -> list[Run]:
        """Those that would be made the same way now."""
        return [run for run in runs if run.get("key") == self.key({name: run[name] for name in self.fields})]

    def has(self, about: About) -> bool:
        """Whether a run is in the file."""
        key = self.key(about)
        return any(run.get("key") == key for run in self.everything())

    def add(self, about: About, found: dict[str, Any]) -> None:
        """Put a run beside the others, whose number never falls."""
        own = {"key": self.key(about), "settings": self.decided_by(about), "commit": commit()}
        with alone(RESULTS / f".{self.name}.lock"):
            self._write([*self.everything(), about | own | found])

    def sum_up(self) -> None:
        """Make the summary anew."""
        with alone(RESULTS / f".{self.name}.lock"):
            if runs := self.everything():
                self._write(runs)

    def once(self, wanted: Sequence[About], make: Callable[[About], dict[str, Any]]) -> None:
        """Make those runs that are not there.

        One that another process is making is passed over, and waited for in the end.
        """
        if stale := len(runs := self.everything()) - len(self.current(runs)):
            print(f"{self.name}: {stale} runs of other settings stay, and are not summed up", file=sys.stderr)
        for wait in (False, True):
            for about in wanted:
                if self.has(about):
                    continue
                lock = CACHE / "locks" / f"{self.name}-{self.key(about)}.lock"
                with alone(lock, wait=wait) as mine:
                    if mine and not self.has(about):
                        self.add(about, make(about))

    def _write(self, runs: list[Run]) -> None:
        current = self.current(runs)
        content = {"settings": self.settings, "stale": len(runs) - len(current), "summary": {}, "runs": runs}
        try:
            content["summary"] = self.summary(current)
        finally:  # a run took minutes: it is kept even where the summary fails
            write_results(self.name, content)


def reached(folder: Path, make: Callable[[Milestone], None]) -> Milestone:
    """What was left in a folder; if nothing is there, it is made, by one process at a time."""
    done = Milestone(folder)
    with alone(folder.with_name(f"{folder.name}.lock")):
        if not done.reached():
            make(done)
    return done
