"""Files are whole or not there: whoever else writes them, however full the disk, however long the
name."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from batching import pictures, tiny
from torchfbi import Explanation, atomic, explain
from torchfbi.batch import run
from torchfbi.errors import StorageError


def test_threads_that_write_one_path(tmp_path: Path) -> None:
    path, contents = tmp_path / "a.bin", [bytes([i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(pool.map(lambda content: atomic.write(path, content), contents))
            assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_save_one_explanation(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 4), nn.ReLU(), nn.Flatten()).eval()
    found = [explain(net, torch.randn(1 + i, 3, 4, 4)) for i in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            list(pool.map(lambda one: one.save(tmp_path / "a"), found * 2))
            samples = json.loads((tmp_path / "a.json").read_text())["samples"]
            assert len(samples) == len(Explanation.load(tmp_path / "a.npz"))


@pytest.mark.parametrize("name", ["n" * 246 + ".npz", "ä" * 125])
def test_a_name_as_long_as_names_may_be(tmp_path: Path, name: str) -> None:
    atomic.write(tmp_path / name, b"content")
    assert (tmp_path / name).read_bytes() == b"content"


def test_files_are_as_open_to_others_as_any(tmp_path: Path) -> None:
    atomic.write(tmp_path / "ours", b"")
    (tmp_path / "any").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; what else is in it is counted in pages."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    path = small_disk / "a.bin"
    atomic.write(path, b"a" * 30_000)
    with pytest.raises(OSError, match="No space") as error:
        atomic.write(path, b"b" * 50_000)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"a" * 30_000
    assert list(small_disk.iterdir()) == [path]


def test_a_run_whose_rows_lie_on_another_disk_that_is_full(
    small_disk: Path, tmp_path: Path
) -> None:
    pictures(tmp_path / "photos", 12)
    (small_disk / "other").write_bytes(bytes(36_000))
    (small_disk / "rows").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/rows").symlink_to(small_disk / "rows")
    options = {"shard": 3, "batch": 3, "threads": 1, "workers": 0}
    with pytest.raises(StorageError, match="No space left"):
        run(tiny(), tmp_path / "photos", tmp_path / "out", **options)
    kept = sorted((tmp_path / "out/rows").iterdir())
    assert 0 < len(kept) < 4
    assert list((tmp_path / "out/rows").glob(".*")) == []
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    assert run(tiny(), tmp_path / "photos", tmp_path / "out", **options).images == 12
    assert sorted((tmp_path / "out/rows").iterdir())[: len(kept)] == kept
