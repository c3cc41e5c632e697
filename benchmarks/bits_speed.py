"""Few bits in time and in bytes: products, whole models, and size on disk.

    python benchmarks/bits_speed.py [--seconds 20] [--only sizes,kernels,models]

Products are timed beside torch's own of the same shape, quantizing of activations, scale and bias included;
models beside their float twins, all interleaved in one process, with 1 and with 2 threads. Weights are
random: neither time nor size depends on them. Parts that are not asked for stay in the results file as they
are; each says of which commit it is.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from results import RESULTS, commit, write_results

from lessen.artefact import WEIGHTS
from lessen.loading import load
from lessen.measure.kernel_speed import kernel_rows
from lessen.measure.latency import interleaved, threads
from lessen.measure.size import bytes_by_part
from lessen.model.rows import pack
from lessen.plan import FULL
from lessen.reshaping import in_latents, in_signs, with_exits
from lessen.runtime.engine import run
from lessen.systems import system_of

ACTIVATION_BITS = (32, 8, 1)
TOKENS = 64


def classifier(preset: str) -> Any:
    """A preset with BEExformer's exits, in float32."""
    torch.manual_seed(0)
    base = load(f"builtin:{preset}")
    form = system_of("beexformer").exit
    assert form is not None
    depth = len(base.config.form().layers)
    exits = [form.model_copy(update={"layer": layer}) for layer in range(1, depth + 1)]
    return with_exits(base, exits=exits, labels=["no", "yes"])


def model_rows(thread_count: int, seconds: float) -> list[dict[str, Any]]:
    """Milliseconds of a batch through the medium preset at full depth, by mode."""
    twin = classifier("beexformer-medium")
    models = {"float32 twin": twin} | {
        f"W1A{bits}": in_signs(in_latents(twin, activation_bits=bits)) for bits in ACTIVATION_BITS
    }
    lines = []
    for batch in (1, 8):
        generator = torch.Generator().manual_seed(0)
        ids, rows = pack([torch.randint(1000, 30_000, (TOKENS,), generator=generator) for _ in range(batch)])
        candidates = {
            name: partial(run, model.transformer, ids, rows, None, FULL) for name, model in models.items()
        }
        with threads(thread_count), torch.inference_mode():
            timings = interleaved(candidates, seconds=seconds)
        dense = timings["float32 twin"].median_ms
        lines += [
            {
                "mode": name,
                "batch": batch,
                "tokens": TOKENS,
                "threads": thread_count,
                "ms": timing.median_ms,
                "speedup": dense / timing.median_ms,
            }
            for name, timing in timings.items()
        ]
    return lines


def sizes() -> list[dict[str, Any]]:
    """Bytes of `model.safetensors`, float32 and packed, and where they are."""
    lines = []
    for preset in ("beexformer-small", "beexformer-shared", "beexformer-medium", "minilm-l6"):
        twin = classifier(preset)
        with tempfile.TemporaryDirectory() as place:
            found = {}
            for name, model in (("float32", twin), ("packed", in_signs(in_latents(twin)))):
                folder = Path(place, name)
                model.save_pretrained(folder)
                found[name] = (folder / WEIGHTS).stat().st_size
                parts = bytes_by_part(model, folder)
        ratio = found["float32"] / found["packed"]
        lines.append({"model": preset, **found, "ratio": ratio, "parts": parts})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each shape and batch")
    parser.add_argument("--only", default="sizes,kernels,models", help="parts, parted by commas")
    options = parser.parse_args()
    content = known()
    for part in options.only.split(","):
        found = PARTS[part](options.seconds)
        for line in found:
            print(line)
        content |= {part: found, "commits": content.get("commits", {}) | {part: commit()}}
        write_results(NAME, content)


def known() -> dict[str, Any]:
    """What the results file holds already."""
    path = RESULTS / f"{NAME}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return {key: found[key] for key in (*PARTS, "commits") if key in found}


def kernels(seconds: float) -> list[dict[str, Any]]:
    """Products with 1 and with 2 threads."""
    return [line for count in (1, 2) for line in kernel_rows(thread_count=count, seconds=seconds)]


def models(seconds: float) -> list[dict[str, Any]]:
    """Whole models with 1 and with 2 threads."""
    return [line for count in (1, 2) for line in model_rows(count, seconds)]


NAME = "bits_speed"
PARTS: dict[str, Callable[[float], list[dict[str, Any]]]] = {
    "sizes": lambda _: sizes(),
    "kernels": kernels,
    "models": models,
}
"""What is measured; sizes do not depend on how busy the machine is."""


if __name__ == "__main__":
    main()
