"""The machine a figure was measured on: without it, no latency in a results file means anything."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lessen.native import native, why_not

INSTRUCTION_SETS = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
"""Those that change the speed of matrix products, under Linux's names for them (x86, then ARM)."""

PACKAGES = ("lessen", "torch", "transformers", "onnxruntime", "openvino", "nncf")

CPU_INFO = Path("/proc/cpuinfo")
TOPOLOGY = Path("/sys/devices/system/cpu")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def machine() -> dict[str, Any]:
    """Everything about this machine and process that a measured time depends on, ready for JSON.

    Returns:
        `processor`; `cores`, the physical cores this process may use; `cpu_quota`, the processor time it may
        use per second if a container limits that, else None; `instruction_sets`; `kernels`, the
        instruction set our own use, or why there are none; `memory_gib`; `os`; `python`; `versions` of the
        installed packages that take part in a measurement; `date`, UTC in ISO format.
    """
    return {
        "processor": processor(),
        "cores": cores(),
        "cpu_quota": cpu_quota(),
        "instruction_sets": list(instruction_sets()),
        "kernels": kernels.isa if (kernels := native()) is not None else f"none: {why_not()}",
        "memory_gib": memory_gib(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Physical cores this process may run on; hardware threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_siblings(number) for number in os.sched_getaffinity(0)})


def cpu_quota() -> float | None:
    """Cores' worth of processor time a Linux control group grants, or None where nothing limits it."""
    try:
        granted, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return None if granted == "max" else int(granted) / int(period)
    except (OSError, ValueError):
        return None


def instruction_sets() -> tuple[str, ...]:
    """Which of `INSTRUCTION_SETS` the processor has; where the system does not say, the widest torch
    found.
    """
    info = _cpu_info()
    listed = (info.get("flags") or info.get("Features") or "").split()
    if listed:
        return tuple(name for name in INSTRUCTION_SETS if name in set(listed))
    return (torch.backends.cpu.get_cpu_capability().lower(),)


def memory_gib() -> float | None:
    """Main memory in GiB, or None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def versions() -> dict[str, str]:
    """Versions of those `PACKAGES` that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_info() -> dict[str, str]:
    try:
        text = CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _siblings(number: int) -> str:
    """The hardware threads sharing a core with logical processor `number`, as the system writes the set."""
    try:
        return (TOPOLOGY / f"cpu{number}/topology/thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(number)
