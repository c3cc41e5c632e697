"""Published systems, each a recipe over the axes: one short file each, and the lookup."""

from __future__ import annotations

from lessen.errors import InputError
from lessen.systems import (
    beexformer,
    binarize,
    cost_eff,
    deebert,
    early_exit,
    latency_adjustable,
    layer_chop,
    masked_words,
    pabee,
    self_exit,
)
from lessen.systems.system import System

SYSTEMS: dict[str, System] = {
    module.SYSTEM.name: module.SYSTEM
    for module in (
        early_exit,
        pabee,
        deebert,
        self_exit,
        latency_adjustable,
        cost_eff,
        layer_chop,
        beexformer,
        binarize,
        masked_words,
    )
}


def system_of(name: str) -> System:
    """The system of this name.

    Raises:
        InputError: Naming the known ones.
    """
    if name not in SYSTEMS:
        raise InputError(f"no system {name!r}; there is {', '.join(SYSTEMS)}")
    return SYSTEMS[name]
