"""Freed memory is kept where the C library allows it, unless the user says not to."""

import platform

from lessen.memory import keep_freed_memory


def test_kept_on_glibc_unless_switched_off(monkeypatch):
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setenv("LESSEN_KEEP_MEMORY", "0")
    assert not keep_freed_memory()


def test_left_alone_elsewhere(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
