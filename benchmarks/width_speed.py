"""Does time follow size? Models with narrower layers against the same dense, in the running form, full depth.

MiniLM's and BERT-base's shapes with random weights, and the same with layers 2, 4 and 8 times smaller, as
`width_quality.py` makes them; which heads and neurons stay is drawn. Each narrow model is timed only after it
was found to compute what the whole one does with the others silenced.

    python benchmarks/width_speed.py [--threads 2,1] [--seconds 30]
"""

from __future__ import annotations

import argparse
import random
import tempfile
from functools import partial
from typing import Any

import torch
from results import write_results
from transformers import BertConfig, BertForSequenceClassification
from width_quality import SIZES, slender_shape

from lessen.depth.exits import every_exit
from lessen.errors import LessenError
from lessen.loading import load
from lessen.measure.kernel_speed import quartiles
from lessen.measure.latency import interleaved, threads
from lessen.measure.side_by_side import run_all
from lessen.model.macs import row_macs
from lessen.model.rows import pack
from lessen.model.transformer import parameter_counts
from lessen.plan import FULL, LayerShape, Shape
from lessen.reshaping import with_exits, with_shape
from lessen.runtime.text import Encoded
from lessen.width.removal import State, Units, narrowed, with_embedding_rank

BASES = {
    "MiniLM-L6": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "BERT-base": {},
}
"""Changes to BERT-base's configuration."""

BATCHES = (1, 8)
LENGTHS = (24, 128)

TOLERANCE = 1e-5
"""Of the largest logit, in float32."""


def dense(changes: dict[str, Any]) -> Any:
    """A classifier with an exit after each layer and random weights, loaded as any checkpoint is."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        BertForSequenceClassification(BertConfig(num_labels=2, **changes)).save_pretrained(place)
        return with_exits(load(place), labels=["no", "yes"])


def narrow(model: Any, size: int) -> Any:
    """The model with layers `size` times smaller.

    Raises:
        LessenError: When it does not compute what the whole model does with what left silenced.
    """
    target, head_dim = slender_shape(model, size), model.config.facts().head_dim
    state, form = model.transformer.state_dict(), model.config.form()
    if target.embedding_rank is not None:
        state, form = with_embedding_rank(state, form, target.embedding_rank)
    kept = [
        drawn(old, len(layer.heads), layer.intermediate_size)
        for old, layer in zip(form.layers, target.layers, strict=True)
    ]
    fewer, shape = narrowed(model.config.facts(), state, form, kept)
    small = with_shape(model, shape, fewer).eval()
    must_be_removal(small, with_shape(model, form, silenced(state, form, kept, head_dim)).eval())
    return small


def drawn(layer: LayerShape, heads: int, neurons: int) -> Units:
    """So many heads and neurons of a layer, at random places."""
    choose = random.Random(layer.layer)
    there = (range(len(layer.heads)), heads), (range(layer.intermediate_size), neurons)
    return Units(*(tuple(sorted(choose.sample(places, count))) for places, count in there))


def silenced(state: State, form: Shape, kept: list[Units], head_dim: int) -> State:
    """The tensors with zeros where heads and neurons that leave would be read."""
    state = dict(state)
    for place, stay in enumerate(kept):
        heads = torch.zeros(len(form.layers[place].heads)).index_fill(0, torch.tensor(stay.heads), 1)
        neurons = torch.zeros(form.layers[place].intermediate_size)
        masks = {
            "attention.output": heads.repeat_interleave(head_dim),
            "feed_forward.down": neurons.index_fill(0, torch.tensor(stay.neurons), 1),
        }
        for matrix, mask in masks.items():
            name = f"layers.{place}.{matrix}.weight"
            state[name] = state[name] * mask
    return state


@torch.inference_mode()
def must_be_removal(small: Any, masked: Any) -> None:
    """Compare the answers of every exit, and those of the running form, on rows of several lengths.

    Raises:
        LessenError: When they differ.
    """
    rows = rows_of(1, 24) + rows_of(2, 7) + rows_of(1, 128)
    ids, layout = pack([torch.tensor(row.ids) for row in rows])
    found, wanted = (torch.stack(every_exit(each.transformer, ids, layout)) for each in (small, masked))
    ran = run_all(small, rows, FULL, len(rows))
    scale = float(wanted.abs().max())
    worst = max(float((found - wanted).abs().max()), float((ran - wanted[-1]).abs().max())) / scale
    if worst > TOLERANCE:
        raise LessenError(f"a narrow model differs from its masked twin by {worst:.1e} of the largest logit")


def rows_of(count: int, tokens: int) -> list[Encoded]:
    """Rows of random tokens."""
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(1000, 30_000, (count, tokens), generator=generator).tolist()
    return [Encoded(row, None, False) for row in ids]


def lines(name: str, models: dict[int, Any], count: int, seconds: float) -> list[dict[str, Any]]:
    """One entry for each batch, length and size; size 1 is the dense model."""
    made = []
    for batch in BATCHES:
        for tokens in LENGTHS:
            rows = rows_of(batch, tokens)
            candidates = {
                str(size): partial(run_all, model, rows, FULL, batch) for size, model in models.items()
            }
            timings = interleaved(candidates, seconds=seconds)
            macs = {size: macs_of(model, tokens) for size, model in models.items()}
            for size, model in models.items():
                layer = model.config.form().layers[0]
                made.append(
                    {
                        "model": name,
                        "threads": count,
                        "batch": batch,
                        "tokens": tokens,
                        "size": size,
                        "layers": len(model.config.form().layers),
                        "heads": len(layer.heads),
                        "neurons": layer.intermediate_size,
                        "embedding_rank": model.config.form().embedding_rank,
                        "parameters": parameter_counts(model.transformer),
                        "macs_ratio": macs[1] / macs[size],
                        "ms": timings[str(size)].as_dict(),
                        "faster": quartiles(timings["1"], timings[str(size)]),
                    }
                )
                print(made[-1], flush=True)
    return made


def macs_of(model: Any, tokens: int) -> int:
    """Of one row at full depth, only the last exit asked."""
    return row_macs(model.config.facts(), model.config.form(), model.config.num_labels, tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each shape, batch and length")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for name, changes in BASES.items():
        base = dense(changes).eval()
        models = {1: base} | {size: narrow(base, size) for size in SIZES}
        for count in map(int, options.threads.split(",")):
            with threads(count):
                found += lines(name, models, count, options.seconds)
    write_results("width_speed", {"lines": found})


if __name__ == "__main__":
    main()
