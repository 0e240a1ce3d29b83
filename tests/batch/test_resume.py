"""Killed at any moment and started again, a run ends with the same table."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from batching import pictures, tiny
from torchfbi import Labels, Model, Photo, Preprocess, Settings, atomic
from torchfbi.batch import Progress, inputs, run, store
from torchfbi.batch.job import Job
from torchfbi.capture.capture import capture
from torchfbi.errors import FileFormatError, SettingsError, StorageError
from torchfbi.models.preprocess import Region

COUNT = 11
OPTIONS = {"shard": 3, "batch": 2, "threads": 1, "workers": 0}  # four shards


def rows(out: Path) -> pa.Table:
    return pq.read_table(out / "rows").drop_columns("milliseconds")


def test_rows_that_nobody_says_anything_of_are_no_part_of_a_run(
    photos: Path, tmp_path: Path
) -> None:
    run(tiny(), photos, tmp_path, **OPTIONS)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(SettingsError, match=r"no manifest\.json that says what they are of"):
        run(tiny(), photos, tmp_path, settings=Settings.plain(), **OPTIONS)


def files(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "rows").glob("*.parquet")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    pictures(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(tiny(), photos, out, **OPTIONS)
    return rows(out)


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before_anything_is_written(kills: int) -> None:
    _on_call(atomic, "write", kills + 1, lambda *a, **k: _die())  # the manifest is written first


def _half_written(kills: int) -> None:
    def half(path: Path, content: bytes) -> None:
        (path.parent / f".{path.name}.0.part").write_bytes(content[: len(content) // 2])
        _die()

    _on_call(atomic, "write", kills + 1, half)


def _before_it_is_renamed(kills: int) -> None:
    _on_call(Path, "replace", kills + 1, _die)


def _right_after_it_is_renamed(kills: int) -> None:
    _on_call(atomic, "_sync", kills + 1, _die)


def _on_call(owner: object, name: str, number: int, instead: Callable[..., None]) -> None:
    """In the dying process: replace one call of a function."""
    original, calls = getattr(owner, name), []

    def counted(*arguments: object, **named: object) -> object:
        calls.append(1)
        return (instead if len(calls) == number else original)(*arguments, **named)

    setattr(owner, name, counted)


def _doomed(photos: Path, out: Path, arm: Callable[[int], None], kills: int) -> None:
    torch.set_num_threads(1)
    arm(kills)
    run(tiny(), photos, out, **OPTIONS)


@pytest.mark.parametrize(
    "arm",
    [
        _before_anything_is_written,
        _half_written,
        _before_it_is_renamed,
        _right_after_it_is_renamed,
    ],
)
@pytest.mark.parametrize("shards", [0, 2])
def test_killed_around_a_write(
    photos: Path, whole: pa.Table, tmp_path: Path, arm: Callable[[int], None], shards: int
) -> None:
    out = tmp_path / "out"
    fork = multiprocessing.get_context("fork")  # the tests' own process starts no threads
    process = fork.Process(target=_doomed, args=(photos, out, arm, shards + 1))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = files(out)
    assert len(kept) == shards + (arm is _right_after_it_is_renamed)
    for name in kept:
        pq.read_table(out / "rows" / name)
    done = run(tiny(), photos, out, **OPTIONS)
    assert done.explained == COUNT - 3 * len(kept)
    assert {name: files(out)[name] for name in kept} == kept  # none is written twice
    assert rows(out).equals(whole)
    assert list((out / "rows").glob(".*")) == []


def test_stopped_by_ctrl_c_what_is_done_is_kept(
    photos: Path, whole: pa.Table, tmp_path: Path
) -> None:
    def stop(step: Progress) -> None:
        if step.done >= 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny(), photos, tmp_path / "out", progress=stop, **OPTIONS)
    assert len(files(tmp_path / "out")) == 2
    steps: list[Progress] = []
    run(tiny(), photos, tmp_path / "out", progress=steps.append, **OPTIONS)
    assert [step.done for step in steps] == [6, 8, 9, 11]
    assert rows(tmp_path / "out").equals(whole)


def test_what_the_first_run_chose_holds_for_the_next(photos: Path, tmp_path: Path) -> None:
    run(tiny(), photos, tmp_path / "out", **OPTIONS)
    before = files(tmp_path / "out")
    (tmp_path / "out/rows/000001.parquet").unlink()
    assert run(tiny(), photos, tmp_path / "out", workers=0).explained == 3
    assert files(tmp_path / "out").keys() == before.keys()
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["batch"], manifest["threads"]) == (2, 1)


@pytest.mark.parametrize(
    ("seed", "change", "message"),
    [
        (1, {}, "other weights"),
        (0, {"settings": Settings.paper()}, "preset was contrast, is paper"),
        (0, {"target": "kind 1"}, "target was None, is kind 1"),
        (0, {"batch": 3}, "batch was 2, is 3"),
    ],
)
def test_a_changed_run_refuses_to_mix_unless_told_to(
    photos: Path, tmp_path: Path, seed: int, change: dict[str, object], message: str
) -> None:
    out = tmp_path / "out"
    run(tiny(), photos, out, **OPTIONS)
    before = files(out)
    (out / "rows/000002.parquet").unlink()
    other = {**OPTIONS, **change}
    with pytest.raises(SettingsError, match=message):
        run(tiny(seed), photos, out, **other)
    assert "000002.parquet" not in files(out)
    run(tiny(seed), photos, out, mix=True, **other)
    assert files(out).keys() == before.keys()
    hashes = pq.read_table(out / "rows")["settings"].to_pylist()
    assert (len(set(hashes)) == 2) == ("batch" not in change)
    assert run(tiny(seed), photos, out, **other).explained == 0  # the folder is now of this kind
    assert len(json.loads((out / "manifest.json").read_text())["earlier"]) == 1


def _code_of_the_network(photos: Path) -> Model:
    model = tiny()
    model.module.register_forward_hook(lambda module, args, output: output * 2)
    return model


def _code_that_was_captured_before(photos: Path) -> Model:
    model, doubled = tiny(), list[bool]()
    forward = model.module.forward
    model.module.forward = lambda x: forward(x) * 2 if doubled else forward(x)
    capture(model.module, model.blank())  # as by an earlier run of this process
    doubled.append(True)
    return model


def _constant_of_the_network(photos: Path) -> Model:
    model = tiny()
    model.module.first.padding_mode = "reflect"
    model.module.first._reversed_padding_repeated_twice = [1] * 4
    return model


class Brighter(Preprocess):
    def __call__(self, photo: Photo) -> tuple[Tensor, Region]:
        x, region = super().__call__(photo)
        return x + 1, region


def _code_of_the_preprocessing(photos: Path) -> Model:
    model = tiny()
    return replace(model, preprocess=Brighter(**vars(model.preprocess)))


def _other_pictures(photos: Path) -> Model:
    before = (photos / "1/003.png").stat()
    content = (photos / "0/004.png").read_bytes()
    (photos / "1/003.png").write_bytes(content)
    os.utime(photos / "1/003.png", ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))
    return tiny()


def _other_labels(photos: Path) -> Model:
    return replace(tiny(), labels=Labels([f"sort {i}" for i in range(10)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_code_of_the_network, "code computes something else"),
        (_code_that_was_captured_before, "code computes something else"),
        (_constant_of_the_network, "code computes something else"),
        (_other_pictures, "files have other sizes or times"),  # by a clock that was set back
        (_other_labels, "other labels"),
        (_code_of_the_preprocessing, "makes something else of a picture"),
    ],
)
def test_what_nobody_named_has_changed(
    tmp_path: Path, change: Callable[[Path], Model], message: str
) -> None:
    pictures(tmp_path / "photos", COUNT)
    out = tmp_path / "out"
    run(tiny(), tmp_path / "photos", out, **OPTIONS)
    (out / "rows/000001.parquet").unlink()
    model = change(tmp_path / "photos")
    with pytest.raises(SettingsError, match=message):
        run(model, tmp_path / "photos", out, **OPTIONS)
    assert run(model, tmp_path / "photos", out, mix=True, **OPTIONS).explained == 3


@pytest.mark.parametrize("kind", ["bytes.parquet", "paths.parquet", "either.parquet", "tar"])
def test_other_pictures_in_an_archive_of_the_same_name(tmp_path: Path, kind: str) -> None:
    """The names of their images are the same as well; that of paths itself stays what it is."""

    def write(seed: int) -> Path:
        path = tmp_path / f"images.{kind}"
        paths = pictures(tmp_path / str(seed), 6)[3:]
        contents = [one.read_bytes() for one in paths[::seed]]
        if kind == "bytes.parquet":
            pq.write_table(pa.table({"image": contents}), path)
        elif kind != "tar":
            names = [f"{number}.png" for number in range(3)]
            for name, content in zip(names, contents, strict=True):
                (tmp_path / name).write_bytes(content)
            cells = [{"bytes": None, "path": name} for name in names]
            column = names if kind == "paths.parquet" else cells
            pq.write_table(pa.table({"path": column}), path)
        else:
            with tarfile.open(path, "w") as tar:
                for number, content in enumerate(contents):
                    entry = tarfile.TarInfo(f"{number}.png")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        return path

    run(tiny(), write(1), tmp_path / "out", **OPTIONS)
    before = (tmp_path / f"images.{kind}").stat().st_mtime_ns
    os.utime(write(-1), ns=(0, before - 10**9 if kind in ("bytes.parquet", "tar") else before))
    with pytest.raises(SettingsError, match="files have other sizes or times"):
        run(tiny(), tmp_path / f"images.{kind}", tmp_path / "out", **OPTIONS)


def test_another_version_refuses_to_mix(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(), photos, tmp_path / "out", **OPTIONS)
    path = tmp_path / "out/manifest.json"
    path.write_text(path.read_text().replace(torch.__version__, "1.0"))
    with pytest.raises(SettingsError, match=r"torch was 1\.0"):
        run(tiny(), photos, tmp_path / "out", **OPTIONS)


def test_another_input_is_never_mixed(photos: Path, tmp_path: Path) -> None:
    run(tiny(), photos, tmp_path / "out", **OPTIONS)
    (tmp_path / "more").mkdir()
    pictures(tmp_path / "more", COUNT + 1)
    for change in ({"images": tmp_path / "more"}, {"images": photos, "shard": 4}):
        with pytest.raises(SettingsError, match="rows of another"):
            run(tiny(), out=tmp_path / "out", mix=True, **{**OPTIONS, **change})


def _other(photos: Path, out: Path) -> None:
    torch.set_num_threads(1)
    try:
        run(tiny(), photos, out, workers=0, shard=1, batch=1, threads=1)
    except StorageError as error:
        os._exit(3 if "another run" in str(error) else 4)


def test_two_processes_on_one_folder(photos: Path, tmp_path: Path, whole: pa.Table) -> None:
    """While this one runs another is refused; afterwards another goes on."""
    out = tmp_path / "out"
    fork = multiprocessing.get_context("fork")

    def other() -> int | None:
        process = fork.Process(target=_other, args=(photos, out))
        process.start()
        process.join()
        return process.exitcode

    job = Job(inputs.find(photos), tiny(), Settings.contrast(), shard=1, batch=1)
    with store.Store(out).opened(job):
        assert other() == 3
    assert other() == 0
    assert rows(out)["path"].equals(whole["path"])


def test_two_runs_at_once_are_refused(photos: Path, tmp_path: Path) -> None:
    def second(step: Progress) -> None:
        with pytest.raises(StorageError, match="another run"):
            run(tiny(), photos, tmp_path / "out", **OPTIONS)

    run(tiny(), photos, tmp_path / "out", progress=second, **OPTIONS)
    assert run(tiny(), photos, tmp_path / "out", **OPTIONS).explained == 0


@pytest.mark.parametrize("content", ["[]", "{", "\xff", "[" * 100_000, None], ids=range(5))
def test_a_damaged_manifest_is_refused(photos: Path, tmp_path: Path, content: str | None) -> None:
    if content is None:
        os.mkfifo(tmp_path / store.MANIFEST)  # nobody ever writes to it
    else:
        (tmp_path / store.MANIFEST).write_text(content)
    with pytest.raises(FileFormatError, match="damaged"):
        run(tiny(), photos, tmp_path, **OPTIONS)
