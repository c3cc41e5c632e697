"""A results file says which machine it comes from, whatever the system is willing to tell."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from lessen import machine as module
from lessen.machine import cores, cpu_quota, instruction_sets, machine, processor

CPU_INFO = """processor\t: 0
model name\t: Some Processor @ 2.00GHz
flags\t\t: fpu avx2 fma avx512f avx512_vnni amx_bf16 amx_int8 avx512_bf16 unheard_of

processor\t: 1
model name\t: Another
"""


def test_record_is_complete_and_json() -> None:
    record = json.loads(json.dumps(machine()))
    assert record.keys() == {
        *(
            "processor",
            "cores",
            "cpu_quota",
            "instruction_sets",
            "kernels",
            "memory_gib",
            "os",
            "python",
            "versions",
            "date",
        )
    }
    assert record["processor"]
    assert record["cores"] >= 1
    assert {"torch", "transformers", "lessen"} <= record["versions"].keys()
    assert datetime.fromisoformat(record["date"]).utcoffset().total_seconds() == 0


def test_first_processor_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text(CPU_INFO)
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "cpuinfo")
    assert processor() == "Some Processor @ 2.00GHz"
    expected = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    assert instruction_sets() == expected


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        place = tmp_path / f"cpu{number}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(module, "TOPOLOGY", tmp_path)
    for allowed, expected in [({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 1}, 2), ({3}, 1), ({8, 9}, 2)]:
        monkeypatch.setattr(module.os, "sched_getaffinity", lambda _, allowed=allowed: allowed, raising=False)
        assert cores() == expected


@pytest.mark.parametrize(
    ("content", "expected"), [("max 100000", None), ("150000 100000", 1.5), ("nonsense", None), (None, None)]
)
def test_container_limit(
    content: str | None, expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpu.max"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(module, "CPU_QUOTA", path)
    assert cpu_quota() == expected


def test_a_silent_system_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CPU_INFO", "TOPOLOGY", "CPU_QUOTA"):
        monkeypatch.setattr(module, name, tmp_path / "missing")
    monkeypatch.delattr(module.os, "sched_getaffinity", raising=False)
    record = machine()
    assert record["processor"]
    assert record["cores"] >= 1
    assert len(record["instruction_sets"]) == 1


def test_missing_packages_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("torch", "no-such-package"))
    assert module.versions().keys() == {"torch"}
