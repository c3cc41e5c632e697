"""How small a model is to become, in whatever unit the user thinks, and the shape that makes it so."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, model_validator

from lessen.errors import InputError, PlanError
from lessen.model.transformer import parameter_counts
from lessen.plan import Shape, Size
from lessen.records import Strict
from lessen.width.budget import (
    bytes_of,
    deepest_within,
    largest_within,
    parameters_of,
    scaled,
    shallow,
)


class Target(Strict):
    """Exactly one of them.

    Attributes:
        parameters: Weights in all, embeddings and exits included.
        share: The same as a share of those the model has, its exits left out.
        bytes: Of `model.safetensors` in 32 bits.
        width: Share of the heads, neurons and embedding rank of each layer.
        layers: Number of layers.
    """

    parameters: Size | None = None
    share: Annotated[float | None, Field(gt=0, le=1)] = None
    bytes: Size | None = None
    width: Annotated[float | None, Field(gt=0, le=1)] = None
    layers: Size | None = None

    @model_validator(mode="after")
    def _one(self) -> Target:
        if sum(value is not None for value in self.model_dump().values()) != 1:
            raise ValueError("give exactly one of parameters, share, bytes, width and layers")
        return self

    def __str__(self) -> str:
        """As a user would write it."""
        if self.share is not None:
            near = Fraction(self.share).limit_denominator(1000)
            return str(near) if near else f"{self.share:g}"
        if self.width is not None:
            return f"width {self.width:g}"
        if self.layers is not None:
            return f"{self.layers} layers"
        for value, units in ((self.bytes, BYTES), (self.parameters, WEIGHTS)):
            if value is not None:
                unit = max((unit for unit in units if value >= units[unit]), key=lambda unit: units[unit])
                return f"{value / units[unit]:.6g}{unit}"
        raise AssertionError("one of them is given")

    @property
    def folder(self) -> str:
        """A folder's name for a model of this size, such as `1of8`."""
        return str(self).replace("/", "of").replace(" ", "-")


def narrow_shape(model: Any, target: Target, rank: float | None = None) -> Shape:
    """The largest shape of even layers within a target.

    Args:
        model: What is to become smaller.
        target: How small.
        rank: Share of their rank that matrices are to be stored with; None: they stay whole.

    Raises:
        PlanError: When even the smallest is too large; the message says how large that is. When the target is
            a number of layers. Or when layers have few bits, or another feed-forward form than two matrices.
    """
    facts, shape, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    if facts.feed_forward != "ffn":
        raise PlanError("parts leave feed-forward halves of two matrices only; this model's are others")
    if any(layer.bits != 32 for layer in shape.layers):
        raise PlanError("its layers have few bits; slim the float32 model, then calibrate it in --precision")
    if target.layers is not None:
        raise PlanError("a number of layers is no width; use the system layer-chop")
    if target.width is not None:
        return scaled(facts, shape, target.width, rank)
    return largest_within(facts, shape, outputs, *_limit(model, target), rank)


def shallow_shape(model: Any, target: Target) -> Shape:
    """The shape with most layers within a target.

    Raises:
        PlanError: When even one layer is too large; the message says how large that is. Or when the target is
            a width, or more layers than there are.
    """
    facts, shape, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    if facts.shared_layers:
        raise PlanError("all layers of this model are one block; none can leave")
    if target.width is not None:
        raise PlanError("a width is no number of layers; use the system cost-eff")
    if target.layers is None:
        return deepest_within(facts, shape, outputs, *_limit(model, target))
    if target.layers > len(shape.layers):
        raise PlanError(f"{target.layers} layers cannot be left: there are {len(shape.layers)}")
    return shallow(shape, target.layers)


def _limit(model: Any, target: Target) -> tuple[int, Callable[..., int]]:
    """The target as a number, and what measures it; a share is one of the model without its exits."""
    if target.bytes is not None:
        return target.bytes, bytes_of
    counts = parameter_counts(model.transformer)
    limit = target.parameters or int((target.share or 1) * (counts["total"] - counts["exits"]))
    return limit, parameters_of


BYTES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "B": 1.0}
WEIGHTS = {"K": 1e3, "M": 1e6, "B": 1e9, "": 1.0}


def targets_of(params: str | None, size: str | None, layers: str | None) -> tuple[Target, ...]:
    """What a user asks for, perhaps several sizes with commas between.

    Args:
        params: Weights: `3M`, or `1/8` of those there are.
        size: Of a file: `12MB`.
        layers: How many: `3`.

    Raises:
        InputError: When more than one kind is given, or one is no size.
    """
    given = {"--params": params, "--size": size, "--layers": layers}
    asked = [(option, text) for option, text in given.items() if text is not None]
    if len(asked) > 1:
        raise InputError(" and ".join(option for option, _ in asked) + ": give one of them")
    return tuple(_target(option, part.strip()) for option, text in asked for part in text.split(","))


def _target(option: str, text: str) -> Target:
    if option == "--layers":
        if not text.isdecimal() or int(text) < 1:
            raise InputError(f"--layers {text}: expected a number of layers such as 3")
        return Target(layers=int(text))
    if option == "--size":
        return Target(bytes=_number(text, option, BYTES))
    share = _share(text)
    if share is None:
        return Target(parameters=_number(text, option, WEIGHTS))
    if not 0 < share < 1:
        raise InputError(f"--params {text}: a share of the model's weights is above 0 and below 1")
    return Target(share=share)


def _share(text: str) -> float | None:
    """A fraction, hundredths, or a bare number up to 1; None if it is none of them."""
    try:
        share = float(Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1))
    except (ValueError, ZeroDivisionError):
        return None
    return share if "/" in text or "%" in text or share <= 1 else None


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
    share = ", or a share such as 1/8 or 12.5%" if option == "--params" else ""
    raise InputError(f"{option} {text or repr(text)}: expected a size such as {known}{share}")
