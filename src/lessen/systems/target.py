"""How small a model is to become, in whatever unit the user thinks, and the shape that makes it so."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, model_validator

from lessen.errors import InputError
from lessen.model.transformer import parameter_counts
from lessen.plan import Shape, Size, Strict
from lessen.width.budget import bytes_of, largest_within, parameters_of, scaled


class Target(Strict):
    """Exactly one of them.

    Attributes:
        parameters: Weights in all, embeddings and exits included.
        share: The same as a share of those of the model as it comes.
        bytes: Of `model.safetensors` in 32 bits.
        width: Share of the heads, neurons and embedding rank of each layer.
    """

    parameters: Size | None = None
    share: Annotated[float | None, Field(gt=0, le=1)] = None
    bytes: Size | None = None
    width: Annotated[float | None, Field(gt=0, le=1)] = None

    @model_validator(mode="after")
    def _one(self) -> Target:
        if sum(value is not None for value in self.model_dump().values()) != 1:
            raise ValueError("give exactly one of parameters, share, bytes and width")
        return self


def shape_for(model: Any, target: Target) -> Shape:
    """The largest shape of even layers within a target.

    Raises:
        PlanError: When even the smallest is too large; the message says how large that is.
    """
    facts, shape, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    if target.width is not None:
        return scaled(facts, shape, target.width)
    if target.bytes is not None:
        return largest_within(facts, shape, outputs, target.bytes, bytes_of)
    limit = target.parameters or int((target.share or 1) * parameter_counts(model.transformer)["total"])
    return largest_within(facts, shape, outputs, limit, parameters_of)


BYTES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "B": 1.0}
WEIGHTS = {"K": 1e3, "M": 1e6, "B": 1e9, "": 1.0}


def target_of(params: str | None, size: str | None) -> Target | None:
    """What a user asks for: weights (`3M`, or `1/8` of those there are) or a file's size (`12MB`).

    Raises:
        InputError: When both are given, or one is no size.
    """
    if params is not None and size is not None:
        raise InputError("--params and --size: give one of them")
    if size is not None:
        return Target(bytes=_number(size, "--size", BYTES))
    if params is None:
        return None
    if "/" in params:
        return Target(share=_share(params))
    return Target(parameters=_number(params, "--params", WEIGHTS))


def _share(text: str) -> float:
    try:
        share = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--params {text}: expected weights such as 3M, or a share such as 1/8") from None
    if not 0 < share <= 1:
        raise InputError(f"--params {text}: a share is above 0 and at most 1")
    return share


def _number(text: str, option: str, units: dict[str, float]) -> int:
    for unit, factor in units.items():
        if text.upper().endswith(unit):
            try:
                number = int(float(text[: len(text) - len(unit)]) * factor)
            except (ValueError, OverflowError):
                break
            if number > 0:
                return number
            break
    known = ", ".join(f"12{unit}" for unit in units)
    raise InputError(f"{option} {text}: expected a size such as {known}")
