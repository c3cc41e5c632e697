"""`lessen bench --kernels`: right first, then fast."""

import json

import pytest
from conftest import run

from lessen.errors import LessenError
from lessen.measure import kernel_speed


def test_every_kernel_is_timed(monkeypatch):
    monkeypatch.setattr(kernel_speed, "kernel_rows", small(kernel_speed.kernel_rows))
    code, out, problems = run("bench", "--kernels", "--seconds", 0.1, "--threads", 1, "--json")
    assert code == 0, problems
    rows = json.loads(out)["rows"]
    assert {row["kernel"] for row in rows} == set(kernel_speed.KERNELS)
    assert {"kernel", "m", "n", "k", "threads", "ms", "torch_fp32_ms", "torch_bf16_ms", "int8_ms"} <= set(
        rows[0]
    )
    assert all(row["ms"] > 0 and row["threads"] == 1 for row in rows)
    assert all(row["gb_per_s"] > 0 and row["read_gb_per_s"] > 0 for row in rows)
    assert run("bench", "--kernels", "--seconds", 0.1)[0] == 0


def small(whole):
    return lambda **options: whole([(2, 40, 24)], **options)


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    monkeypatch.setattr(kernel_speed, "product", lambda *given: kernel_speed.reference(*given[:5]) + 1)
    monkeypatch.setattr(kernel_speed, "arranged", lambda kind, weight, columns, kernels: weight)
    with pytest.raises(LessenError, match="wrong by"):
        kernel_speed.kernel_rows([(2, 40, 24)], thread_count=1, seconds=0.1)


def test_what_cannot_be():
    code, _, said = run("bench", "--kernels", "builtin:minilm-l6")
    assert code == 2
    assert "leave it out" in said
    code, _, said = run("bench", "--kernels", "--data", "rows.csv")
    assert code == 2
    assert "--data is about models" in said
    code, _, said = run("bench")
    assert code == 2
    assert "needs MODEL" in said
