"""Given what parts are worth and a budget: what stays of each layer, and which shapes a budget allows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lessen.errors import PlanError
from lessen.model.architecture import Architecture
from lessen.model.transformer import Transformer, parameter_counts
from lessen.plan import LayerShape, Rank, Shape
from lessen.width.importance import Worth
from lessen.width.removal import Units

BYTES_PER_WEIGHT = 4

LANES = 16
"""Of a vector of 512 bits: neurons and ranks come in as many, so that rows of matrices begin where lines of
the cache do."""

LEAST = 1e-6
"""A share of parts that is one of each."""

MANY = 128
"""From how many on; among fewer the step would be coarse."""


def even(worth: Sequence[Worth], heads: int, neurons: int, shared: int = 1) -> list[Units]:
    """The best heads and neurons of each layer, as many in every layer (COST-EFF page, 1.5).

    Ties go to the lower place. A layer that has fewer keeps what it has. Of heads of which `shared` each
    share keys and values, whole groups stay, as many as there is room for.
    """
    return [
        Units(
            _apart(_best(_together(layer.heads, shared), heads // shared), shared),
            _best(layer.neurons, neurons),
        )
        for layer in worth
    ]


def uneven(
    worth: Sequence[Worth],
    heads: int,
    neurons: int,
    exits_above: Sequence[int] | None = None,
    shared: int = 1,
) -> list[Units]:
    """The best heads and neurons of all layers together; each layer keeps at least one of both.

    Args:
        worth: Of each layer.
        heads: To keep in all.
        neurons: To keep in all.
        exits_above: For scores taken with gradient equilibrium: exits at or above each layer. Equilibrium
            divides a layer's gradient by that number, which is undone before layers are compared.
        shared: As in `even`.

    Raises:
        PlanError: When fewer are to stay than there are layers.
    """
    groups = heads // shared
    if min(groups, neurons) < len(worth):
        raise PlanError(f"{min(groups, neurons)} parts cannot be shared among {len(worth)} layers")
    factors = [1] * len(worth) if exits_above is None else list(exits_above)
    kept_groups = _divided(
        [_together(w.heads, shared) * f for w, f in zip(worth, factors, strict=True)], groups
    )
    kept_neurons = _divided([w.neurons * f for w, f in zip(worth, factors, strict=True)], neurons)
    return [Units(_apart(a, shared), b) for a, b in zip(kept_groups, kept_neurons, strict=True)]


def _together(heads: Tensor, shared: int) -> Tensor:
    """What groups of heads are worth."""
    return heads.unflatten(0, (-1, shared)).sum(1) if len(heads) else heads


def _apart(groups: Sequence[int], shared: int) -> tuple[int, ...]:
    """The heads of groups."""
    return tuple(group * shared + member for group in groups for member in range(shared))


def _best(scores: Tensor, count: int) -> tuple[int, ...]:
    order = torch.sort(scores, descending=True, stable=True).indices[:count]
    return tuple(sorted(order.tolist()))


def _divided(scores: Sequence[Tensor], count: int) -> list[tuple[int, ...]]:
    first = [_best(layer, 1) for layer in scores]
    rest = [
        (-float(score), number, place)
        for number, layer in enumerate(scores)
        for place, score in enumerate(layer)
        if place not in first[number]
    ]
    chosen = [list(places) for places in first]
    for _, number, place in sorted(rest)[: count - sum(map(len, first))]:
        chosen[number].append(place)
    return [tuple(sorted(places)) for places in chosen]


def scaled(architecture: Architecture, shape: Shape, share: float, rank: float | None = None) -> Shape:
    """The shape with a share of the heads, neurons and embedding rank of each layer, the first ones of each.

    It says how large a model is; which heads stay is for importance to say. Heads are rounded up: the
    paper's smallest models also keep more of them than of the neurons. Neurons and ranks are rounded to what
    vectors hold. The embedding's rank follows the share, not the heads as in the authors' shapes (COST-EFF
    page, 1.8): half of a small model is its token table, and sizes would come in steps as large as a head's.
    That table is stored as a product only where it has fewer weights so (page, 1.7), and so are matrices of
    the layers, of a share `rank` of the rank they can have. Without a `rank` no others become products.
    """
    layers = tuple(
        layer.model_copy(
            update={
                "heads": layer.heads[: _whole_groups(len(layer.heads) * share, architecture.shared_heads)],
                "intermediate_size": _part(layer.intermediate_size, share),
            }
        )
        for layer in shape.layers
    )
    share_of_rank = 1.0 if rank is None else rank
    layers = tuple(in_products(architecture, layer, share_of_rank) for layer in layers)
    embedding = _part(shape.embedding_rank or architecture.embedding_size, share)
    saves = rank_saves(architecture, embedding)
    return shape.model_copy(
        update={"layers": layers, "embedding_rank": embedding if saves else shape.embedding_rank}
    )


def rank_saves(architecture: Architecture, rank: int) -> bool:
    """Whether a token table has fewer weights as a product of this rank."""
    width, words = architecture.embedding_size, architecture.vocab_size
    return rank * (words + width) < words * width


def in_products(architecture: Architecture, layer: LayerShape, share: float) -> LayerShape:
    """The layer with those matrices as products that have fewer weights so, of a share of their full rank.

    What is a product already keeps its rank where that is lower, and is a whole matrix where that has no more
    weights by now.
    """
    hidden, context = architecture.hidden_size, len(layer.heads) * architecture.head_dim
    sides = {
        "qkv": (context + 2 * (context // architecture.shared_heads), hidden),
        "attention_output": (hidden, context),
        "up": (layer.intermediate_size, hidden),
        "down": (hidden, layer.intermediate_size),
    }
    ranks = layer.rank.model_dump()
    for field, (rows, columns) in sides.items():
        rank = _part(min(rows, columns), share)
        if ranks[field] is not None:
            rank = min(rank, ranks[field])
        ranks[field] = rank if 0 < rank * (rows + columns) < rows * columns else None
    return layer.model_copy(update={"rank": Rank(**ranks)})


def products_within(
    architecture: Architecture, shape: Shape, outputs: int, share: float, limit: int
) -> list[Rank]:
    """Ranks of each layer's matrices, of a share of the full ones or as much less as keeps a limit.

    Layers of one width need no less. Of uneven ones, which have as many parts in all, matrices are products
    where others would not be.

    Args:
        architecture: Family facts.
        shape: Of which layers.
        outputs: Outputs of a head.
        share: Of their full rank.
        limit: Weights of all layers.
    """

    def of(share: float) -> Shape:
        layers = tuple(in_products(architecture, layer, share) for layer in shape.layers)
        return shape.model_copy(update={"layers": layers})

    def fits(share: float) -> bool:
        return encoder_of(architecture, of(share), outputs) <= limit

    best = share if fits(share) else _largest(fits, 0.0, share)
    return [layer.rank for layer in of(best).layers]


def shallow(shape: Shape, layers: int) -> Shape:
    """The shape with so many layers, the first ones, and the exits that read them; the last one stays."""
    exits = [exit for exit in shape.exits[:-1] if exit.layer < layers]
    last = [exit.model_copy(update={"layer": layers}) for exit in shape.exits[-1:]]
    return shape.model_copy(update={"layers": shape.layers[:layers], "exits": (*exits, *last)})


def _whole_groups(heads: float, shared: int) -> int:
    return math.ceil(heads / shared - 1e-9) * shared


def _part(count: int, share: float) -> int:
    part = min(count, max(1, math.floor(count * share + 0.5))) if count else 0
    return part if part < MANY or part == count else part // LANES * LANES


def parameters_of(architecture: Architecture, shape: Shape, outputs: int) -> int:
    """Number of weights of a model of this shape."""
    return _counts(architecture, shape, outputs)["total"]


def encoder_of(architecture: Architecture, shape: Shape, outputs: int) -> int:
    """Number of weights of its layers alone, without embeddings and exits."""
    return _counts(architecture, shape, outputs)["encoder"]


def _counts(architecture: Architecture, shape: Shape, outputs: int) -> dict[str, int]:
    with torch.device("meta"):
        return parameter_counts(Transformer(architecture, shape, outputs))


def bytes_of(architecture: Architecture, shape: Shape, outputs: int) -> int:
    """Size of `model.safetensors` in 32 bits: weights, and the header that lists them by name."""
    with torch.device("meta"):
        model = Transformer(architecture, shape, outputs)
    entries, end = {}, 0
    for name, tensor in sorted(model.state_dict().items()):
        start, end = end, end + tensor.numel() * BYTES_PER_WEIGHT
        entries[f"transformer.{name}"] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":"))
    return 8 + -(-len(header) // 8) * 8 + end


def largest_within(
    architecture: Architecture,
    shape: Shape,
    outputs: int,
    limit: int,
    measure: Callable[..., int],
    rank: float | None = None,
) -> Shape:
    """The largest scaled shape whose size is within a limit.

    Args:
        architecture: Family facts.
        shape: What there is now.
        outputs: Outputs of a head.
        limit: In the measure's unit.
        measure: `parameters_of`, `encoder_of` or `bytes_of`.
        rank: As in `scaled`.

    Raises:
        PlanError: When even the smallest, one head and one neuron a layer, is larger; the message names its
            size.
    """

    def fits(shape: Shape) -> bool:
        return measure(architecture, shape, outputs) <= limit

    if not fits(smallest := scaled(architecture, shape, LEAST, rank)):
        size = measure(architecture, smallest, outputs)
        raise _out_of_reach(limit, size, measure, "one head and one neuron a layer")
    if rank is None and fits(shape):
        return shape
    share = _largest(lambda share: fits(scaled(architecture, shape, share, rank)), LEAST, 1.0)
    return scaled(architecture, shape, share, rank)


def _largest(fits: Callable[[float], bool], low: float, high: float) -> float:
    """The largest share that fits between one that does and one that does not."""
    for _ in range(24):
        middle = (low + high) / 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def deepest_within(
    architecture: Architecture, shape: Shape, outputs: int, limit: int, measure: Callable[..., int]
) -> Shape:
    """The shape with most layers whose size is within a limit; arguments as in `largest_within`.

    Raises:
        PlanError: When even one layer is larger; the message names its size.
    """
    for layers in range(len(shape.layers), 0, -1):
        size = measure(architecture, _with_most_exits(shape, layers), outputs)
        if size <= limit:
            return shallow(shape, layers)
    raise _out_of_reach(limit, size, measure, "one layer")


def _with_most_exits(shape: Shape, layers: int) -> Shape:
    """The same with as many exits as can be left: which layers leave, and their exits, is not known yet."""
    left = shape.exits[-layers:]
    exits = [
        exit.model_copy(update={"layer": layers - len(left) + place}) for place, exit in enumerate(left, 1)
    ]
    return shape.model_copy(update={"layers": shape.layers[:layers], "exits": tuple(exits)})


def _out_of_reach(limit: int, smallest: int, measure: Callable[..., int], left: str) -> PlanError:
    units = {bytes_of: "bytes", encoder_of: "parameters of layers"}
    unit = units.get(measure, "parameters")
    return PlanError(f"{limit:,} {unit} cannot be reached: with {left} there are {smallest:,} left")
