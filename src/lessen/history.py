"""Which texts a model has learned from, so that no later run judges it by them.

A folder that can be calibrated keeps their hashes with its answers; any other one that a run trained on rows
or documents keeps them alone. What a model learned from before is carried along: to the result of the next
run, and wherever it is saved. A pair of texts is one text here, and known as the document both make too:
neither half alone is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file

from lessen.artefact import KEPT, LEARNED
from lessen.data.table import Table, keys_of
from lessen.kept import content_of, keys_in, pack_keys

ADVICE = "it says what the model has learned from; fetch the folder again, or compress again"


def learned_by(model: str | Path) -> frozenset[str]:
    """Hashes of the texts a model has learned from, as far as its folder tells; none of what is no folder.

    Raises:
        ArtefactError: When the file is damaged.
    """
    return _keys(Path(model).expanduser(), "seen")


def learned_before(folder: Path) -> frozenset[str]:
    """Those of them that the model had learned from before the run that made its folder.

    Raises:
        ArtefactError: When the file is damaged.
    """
    return _keys(folder, "before")


def forgotten(model: str | Path) -> bool:
    """Whether a folder was made by a training, and what it learned from is not there any more."""
    folder = Path(model).expanduser()
    made = (folder / "plan.json").is_file() and (folder / "training.json").is_file()
    return made and not any((folder / name).is_file() for name in (KEPT, LEARNED))


def remember(folder: Path, learned: Iterable[str], before: Iterable[str]) -> None:
    """Write down what a model has learned from, and what of it before this run, in a folder that cannot be
    calibrated."""
    tensors = {"seen": pack_keys(sorted(learned)), "before": pack_keys(sorted(before))}
    save_file(tensors, folder / LEARNED)


def texts_learned(tables: dict[str, Table], before: frozenset[str]) -> frozenset[str]:
    """Hashes of all a model has learned from once a run is over: what it trained on and selected steps by."""
    now = [tables[part].texts for part in ("train", "selection") if part in tables]
    return before | {key for texts in now for text in texts for key in keys_of(text)}


def _keys(folder: Path, name: str) -> frozenset[str]:
    for place in (folder / KEPT, folder / LEARNED):
        if place.is_file():
            with content_of(place, ADVICE) as (_, tensors):
                if "seen" not in tensors:
                    raise KeyError("seen")
                return keys_in(tensors, name)
    return frozenset()
