"""What `--overwrite` is about: a command replaces no model, and no certificate, that it was not told to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.errors import InputError, LessenError

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there: a model, or another precision's promises.")
]


def check_free(
    places: Iterable[Path], instead: str = "name another --out, or give --overwrite to replace it"
) -> None:
    """Refuse to save a model where one is.

    Args:
        places: Where models are to go.
        instead: What to do.

    Raises:
        InputError: Naming the place.
    """
    from lessen.artefact import is_ours

    for place in places:
        if is_ours(place):
            raise InputError(f"{place} holds a model already; {instead}")


def check_certificate(folder: Path, precision: Any) -> None:
    """Refuse to replace a certificate that stands by one of another precision.

    Args:
        folder: Of the model.
        precision: To calibrate in; as stored if None.

    Raises:
        InputError: Naming both.
        PlanError: When the model is not to be had in that precision.
    """
    from lessen.certificate import read_certificate
    from lessen.loading import load
    from lessen.plan import FEW_BITS

    try:
        standing = read_certificate(folder)
    except LessenError:
        return  # it is about something else, and protects nothing
    if standing is None or standing.precision == (precision or "float32"):
        return
    own = load(folder, precision=precision, promises=False).precision
    if standing.precision != own:
        instead = "store a copy with --out, or " if own in FEW_BITS else ""
        raise InputError(
            f"{folder} is certified in {standing.precision}, which calibrating in {own} would end; "
            f"{instead}give --overwrite to replace it"
        )
