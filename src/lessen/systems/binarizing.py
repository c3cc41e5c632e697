"""A training in which weights are binary: what becomes so before it, and how they learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from lessen.bits.conversion import places_to_binarize
from lessen.errors import PlanError
from lessen.model.latent import turn
from lessen.plan import Latent, Shape, SignGradient, Size, WeightScale
from lessen.reshaping import in_latents
from lessen.train.fine_tuning import Recipe


class Binarizing(Recipe):
    """How to train with the signs of weights.

    Attributes:
        parts: What is changed.
        weight_bits: 1, or 32 for the same training of the model as it is.
        activation_bits: Of what binary weights multiply.
        scale: What their signs are multiplied by.
        gradient: What reaches the real numbers behind them.
        layers: Layers (from 1) whose matrices become binary; all if None.
        embedding: Whether the token table does.
        gradual: Share of the steps in which weights, and what they multiply, turn from real to few bits, in
            equal parts; from then on they are binary. 0: from the start, as BEExformer's page has it.
    """

    parts: Literal["bits"] = "bits"
    weight_bits: Literal[1, 32] = 1
    activation_bits: Literal[1, 8, 32] = 32
    scale: WeightScale = "row_mean"
    gradient: SignGradient = "poly"
    layers: tuple[Size, ...] | None = None
    embedding: bool = True
    gradual: Annotated[float, Field(ge=0, lt=1)] = 0.0


OF_SIGNS = {
    "activation_bits": "--activation-bits",
    "scale": "--scale",
    "gradient": "--gradient",
    "layers": "--binary-layers",
    "embedding": "--float-embedding",
    "gradual": "--gradual",
}
"""What says nothing of a training in 32 bits, with the option that sets it."""


def check_bits(model: Any, recipe: Binarizing) -> None:
    """Refuse a stage that could not start, before anything is trained.

    Raises:
        PlanError: When it names layers the model lacks or that cannot learn, leaves out what is binary
            already, or says something of signs that there are none of.
    """
    if recipe.weight_bits == 1:
        places_to_binarize(model.config.form(), _places(recipe), embedding=recipe.embedding)
        return
    plain = Binarizing()
    for name, option in OF_SIGNS.items():
        if getattr(recipe, name) != getattr(plain, name):
            raise PlanError(f"{option} is about weights of 1 bit; leave it out with --weight-bits 32")


def as_before(form: Shape) -> dict[str, Any]:
    """Choices of a `Binarizing` by which a model that has latents goes on as it is.

    Args:
        form: With latents.
    """
    assert form.latent is not None
    places = [place for place, layer in enumerate(form.layers, start=1) if layer.bits == 1]
    activations = {form.layers[place - 1].activation_bits for place in places}
    return {
        "activation_bits": max(activations, default=32),
        "scale": form.latent.scale,
        "gradient": form.latent.gradient,
        "layers": None if len(places) == len(form.layers) else tuple(places),
        "embedding": form.embedding_bits == 1,
    }


def binarized(model: Any, recipe: Binarizing) -> Any:
    """The model as the stage starts with it; `check_bits` says whether it can."""
    if recipe.weight_bits == 32:
        return model
    return in_latents(
        model,
        Latent(scale=recipe.scale, gradient=recipe.gradient),
        activation_bits=recipe.activation_bits,
        layers=_places(recipe),
        embedding=recipe.embedding,
    )


def turning(model: Any, recipe: Binarizing) -> Callable[[float], None] | None:
    """What `fine_tune` tells how much is done, so that weights turn binary on the way; None if they are."""
    if recipe.weight_bits == 32 or not recipe.gradual:
        return None
    return lambda done: turn(model, min(1.0, done / recipe.gradual))


def _places(recipe: Binarizing) -> list[int] | None:
    return None if recipe.layers is None else [layer - 1 for layer in recipe.layers]
