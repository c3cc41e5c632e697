"""Physical removal: heads, neurons, layers and ranks leave, and what stays is dense and smaller.

Each function takes the tensors of a transformer (`Transformer.state_dict()`) and their Shape and returns new
ones, so that removals compose over rounds; nothing is masked. Heads keep their ids of the original checkpoint
(COST-EFF page, 1.6 and 1.7).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lessen.errors import PlanError
from lessen.model.architecture import Architecture
from lessen.plan import Rank, Shape

State = dict[str, Tensor]
"""Tensors of a transformer by name."""

MATRICES = {
    "qkv": "attention.qkv",
    "attention_output": "attention.output",
    "up": "feed_forward.up",
    "down": "feed_forward.down",
}
"""The matrices of a layer: their name in a `Rank`, and among its modules."""


@dataclass(frozen=True)
class Units:
    """What stays of one layer, as places among the heads and neurons it has now, ascending."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def narrowed(
    architecture: Architecture, state: Mapping[str, Tensor], shape: Shape, kept: Sequence[Units]
) -> tuple[State, Shape]:
    """Take heads and neurons out of every layer; a neuron's gate goes with it.

    Gated layers and shared keys are for callers of their own: no system of ours slims models that have them.

    Args:
        architecture: Family facts.
        state: Tensors of the transformer.
        shape: What exists of it.
        kept: What stays of each layer.

    Raises:
        PlanError: When `kept` names what is not there, or parts heads that share their keys and values.
    """
    if len(kept) != len(shape.layers):
        raise PlanError(f"kept speaks of {len(kept)} layers, the model has {len(shape.layers)}")
    state, layers, head_dim = dict(state), [], architecture.head_dim
    for number, (layer, stay) in enumerate(zip(shape.layers, kept, strict=True)):
        _check(stay.heads, len(layer.heads), f"layer {number}: heads")
        _check(stay.neurons, layer.intermediate_size, f"layer {number}: neurons")
        groups = _groups(stay.heads, architecture.shared_heads, f"layer {number}: heads")
        queries = len(layer.heads) * head_dim
        keys = queries // architecture.shared_heads
        columns, shared = _columns_of(stay.heads, head_dim), _columns_of(groups, head_dim)
        neurons = torch.tensor(stay.neurons, dtype=torch.long)
        gated = architecture.feed_forward == "gated"
        name = f"layers.{number}."
        _take_rows(
            state, name + MATRICES["qkv"], torch.cat([columns, shared + queries, shared + queries + keys])
        )
        _take_columns(state, name + MATRICES["attention_output"], columns)
        both = torch.cat([neurons, neurons + layer.intermediate_size]) if gated else neurons
        _take_rows(state, name + MATRICES["up"], both)
        _take_columns(state, name + MATRICES["down"], neurons)
        ids = tuple(layer.heads[place] for place in stay.heads)
        layers.append(
            layer.model_copy(update={"heads": ids, "intermediate_size": len(stay.neurons)}),
        )
    return state, shape.model_copy(update={"layers": tuple(layers)})


def with_embedding_rank(state: Mapping[str, Tensor], shape: Shape, rank: int) -> tuple[State, Shape]:
    """Store the token table as a product of this rank, the nearest to what it is now in squares.

    A table that is a product already is multiplied out and cut again.

    Raises:
        PlanError: When the rank is not between 1 and the table's width or present rank.
    """
    table, widen = state["embeddings.token.weight"], state.get("embeddings.widen.weight")
    most = table.shape[1]
    if not 1 <= rank <= most:
        raise PlanError(f"embedding rank {rank} is not between 1 and {most}")
    axes, square = torch.linalg.qr(
        table.double()
    )  # the words' side of a product stays as it is until the end
    left, right = truncated(square if widen is None else square @ widen.double().T, rank)
    fresh = dict(state)
    fresh["embeddings.token.weight"] = (axes @ left).to(table.dtype)
    fresh["embeddings.widen.weight"] = right.T.contiguous().to(table.dtype)
    return fresh, shape.model_copy(update={"embedding_rank": rank})


def with_ranks(
    state: Mapping[str, Tensor],
    shape: Shape,
    ranks: Sequence[Rank],
    moments: Mapping[str, Tensor] | None = None,
) -> tuple[State, Shape]:
    """Store matrices of attention and feed-forward as products of two.

    Args:
        state: Tensors of the transformer.
        shape: What exists of it.
        ranks: Of each layer; with None in a `Rank` a matrix is whole, and a product is multiplied out.
        moments: Second moments of what enters each matrix, `[in_features, in_features]`, by the matrix's name
            such as `layers.0.attention.qkv`. With them the product is the nearest in what comes out on such
            input (activation-aware), without them in the matrix itself.

    Raises:
        PlanError: When a rank is larger than its matrix.
    """
    state, layers = dict(state), []
    for number, (layer, rank) in enumerate(zip(shape.layers, ranks, strict=True)):
        now = layer.rank.model_dump()
        for field, size in rank.model_dump().items():
            name = f"layers.{number}.{MATRICES[field]}"
            if size == now[field]:
                continue
            if size is None:
                _multiply_out(state, name)
            else:
                _factorize(state, name, size, None if moments is None else moments.get(name))
        layers.append(layer.model_copy(update={"rank": rank}))
    return state, shape.model_copy(update={"layers": tuple(layers)})


def without_layers(
    state: Mapping[str, Tensor], shape: Shape, dropped: Collection[int]
) -> tuple[State, Shape]:
    """Take whole layers out; exits that read them go too, the last one moves down.

    Args:
        state: Tensors of the transformer.
        shape: What exists of it.
        dropped: Places (0-based) among the layers there are now.

    Raises:
        PlanError: When no layer would be left, or a place is not there.
    """
    _check(tuple(sorted(dropped)), len(shape.layers), "dropped layers")
    stay = [place for place in range(len(shape.layers)) if place not in dropped]
    if not stay:
        raise PlanError("dropped layers: at least one layer must stay")
    depth = {place + 1: number for number, place in enumerate(stay, start=1)}
    last = len(shape.layers)
    kept_exits = [exit for exit in shape.exits if exit.layer in depth and exit.layer < last]
    moved = {exit.layer: depth[exit.layer] for exit in kept_exits if depth[exit.layer] < len(stay)}
    if shape.exits:
        moved[last] = len(stay)
    renamed: State = {}
    for name, tensor in state.items():
        room, number, *rest = name.split(".", 2)
        if room == "layers":
            if int(number) + 1 not in depth:
                continue
            number = str(depth[int(number) + 1] - 1)
        elif room == "exits":
            if int(number) not in moved:
                continue
            number = str(moved[int(number)])
        renamed[".".join([room, number, *rest])] = tensor
    exits = tuple(
        exit.model_copy(update={"layer": moved[exit.layer]}) for exit in shape.exits if exit.layer in moved
    )
    layers = tuple(shape.layers[place] for place in stay)
    return renamed, shape.model_copy(update={"layers": layers, "exits": exits})


def truncated(matrix: Tensor, rank: int, moment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is the nearest of its rank: `[rows, rank]` and `[rank, columns]`.

    Args:
        matrix: `[rows, columns]`.
        rank: At most the smaller of both.
        moment: Second moments of the input, `[columns, columns]`: then nearest in `matrix @ input`.
    """
    matrix = matrix.double()
    if moment is None:
        return _nearest(matrix, rank)
    # Along its own axes the input has no correlations; each is stretched by its size and shrunk again.
    spread, axes = torch.linalg.eigh(moment.double())
    stretch = spread.clamp(min=float(1e-6 * spread.mean().clamp(min=1e-30))).sqrt()
    left, right = _nearest(matrix @ axes * stretch, rank)
    return left, right / stretch @ axes.T


def _nearest(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    axes, square = torch.linalg.qr(matrix)  # a tall matrix's singular values are those of a square one
    left, sizes, right = torch.linalg.svd(square, full_matrices=False)
    return axes @ (left[:, :rank] * sizes[:rank]), right[:rank]


def _factorize(state: State, name: str, rank: int, moment: Tensor | None) -> None:
    outer = state.get(f"{name}.outer.weight")
    if outer is not None:
        if rank > outer.shape[1]:
            raise PlanError(f"{name}: rank {rank} is above the {outer.shape[1]} it is stored with")
        _multiply_out(state, name)
    matrix, bias = state.pop(f"{name}.weight"), state.pop(f"{name}.bias", None)
    if rank > min(matrix.shape):
        raise PlanError(f"{name}: rank {rank} is above the smaller side of {tuple(matrix.shape)}")
    left, right = truncated(matrix, rank, moment)
    state[f"{name}.inner.weight"] = right.contiguous().to(matrix.dtype)
    state[f"{name}.outer.weight"] = left.contiguous().to(matrix.dtype)
    if bias is not None:
        state[f"{name}.outer.bias"] = bias


def _multiply_out(state: State, name: str) -> None:
    """A product becomes the matrix it stands for."""
    outer, inner = state.pop(f"{name}.outer.weight"), state.pop(f"{name}.inner.weight")
    state[f"{name}.weight"] = (outer.double() @ inner.double()).to(outer.dtype)
    if (bias := state.pop(f"{name}.outer.bias", None)) is not None:
        state[f"{name}.bias"] = bias


def _take_rows(state: State, name: str, index: Tensor) -> None:
    name = f"{name}.outer" if f"{name}.outer.weight" in state else name
    for part in (f"{name}.weight", f"{name}.bias"):
        if part in state:
            state[part] = state[part].index_select(0, index)


def _take_columns(state: State, name: str, index: Tensor) -> None:
    name = f"{name}.inner" if f"{name}.inner.weight" in state else name
    state[f"{name}.weight"] = state[f"{name}.weight"].index_select(1, index)


def _groups(heads: Sequence[int], shared: int, what: str) -> list[int]:
    """Heads of keys and values that belong to heads of queries, of which `shared` each have one."""
    groups = sorted({head // shared for head in heads})
    if len(groups) * shared != len(heads):
        raise PlanError(f"{what}: {shared} each share their keys and values, and stay or leave together")
    return groups


def _columns_of(heads: Sequence[int], head_dim: int) -> Tensor:
    first = torch.tensor(heads, dtype=torch.long)[:, None] * head_dim
    return (first + torch.arange(head_dim)).flatten()


def _check(places: Sequence[int], count: int, what: str) -> None:
    if list(places) != sorted(set(places)) or (places and not 0 <= places[0] <= places[-1] < count):
        raise PlanError(f"{what} must be ascending places below {count}, without repeats")
