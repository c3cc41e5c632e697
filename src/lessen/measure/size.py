"""Where the bytes of a model are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lessen.artefact import WEIGHTS

OF_TOKENIZER = ("tokenizer", "vocab", "merges", "sentencepiece", "spiece", "special_tokens", "added_tokens")
"""How the names of its files begin."""


def bytes_by_part(model: Any, folder: Path | None = None) -> dict[str, int]:
    """Bytes of each kind of part.

    Args:
        model: Any loaded model.
        folder: The one it was written to: then as it is stored there, else as it is in memory.

    Returns:
        `weights` (matrices and biases of the layers), `scales` (and seals, of weights of few bits), `norms`,
        `embeddings` (tables, and a language head of its own), `exits`; with a folder also `listing` (what
        else is in the file) and `tokenizer`.
    """
    found = dict.fromkeys(("weights", "scales", "norms", "embeddings", "exits"), 0)
    if folder is None or not (folder / WEIGHTS).exists():  # exits saved alone: their model lies elsewhere
        for name, tensor in model.transformer.state_dict().items():
            found[_part_of(name)] += tensor.numel() * tensor.element_size()
        return found
    with (folder / WEIGHTS).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        listing = json.loads(file.read(length))
    for name, entry in listing.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            found[_part_of(name.removeprefix("transformer."))] += end - start
    found["listing"] = 8 + length
    files = (place for place in folder.iterdir() if place.name.startswith(OF_TOKENIZER))
    found["tokenizer"] = sum(place.stat().st_size for place in files)
    return found


def _part_of(name: str) -> str:
    place, _, kind = name.rpartition(".")
    if name.startswith(("exits.", "language_exits.")):
        return "exits"
    if kind in ("scales", "seal"):
        return "scales"
    if "norm" in place.split(".")[-1]:
        return "norms"
    return "embeddings" if name.startswith(("embeddings.", "language_head.")) else "weights"
