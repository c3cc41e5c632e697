"""Files of tensors that keep answers, or hashes of texts: how they are read, and how they hold hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from lessen.errors import ArtefactError


@contextmanager
def content_of(path: Path, advice: str) -> Iterator[tuple[dict[str, str], dict[str, torch.Tensor]]]:
    """What a file says of itself, and its tensors, to make something of inside the block.

    Args:
        path: Of the file.
        advice: What to do about a bad one.

    Raises:
        ArtefactError: When the file is missing or damaged, or lacks what the block looks for.
    """
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        yield about, tensors
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ArtefactError(f"{path}: cannot be read ({error}); {advice}") from None


def pack_keys(keys: Sequence[str]) -> torch.Tensor:
    """Hashes of 16 hex digits as bytes, `[rows, 8]`."""
    raw = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8)
    return torch.from_numpy(raw.reshape(len(keys), 8).copy())


def keys_in(tensors: Mapping[str, torch.Tensor], name: str) -> frozenset[str]:
    """The hashes a file keeps under a name; none where an older one does not have it."""
    return frozenset(unpack_keys(tensors[name])) if name in tensors else frozenset()


def unpack_keys(packed: torch.Tensor) -> tuple[str, ...]:
    """The inverse.

    Raises:
        ValueError: When these are no such bytes.
    """
    if packed.dtype != torch.uint8 or packed.dim() != 2 or packed.shape[1] != 8:
        raise ValueError(f"hashes of {tuple(packed.shape)} {packed.dtype}, not of 8 bytes each")
    return tuple(row.tobytes().hex() for row in packed.numpy())
