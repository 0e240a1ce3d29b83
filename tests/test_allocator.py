from __future__ import annotations

import platform
from pathlib import Path

import pytest

from torchfbi.system.allocator import give_back, share_one_heap

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc")
MIB = 2**20


def resident() -> int:
    """In bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_free_memory_between_what_is_kept_goes_back() -> None:
    blocks = [bytearray(b"x" * 50_000) for _ in range(1500)]  # too small for maps of their own
    last = blocks[-1]  # above the hole: by itself glibc gives back no more than what lies on top
    del blocks
    before = resident()
    give_back()
    assert resident() < before - 50 * MIB
    assert last


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchfbi.system.allocator.ctypes.CDLL", lambda name: object())
    give_back()
    share_one_heap()
