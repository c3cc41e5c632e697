"""Few bits in time and in bytes: products, whole models, and size on disk.

    python benchmarks/bits_speed.py [--seconds 20] [--only sizes,kernels,models,int8,exits]

Products are timed beside torch's own of the same shape, quantizing of activations, scale and bias included;
models beside their float twins; MiniLM in int8 beside OpenVINO's int8 of the same weights, exits off, and
certified exits of the model `sst2_exits.py` makes: all interleaved in one process, with 1 and with 2 threads.
Weights are random but for MiniLM's: neither time nor size depends on them. Of another machine, and parts that
are not asked for, results stay in the file as they are; each part says when and at which commit it was
measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bits_verdicts import EARLY
from exit_latency import certified_in_int8
from results import CACHE, RESULTS, commit, write_results

from lessen.artefact import WEIGHTS
from lessen.data.reading import read
from lessen.loading import load
from lessen.machine import machine, processor
from lessen.measure.kernel_speed import kernel_rows, quartiles
from lessen.measure.latency import Timing, interleaved, threads
from lessen.measure.rivals.batching import Rival
from lessen.measure.side_by_side import build_rivals, must_agree, run_all
from lessen.measure.size import bytes_by_part
from lessen.model.rows import pack
from lessen.native import native
from lessen.plan import FULL, Bits, ExitShape
from lessen.reshaping import in_latents, in_signs, with_exits
from lessen.runtime.engine import run
from lessen.runtime.text import Encoded, encode
from lessen.systems import system_of

ACTIVATION_BITS: tuple[Bits, ...] = (32, 8, 1)
TOKENS = 64
LENGTH, SENTENCES = 24, 64
"""Tokens of MiniLM's rows, and sentences of so many that exits are timed on."""


def classifier(preset: str) -> Any:
    """A preset with BEExformer's exits, in float32."""
    torch.manual_seed(0)
    base = load(f"builtin:{preset}")
    form = system_of("beexformer").exit
    assert form is not None
    depth = len(base.config.form().layers)
    exits = [form.model_copy(update={"layer": layer}) for layer in range(1, depth + 1)]
    return with_exits(base, exits=exits, labels=["no", "yes"])


def timed(
    timings: dict[str, Timing], rival: str, facts: dict[str, Any], name: str = "name", *, batches: int = 1
) -> list[dict[str, Any]]:
    """A line for each candidate: ms of a batch, and how many times faster than the rival.

    Args:
        timings: Of all candidates.
        rival: One of them.
        facts: What else a line says.
        name: Field that says which candidate it is.
        batches: That were timed in one run.
    """
    return [
        {
            name: candidate,
            **facts,
            "ms": timing.median_ms / batches,
            "spread": [timing.low_ms / batches, timing.high_ms / batches],
            "runs": timing.runs,
            "faster": quartiles(timings[rival], timing),
        }
        for candidate, timing in timings.items()
    ]


def model_rows(thread_count: int, seconds: float) -> list[dict[str, Any]]:
    """Milliseconds of a batch through the medium preset at full depth, by mode."""
    twin = classifier("beexformer-medium")
    models = {"float32 twin": twin} | {
        f"W1A{bits}": in_signs(in_latents(twin, activation_bits=bits)) for bits in ACTIVATION_BITS
    }
    lines: list[dict[str, Any]] = []
    for batch in (1, 8):
        generator = torch.Generator().manual_seed(0)
        ids, rows = pack([torch.randint(1000, 30_000, (TOKENS,), generator=generator) for _ in range(batch)])
        candidates = {
            name: partial(run, model.transformer, ids, rows, None, FULL) for name, model in models.items()
        }
        with threads(thread_count), torch.inference_mode():
            timings = interleaved(candidates, seconds=seconds)
        facts = {"batch": batch, "tokens": TOKENS, "threads": thread_count}
        lines += timed(timings, "float32 twin", facts, "mode")
    return lines


def int8_rows(thread_count: int, seconds: float) -> list[dict[str, Any]]:
    """Milliseconds of MiniLM in int8 at full depth, without exits before the last, beside OpenVINO's int8."""
    torch.manual_seed(0)
    base = load("builtin:minilm-l6")
    last = [ExitShape(layer=base.transformer.depth)]
    with tempfile.TemporaryDirectory() as place:
        whole = with_exits(base, exits=last, labels=["no", "yes"], seed=0).eval()
        whole.save_pretrained(place)
        small = load(place, promises=False, precision="int8")
    with threads(thread_count):
        rivals = build_rivals(["openvino-int8", "openvino"], whole, thread_count, rows_of(64, LENGTH))
        lines: list[dict[str, Any]] = []
        for batch in (1, 8):
            rows = rows_of(batch, LENGTH)
            must_agree("openvino", rivals["openvino"](rows), run_all(whole, rows, FULL, batch))
            candidates = {"lessen int8": partial(run_all, small, rows, FULL, batch)}
            candidates |= {"lessen": partial(run_all, whole, rows, FULL, batch)}
            candidates |= {kind: partial(rival, rows) for kind, rival in rivals.items()}
            timings = interleaved(candidates, seconds=seconds)
            facts = {"batch": batch, "tokens": LENGTH, "threads": thread_count}
            lines += timed(timings, "openvino-int8", facts)
    return lines


def exit_rows(thread_count: int, seconds: float) -> list[dict[str, Any]]:
    """Milliseconds of a batch of the SST-2 model in int8 with certified exits, beside OpenVINO's int8.

    The model is that of `sst2_exits.py` (seed 0), certified anew in int8 as in `exit_latency.py`; it reads
    the first 64 sentences of its test part that have 24 tokens.
    """
    folder = CACHE / "sst2" / "depth_weighted-seed0"
    if not folder.exists():
        sys.exit("run benchmarks/sst2_exits.py first: it makes the model timed here")
    whole, small = load(folder), load(certified_in_int8(folder), precision="int8")
    parts = [read(str(CACHE / "sst2" / "data" / f"{part}.jsonl")).texts for part in ("tune", "test")]
    calibration, test = (encode(whole.tokenizer, texts, 512) for texts in parts)
    rows = [row for row in test if len(row.ids) == LENGTH][:SENTENCES]
    points = {EARLY: small.points["drop-1%"], "lessen int8, SST-2": FULL}
    with threads(thread_count):
        rival = build_rivals(["openvino-int8"], whole, thread_count, calibration[:300])["openvino-int8"]
        lines: list[dict[str, Any]] = []
        for batch in (1, 8):
            chunks = [rows[at : at + batch] for at in range(0, len(rows), batch)]
            candidates: dict[str, Callable[[], object]] = {
                name: partial(run_all, small, rows, point, batch) for name, point in points.items()
            }
            candidates["openvino-int8, SST-2"] = partial(one_by_one, rival, chunks)
            timings = interleaved(candidates, seconds=seconds)
            facts = {"batch": batch, "tokens": LENGTH, "threads": thread_count}
            lines += timed(timings, "openvino-int8, SST-2", facts, batches=len(chunks))
    return lines


def one_by_one(rival: Rival, chunks: list[list[Encoded]]) -> None:
    """A rival's answers, batch by batch."""
    for chunk in chunks:
        rival(chunk)


def rows_of(count: int, tokens: int) -> list[Encoded]:
    """Rows of random tokens."""
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(1000, 30_000, (count, tokens), generator=generator).tolist()
    return [Encoded(row, None, False) for row in ids]


COUNTS = """
#include <stdio.h>
#include <time.h>
#define COUNT(i) "vpopcntq %%zmm" #i ", %%zmm" #i "\\n"
int main(void) {
    double best = 1e9;
    for (int turn = 0; turn < 1000; turn++) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        for (int i = 0; i < 30000; i++)
            __asm__ volatile(COUNT(0) COUNT(1) COUNT(2) COUNT(3) COUNT(4) COUNT(5) COUNT(6) COUNT(7) :::
                             "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
        clock_gettime(CLOCK_MONOTONIC, &to);
        double took = (to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec);
        best = took < best ? took : best;
    }
    printf("%f", 24e4 / best);
}
"""
"""Counts of 512 bits in eight registers, none of which waits for another. The fastest of many short turns is
one that nothing interrupted."""


def counts_per_ns() -> float | None:
    """How often a core counts 512 bits in a nanosecond; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as place:
        source, program = Path(place, "counts.c"), Path(place, "counts")
        source.write_text(COUNTS)
        subprocess.run([compiler, "-O1", str(source), "-o", str(program)], check=True)
        return float(subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout)


def limit_ms(line: dict[str, Any], counts: float | None) -> float | None:
    """Time of a product of one bit by one bit if its bits were only counted, by `VPOPCNTQ` on 512 bits."""
    if counts is None or line["kernel"] != "w1a1":
        return None
    return line["m"] * line["n"] * line["k"] / 512 / (counts * 1e6) / line["threads"]


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
    parser.add_argument("--only", default=",".join(PARTS), help="parts, parted by commas")
    options = parser.parse_args()
    machines = known()
    own = machines.setdefault(place(), {})
    for part in options.only.split(","):
        found = PARTS[part](options.seconds)
        for line in found:
            print(line)
        own[part] = {"commit": commit(), "machine": machine(), "lines": found}
        write_results(NAME, {"machines": machines})


def place() -> str:
    """What results are kept under: processor and the kernels' instruction set."""
    kernels = native()
    return f"{processor()}, {kernels.isa if kernels else 'torch'}"


def known() -> dict[str, Any]:
    """The machines, and parts of each, that the results file holds already."""
    path = RESULTS / f"{NAME}.json"
    return json.loads(path.read_text())["machines"] if path.exists() else {}


def kernels(seconds: float) -> list[dict[str, Any]]:
    """Products with 1 and with 2 threads, with the limit of counting bits where they can be counted so."""
    lines = [line for count in (1, 2) for line in kernel_rows(thread_count=count, seconds=seconds)]
    counts = counts_per_ns() if lines[0]["isa"] in ("avx512", "amx") else None
    return [line | {"counts_per_ns": counts, "limit_ms": limit_ms(line, counts)} for line in lines]


def models(seconds: float) -> list[dict[str, Any]]:
    """Whole models with 1 and with 2 threads."""
    return [line for count in (1, 2) for line in model_rows(count, seconds)]


def int8(seconds: float) -> list[dict[str, Any]]:
    """MiniLM in int8 with 1 and with 2 threads."""
    return [line for count in (1, 2) for line in int8_rows(count, seconds)]


def exits(seconds: float) -> list[dict[str, Any]]:
    """MiniLM in int8 with certified exits, with 1 and with 2 threads."""
    return [line for count in (1, 2) for line in exit_rows(count, seconds)]


NAME = "bits_speed"
PARTS: dict[str, Callable[[float], list[dict[str, Any]]]] = {
    "sizes": lambda _: sizes(),
    "kernels": kernels,
    "models": models,
    "int8": int8,
    "exits": exits,
}
"""What is measured; sizes do not depend on how busy the machine is."""


if __name__ == "__main__":
    main()
