"""Where the exits of a generator sit (self-supervised exits page, 1.2)."""

from __future__ import annotations

from typing import Literal

from lessen.errors import PlanError

Placement = Literal["even", "steps"]


def places(layers: int, count: int, how: Placement = "even") -> tuple[int, ...]:
    """Depths (1-based: layers run) of so many exits.

    The page counts blocks from 0 and attaches to the output of block e, after e + 1 layers have run.

    Args:
        layers: Of the model.
        count: Exits wanted.
        how: `even` divides the depth evenly (the paper's second version: 32 layers, 3 exits: blocks 8, 16,
            24); `steps` takes steps of L // (K + 1) (the first: 32, 4: blocks 6, 12, 18, 24).

    Raises:
        PlanError: When the model is too shallow for so many.
    """
    parts = count + 1
    blocks = [k * layers // parts if how == "even" else k * (layers // parts) for k in range(1, parts)]
    found = tuple(block + 1 for block in blocks)
    if count < 1 or len(set(found)) < count or found[-1] >= layers:
        raise PlanError(f"{count} exits do not fit before the last of {layers} layers")
    return found


def usual_places(layers: int, most: int) -> tuple[int, ...]:
    """Depths of at most so many exits: evenly, as many as fit; after the first layer where not one does."""
    for count in range(most, 0, -1):
        try:
            return places(layers, count)
        except PlanError:
            continue
    return (1,)
