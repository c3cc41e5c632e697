"""Where the parts of a model are in a Hugging Face checkpoint, and the way there and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lessen.errors import ArtefactError
from lessen.model.architecture import Architecture

Turn = Callable[[Tensor, Architecture], Tensor]


class Layout(NamedTuple):
    """How a family arranges weights and biases that lessen arranges otherwise.

    Attributes:
        read: Theirs to ours.
        write: The inverse.
    """

    read: Turn
    write: Turn


@dataclass(frozen=True)
class Part:
    """Where a part of ours is in their checkpoint.

    Attributes:
        names: Of their parts, laid end to end along the first axis.
        sizes: Of each along it, where they differ; None: all are alike.
        layout: Of each of theirs, where it is another.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...] | None = None
    layout: Layout | None = None


def from_hugging_face(
    state: Mapping[str, Tensor], names: Mapping[str, Part], architecture: Architecture
) -> dict[str, Tensor]:
    """Rename, arrange and join a Hugging Face state dict into ours.

    Args:
        state: Their tensors by name.
        names: From `Family.names`.
        architecture: Of the model.

    Raises:
        ArtefactError: When a part is missing.
    """
    result: dict[str, Tensor] = {}
    for ours, part in names.items():
        for kind in ("weight", "bias"):
            found = [state[f"{name}.{kind}"] for name in part.names if f"{name}.{kind}" in state]
            if kind == "weight" and len(found) < len(part.names):
                missing = next(name for name in part.names if f"{name}.weight" not in state)
                raise ArtefactError(f"the checkpoint has no tensor {missing}.weight")
            if part.layout is not None:
                found = [part.layout.read(tensor, architecture) for tensor in found]
            if found:
                result[f"{ours}.{kind}"] = found[0] if len(found) == 1 else torch.cat(found)
    return result


def to_hugging_face(
    state: Mapping[str, Tensor], names: Mapping[str, Part], architecture: Architecture
) -> dict[str, Tensor]:
    """The inverse of `from_hugging_face`; tensors of ours that have no counterpart are left out."""
    result: dict[str, Tensor] = {}
    for ours, part in names.items():
        for kind in ("weight", "bias"):
            if (tensor := state.get(f"{ours}.{kind}")) is not None:
                pieces = tensor.chunk(len(part.names)) if part.sizes is None else tensor.split(part.sizes)
                for name, piece in zip(part.names, pieces, strict=True):
                    theirs = piece if part.layout is None else part.layout.write(piece, architecture)
                    result[f"{name}.{kind}"] = theirs.contiguous()
    return result
