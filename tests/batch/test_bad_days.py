"""Bad images, full disks, too little memory, dying processes: each costs what it must, no more."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from batching import Deadly, pictures, tiny
from torchfbi import ForwardBackward, Settings, atomic
from torchfbi.batch import local, memory, run
from torchfbi.batch.decode import decode
from torchfbi.batch.explainer import Explainer
from torchfbi.batch.job import Job
from torchfbi.capture.capture import capture
from torchfbi.errors import InputError, SettingsError, StorageError, TargetError

OPTIONS = {"shard": 4, "batch": 4, "threads": 1, "workers": 0}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    pictures(tmp_path / "photos", 9)
    return tmp_path / "photos"


def test_the_command_line(run, photos: Path, tmp_path: Path) -> None:
    arguments = ["batch", photos, "-o", "out", "--model", "digits", "--workers", 0]
    result = run(*arguments)
    assert result.code == 1
    assert "9 images, 1 failed" in result.out
    assert "1 of 9 images failed" in result.err
    assert "0/002.png" in result.err
    again = run(*arguments, "--json")
    assert again.code == 1
    found = json.loads(again.out)
    assert (found["images"], found["explained"], len(found["failed"])) == (9, 0, 1)
    (photos / "0/002.png").unlink()
    assert run(*arguments[:3], "good", *arguments[4:]).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no file"),
        (["photos", "--target", "unicorn"], "unicorn"),
        (["photos", "--target", "top11"], "at least 11 classes"),
        (["photos", "--target", "10"], "0 to 9"),
        (["photos", "--engine", "spark"], "choose local or ray"),
        (["photos", "-o", "photos/0/000.png"], "cannot be written"),
        (["photos", "--batch", "0"], "--batch"),
        (["photos", "--device", "warp"], "device 'warp' cannot be used"),
    ],
)
def test_bad_usage_is_one_clear_line(run, photos: Path, arguments: list[str], message: str) -> None:
    result = run("batch", *arguments, "--model", "digits", "--workers", 0)
    assert result.code == 2
    assert result.err.count("\n") <= 2
    assert message in result.err


def test_a_vanished_image_is_a_row(photos: Path, tmp_path: Path) -> None:
    def vanish(step: object) -> None:
        (photos / "1/007.png").unlink(missing_ok=True)

    done = run(tiny(), photos, tmp_path / "out", progress=vanish, **OPTIONS)
    assert [path for path, _ in done.failures] == ["0/002.png", "1/007.png"]
    row = pq.read_table(tmp_path / "out/rows").to_pylist()[-1]
    assert row["error"] == f"{photos / '1/007.png'} is no file, or no longer one."
    assert row["sha256"] is None


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 4:  # two for the manifest, two for the first shard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            run(tiny(), photos, tmp_path / "out", **OPTIONS)
    assert [path.name for path in (tmp_path / "out/rows").iterdir()] == ["000000.parquet"]
    assert run(tiny(), photos, tmp_path / "out", **OPTIONS).explained == 5


def test_too_little_memory_halves_the_batch(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def forward(self: ForwardBackward, x: Tensor, target: object = None) -> tuple[Tensor, Tensor]:
        sizes.append(len(x))
        if len(x) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte")
        return self.walk(x, target)

    run(tiny(), photos, tmp_path / "plenty", **{**OPTIONS, "batch": 1})
    with monkeypatch.context() as patch:
        patch.setattr(ForwardBackward, "forward", forward)
        done = run(tiny(), photos, tmp_path / "little", **OPTIONS)
    assert len(done.failures) == 1
    # The first batch has three good images of four. What was learnt there holds from then on.
    assert sizes == [3, 1, 2, 1, 1, 1, 1, 1, 1, 1]
    few, many = (
        pq.read_table(tmp_path / name / "rows").drop_columns("milliseconds")
        for name in ("little", "plenty")
    )
    assert few.equals(many)


def test_an_image_too_large_even_alone_is_a_row(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: ForwardBackward, x: Tensor, target: object = None) -> tuple[Tensor, Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ForwardBackward, "forward", forward)
    done = run(tiny(), photos, tmp_path / "out", **OPTIONS)
    assert len(done.failures) == 9
    assert "even on its own" in done.failures[0][1]


def test_an_answer_that_is_not_finite_concerns_its_image_alone(photos: Path) -> None:
    model = tiny()
    job = Job(Deadly(sorted(photos.rglob("*.png")), os.getpid()), model, Settings.contrast())
    good = [one for one in decode(job.source, model.preprocess, range(9)) if one.error is None]
    assert good[1].x is not None
    good[1].x[:] = np.float32(3e38)
    rows = Explainer(job)(good)
    assert [row["index"] for row in rows] == [one.number for one in good]
    assert [row["error"] is None for row in rows] == [True, False] + [True] * (len(good) - 2)


def test_an_image_that_kills_its_decoder_is_a_row(photos: Path) -> None:
    source = Deadly(sorted(photos.rglob("*.png")), os.getpid())
    job = Job(source, tiny(), Settings.contrast(), shard=4, batch=4)
    rows = [row for _, part in local.explain(job, job.slices(range(3)), 1) for row in part]
    assert [row["index"] for row in rows] == list(range(9))
    assert [row["index"] for row in rows if row["error"]] == [1, 3]  # 1 is the damaged one
    assert "decoder crashed" in rows[3]["error"]


def test_the_batch_fits_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = capture(tiny().module, torch.zeros(1, 3, 16, 16))
    need = 4 * (3 * 256 + 2 * 6 * 256 + 6 * 64 + 2 * 8 * 64 + 8 + 10)
    assert memory.bytes_per_image(graph) == need
    for free, expected in ((100 * need, 8), (25 * need, 4), (4 * need, 1), (0, 1), (None, 8)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        assert memory.batch_size(graph, "cpu") == expected
    assert memory.batch_size(graph, "cuda:0") == 64


def test_only_classifiers_with_enough_labels(photos: Path, tmp_path: Path) -> None:
    model = tiny()
    model.module.head = torch.nn.Linear(8, 11).eval()
    with pytest.raises(InputError, match="11 classes, but 10 labels"):
        run(model, photos, tmp_path / "a", **OPTIONS)
    with pytest.raises(TargetError):
        run(tiny(), photos, tmp_path / "b", "10", **OPTIONS)
    with pytest.raises(SettingsError, match="at least 1"):
        run(tiny(), photos, tmp_path / "c", **{**OPTIONS, "batch": -1})


def test_threads_are_as_before(photos: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run(tiny(), photos, tmp_path / "out", **{**OPTIONS, "threads": before + 1})
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_program_leaves_whole_shards_and_no_process(
    tmp_path: Path, sign: signal.Signals, code: int
) -> None:
    pictures(tmp_path / "photos", 3)
    for number in range(3, 3000):  # more than can be done before the signal comes
        os.link(tmp_path / "photos/1/001.png", tmp_path / f"photos/1/{number:04}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torchfbi", "batch", str(tmp_path / "photos")]
    command += ["-o", str(out), "--model", "digits", "--shard", "2", "--batch", "1"]
    # A suite in a shell's background ignores it, and what it starts would as well.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    program = subprocess.Popen(
        [*command, "--workers", "1"], stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    signal.signal(signal.SIGINT, before)
    while not list((out / "rows").glob("*.parquet")):
        assert program.poll() is None
        time.sleep(0.02)
    program.send_signal(sign)
    _, errors = program.communicate()
    assert program.returncode == code, errors
    assert "Traceback" not in errors
    assert ("stopped; what was written so far is complete" in errors) == (sign == signal.SIGINT)
    for path in (out / "rows").glob("*.parquet"):
        assert pq.read_table(path).num_rows == 2
    while _group(program.pid):  # its workers notice
        time.sleep(0.02)


def _group(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True
