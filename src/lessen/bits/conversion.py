"""Weights of few bits made from real ones: tensors and Shape in, tensors and Shape out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from lessen.bits import fours
from lessen.bits.binarizer import EDGE, scales
from lessen.bits.packing import pack, seal
from lessen.bits.quantized import quantized
from lessen.errors import PlanError
from lessen.plan import Bits, Latent, Precision, Shape

TOKENS = "embeddings.token.weight"
HEAD = "language_head.weight"

STACKS = {"layers": "layers", "decoder.layers": "decoder_layers"}
"""How names of a stack's tensors begin, and where a Shape says what its layers are."""

_ACTIVATIONS: dict[Precision, Literal[8, 32]] = {"int8": 8, "int8-weights": 32}

Places = Mapping[str, Collection[int]]
"""Layers (0-based) of each stack, by the Shape's field."""


def with_precision(
    state: Mapping[str, Tensor], shape: Shape, precision: Precision, *, generates: bool
) -> tuple[dict[str, Tensor], Shape]:
    """Matrices of all layers in the few bits of a precision; all else as it is.

    Args:
        state: Tensors of a transformer, in float32.
        shape: What exists of it; layers that have fewer bits already are left alone.
        precision: One of `plan.FEW_BITS`.
        generates: The token table and language head get 8 bits too, where activations stay real numbers or
            weights have 4 bits.

    Raises:
        PlanError: For weights beyond what float16 holds, in `int4`.
    """
    made = (
        with_int4(state, shape) if precision == "int4" else with_int8(state, shape, _ACTIVATIONS[precision])
    )
    return with_int8_vocabulary(*made) if generates and precision != "int8" else made


def with_int8(
    state: Mapping[str, Tensor], shape: Shape, activation_bits: Literal[8, 32] = 8
) -> tuple[dict[str, Tensor], Shape]:
    """Matrices of all layers, a decoder's too, in 8 bits, one scale for each output; all else as it is.

    Args:
        state: Tensors of a transformer, its layers in float.
        shape: What exists of it; layers that have fewer bits already are left alone.
        activation_bits: Of what the matrices multiply.
    """
    fresh = dict(state)
    chosen = _real_layers(shape)
    for name in _matrices(state, chosen):
        _to_int8(fresh, name)
    return fresh, _with_bits(shape, chosen, 8, activation_bits)


def with_int4(state: Mapping[str, Tensor], shape: Shape) -> tuple[dict[str, Tensor], Shape]:
    """Matrices of all layers, a decoder's too, in 4 bits, a scale and a minimum for 32 columns of a row.

    All else is as it is.

    Args:
        state: Tensors of a transformer, its layers in float. Matrices read from such blocks of 4 bits become
            the same again.
        shape: What exists of it; layers that have fewer bits already are left alone.

    Raises:
        PlanError: For weights beyond what float16 holds.
    """
    fresh = dict(state)
    chosen = _real_layers(shape)
    for name in _matrices(state, chosen):
        fresh[name] = fours.fit(state[name])
        fresh[_beside(name, "seal")] = fours.seal(fresh[name])
    return fresh, _with_bits(shape, chosen, 4, 8)


def with_int8_vocabulary(state: Mapping[str, Tensor], shape: Shape) -> tuple[dict[str, Tensor], Shape]:
    """The token table in 8 bits, one scale for each token, and so a language head of its own; all else stays.

    Args:
        state: Tensors of a transformer.
        shape: What exists of it; a table that has fewer bits already is left alone.
    """
    if shape.embedding_bits != 32:
        return dict(state), shape
    fresh = dict(state)
    for name in (TOKENS, HEAD):
        if name in state:
            _to_int8(fresh, name)
    return fresh, shape.model_copy(update={"embedding_bits": 8})


def with_latents(
    state: Mapping[str, Tensor],
    shape: Shape,
    latent: Latent,
    *,
    activation_bits: Bits = 32,
    layers: Collection[int] | None = None,
    embedding: bool = True,
) -> tuple[dict[str, Tensor], Shape]:
    """Matrices that are to become binary, as the real numbers they learn by: unchanged, but clipped.

    Args:
        state: Tensors of a transformer, in float.
        shape: What exists of it.
        latent: How signs are scaled and learn.
        activation_bits: Of what the matrices multiply: 32, 8 or 1.
        layers: Places (0-based) whose matrices are; all if None.
        embedding: Whether the token table is.

    Raises:
        PlanError: When one of them has few bits already, or does not exist, or is left out though it is
            binary already.
    """
    chosen = places_to_binarize(shape, layers, embedding=embedding)
    shape = _with_bits(shape, {"layers": chosen}, 1, activation_bits)
    shape = shape.model_copy(
        update={"latent": latent, "embedding_bits": 1 if embedding else shape.embedding_bits}
    )
    fresh = dict(state)
    for name in _binary(state, shape):
        fresh[name] = state[name].clamp(EDGE - 1, 1 - EDGE)
        beside = _beside(name, "scales")
        if latent.scale != "learned":
            fresh.pop(beside, None)
        elif beside not in state:
            fresh[beside] = scales(state[name]).squeeze(1)
    return fresh, shape


def places_to_binarize(
    shape: Shape, layers: Collection[int] | None = None, *, embedding: bool = True
) -> set[int]:
    """The layers (0-based) that are to become binary: those named, or all.

    Raises:
        PlanError: When one does not exist, it or the token table has 4 or 8 bits, the signs are packed
            already, or one that is left out, or the table, is binary already.
    """
    chosen = set(range(len(shape.layers))) if layers is None else set(layers)
    for place in sorted(chosen):
        if place not in range(len(shape.layers)):
            raise PlanError(f"there is no layer {place + 1} to binarize; the model has {len(shape.layers)}")
        if (bits := shape.layers[place].bits) in (4, 8):
            raise PlanError(f"layer {place + 1} has weights of {bits} bits; binarize the float model")
    binary = shape.embedding_bits == 1 or any(layer.bits == 1 for layer in shape.layers)
    if binary and shape.latent is None:
        raise PlanError("packed signs cannot be trained; continue from the folder that keeps the latents")
    if embedding and shape.embedding_bits == 8:
        raise PlanError("the token table has 8 bits; binarize the float model")
    if not embedding and shape.embedding_bits == 1:
        raise PlanError("the token table is binary already; to keep it in 32 bits start from the float model")
    for place, layer in enumerate(shape.layers, start=1):
        if layer.bits == 1 and place - 1 not in chosen:
            raise PlanError(f"layer {place} is binary already; name it too, or start from the float model")
    return chosen


def packed(state: Mapping[str, Tensor], shape: Shape) -> tuple[dict[str, Tensor], Shape]:
    """Binary weights as packed signs, scales and seals, in place of the real numbers they learned by.

    Args:
        state: Tensors of a transformer.
        shape: What exists of it; without latents nothing changes.
    """
    if shape.latent is None:
        return dict(state), shape
    fresh = dict(state)
    for name in _binary(state, shape):
        fresh[name] = pack(state[name])
        fresh[_beside(name, "seal")] = seal(fresh[name])
        if shape.latent.scale != "learned":
            fresh[_beside(name, "scales")] = scales(state[name], shape.latent.scale).squeeze(1)
    return fresh, shape.model_copy(update={"latent": None})


def _to_int8(state: dict[str, Tensor], name: str) -> None:
    whole, steps = quantized(state[name])
    state[name] = whole.to(torch.int8)
    state[_beside(name, "scales")] = steps.squeeze(1)


def _real_layers(shape: Shape) -> Places:
    return {
        field: {place for place, layer in enumerate(getattr(shape, field)) if layer.bits == 32}
        for field in STACKS.values()
    }


def _matrices(state: Mapping[str, Tensor], places: Places) -> Iterator[str]:
    """Names of the matrices of some layers."""
    for begins, field in STACKS.items():
        chosen = {f"{begins}.{place}" for place in places.get(field, ())}
        depth = begins.count(".") + 2
        for name, tensor in state.items():
            layer = ".".join(name.split(".")[:depth])
            if layer in chosen and name.endswith(".weight") and tensor.dim() == 2:
                yield name


def _binary(state: Mapping[str, Tensor], shape: Shape) -> list[str]:
    """Names of the matrices and tables that have one bit for each weight."""
    chosen = {place for place, layer in enumerate(shape.layers) if layer.bits == 1}
    names = list(_matrices(state, {"layers": chosen}))
    return [*names, TOKENS] if shape.embedding_bits == 1 else names


def _beside(name: str, what: str) -> str:
    return f"{name.removesuffix('weight')}{what}"


def _with_bits(shape: Shape, places: Places, bits: Bits, activation_bits: Bits) -> Shape:
    changes: dict[str, Any] = {"bits": bits, "activation_bits": activation_bits}
    return shape.model_copy(
        update={
            field: tuple(
                layer.model_copy(update=changes) if place in chosen else layer
                for place, layer in enumerate(getattr(shape, field))
            )
            for field, chosen in places.items()
        }
    )
