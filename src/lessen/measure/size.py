"""Where the bytes of a model are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lessen.artefact import WEIGHTS

OF_TOKENIZER = ("tokenizer", "vocab", "merges", "sentencepiece", "spiece", "special_tokens", "added_tokens")
"""How the names of its files begin."""


def bytes_by_part(model: Any, folder: Path | None = None) -> dict[str, int]:
    """Bytes as the model is stored, of each kind of part.

    Args:
        model: Any loaded model.
        folder: Its own, whose files are measured too.

    Returns:
        `weights` (matrices and biases of the layers), `scales` (and seals, of weights of few bits), `norms`,
        `embeddings` (tables), `exits`; with a folder also `listing` (what else is in the file) and
        `tokenizer`.
    """
    found = dict.fromkeys(("weights", "scales", "norms", "embeddings", "exits"), 0)
    for name, tensor in model.transformer.state_dict().items():
        found[_part_of(name)] += tensor.numel() * tensor.element_size()
    file = None if folder is None else folder / WEIGHTS
    if folder is not None and file is not None and file.is_file():
        found["listing"] = file.stat().st_size - sum(found.values())
        files = (place for place in folder.iterdir() if place.name.startswith(OF_TOKENIZER))
        found["tokenizer"] = sum(place.stat().st_size for place in files)
    return found


def _part_of(name: str) -> str:
    place, _, kind = name.rpartition(".")
    if name.startswith("exits."):
        return "exits"
    if kind in ("scales", "seal"):
        return "scales"
    if "norm" in place.split(".")[-1]:
        return "norms"
    return "embeddings" if name.startswith("embeddings.") else "weights"
