"""`lessen bench --kernels`: our products with few bits beside torch's."""

from __future__ import annotations

from lessen.cli.output import emit, say, table


def bench_kernels(thread_count: int | None, seconds: float, *, as_json: bool) -> None:
    """Time every product of few bits, `seconds` in all, and print one line for each size."""
    import torch

    from lessen.machine import machine
    from lessen.measure.kernel_speed import kernel_rows
    from lessen.native import why_not

    rows = kernel_rows(thread_count=thread_count or torch.get_num_threads(), seconds=seconds)
    if as_json:
        emit({"rows": rows, "machine": machine()})
        return
    if (reason := why_not()) is not None:
        say(f"the plain form in torch is timed, there are no kernels: {reason}")
    rivals = ("torch_fp32_ms", "torch_bf16_ms", "int8_ms")
    table(
        ["kernel", "rows x in x out", "ms", "GB/s", *rivals],
        [
            [
                row["kernel"],
                f"{row['m']} x {row['k']} x {row['n']}",
                f"{row['ms']:.3f}",
                f"{row['gb_per_s']:.3g}",
            ]
            + [f"{row[name]:.3f} ({row[name] / row['ms']:.1f}x)" for name in rivals]
            for row in rows
        ],
        f"{rows[0]['isa']}, {rows[0]['threads']} threads; in brackets how many times faster the kernel is; "
        f"GB/s are of weights, in a plain loop {rows[-1]['read_gb_per_s']:.3g} for the last size",
    )
