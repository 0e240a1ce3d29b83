"""Every form of input gives the same bytes in a fixed order."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batching import pictures
from torchfbi.batch.inputs import find
from torchfbi.batch.sources import printable
from torchfbi.errors import FileFormatError, ImageError


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return pictures(tmp_path / "photos", 5)


def everything(place: Path | str) -> list[bytes]:
    """What a source gives, before and after it was sent to another process."""
    source = find(place)
    found = [source.read(i) for i in range(len(source.names))]
    sent = pickle.loads(pickle.dumps(source))
    assert [sent.read(i) for i in reversed(range(len(found)))] == found[::-1]
    return found


def test_a_folder_is_read_recursively_and_sorted(photos: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(photos[0].read_bytes())
    (folder / "in circles").symlink_to(folder)
    source = find(folder)
    assert list(source.names) == ["0/000.png", "0/002.png", "0/004.png", "1/001.png", "1/003.png"]
    assert everything(folder) == [photos[i].read_bytes() for i in (0, 2, 4, 1, 3)]
    assert list(find(folder, without=folder / "0").names) == ["1/001.png", "1/003.png"]


def test_a_list_keeps_its_order_and_its_doubles(photos: list[Path], tmp_path: Path) -> None:
    lines = ["photos/1/003.png", "", str(photos[0]), "photos/1/003.png"]
    (tmp_path / "list.txt").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert everything(tmp_path / "list.txt") == [photos[i].read_bytes() for i in (3, 0, 3)]


def test_a_pattern_and_a_single_picture(photos: list[Path], tmp_path: Path) -> None:
    expected = [photos[i].read_bytes() for i in (0, 2, 4, 1, 3)]
    assert everything(f"{tmp_path}/photos/**/*.png") == expected
    assert everything(f"{tmp_path}/photos/1/00[1-2].png") == [photos[1].read_bytes()]
    assert everything(photos[4]) == [photos[4].read_bytes()]


def test_tar_archives_as_webdataset_writes_them(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number, part in enumerate((photos[:2], photos[2:])):
        with tarfile.open(tmp_path / "set" / f"{number}.tar", "w") as tar:
            for path in part:
                tar.add(path, path.name)
                tar.addfile(tarfile.TarInfo(f"{path.stem}.cls"), io.BytesIO())
    assert list(find(tmp_path / "set").names)[1:3] == ["0.tar/001.png", "1.tar/002.png"]
    assert everything(tmp_path / "set") == [path.read_bytes() for path in photos]


@pytest.mark.parametrize("column", ["hugging face", "bytes", "paths"])
def test_parquet(photos: list[Path], tmp_path: Path, column: str) -> None:
    contents = [path.read_bytes() for path in photos]
    table = {
        "hugging face": {"picture": [{"bytes": c, "path": None} for c in contents]},
        "bytes": {"title": list("abcde"), "content": contents},
        "paths": {"path": [str(path.relative_to(tmp_path)) for path in photos]},
    }[column]
    for number, part in enumerate((slice(0, 2), slice(2, 5))):
        rows = pa.table({name: values[part] for name, values in table.items()})
        pq.write_table(rows, tmp_path / f"{number}.parquet", row_group_size=2)
    assert everything(f"{tmp_path}/*.parquet") == contents


def test_a_data_set_saved_by_hugging_face(photos: list[Path], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int32")})
    table = {"image": [{"bytes": p.read_bytes(), "path": None} for p in photos], "label": [1] * 5}
    rows = datasets.Dataset.from_dict(table, features)
    rows.select([4, 2, 0]).save_to_disk(tmp_path / "plain")  # by indices into the whole table
    assert everything(tmp_path / "plain") == [photos[i].read_bytes() for i in (4, 2, 0)]
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "both")
    assert list(find(tmp_path / "both").names)[:2] == ["test/0", "train/0"]
    assert everything(tmp_path / "both") == [photos[i].read_bytes() for i in (1, 0, 1, 2, 3, 4)]


def test_names_that_are_no_text_can_be_written_down(photos: list[Path], tmp_path: Path) -> None:
    odd = os.fsdecode(b"-\xff\n.png")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / odd).write_bytes(photos[0].read_bytes())
    source = find(tmp_path / "odd")
    assert source.read(0) == photos[0].read_bytes()
    assert printable(source.names[0]) == "-\\xff\n.png"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: p / "nowhere", ImageError, "no file, folder or pattern"),
        (lambda p: p / "*.jpg", ImageError, "holds no images"),
        (lambda p: p, ImageError, "holds no images"),
        (lambda p: _written(p / "a.tar.gz", b"\x1f\x8b\x08"), FileFormatError, "gunzip"),
        (lambda p: _written(p / "a.tar", b"no tar"), FileFormatError, "uncompressed tar"),
        (lambda p: _written(p / "a.parquet", b"PAR1"), FileFormatError, "not a Parquet file"),
        (lambda p: _written(p / "a.txt", b"\0\1"), FileFormatError, "no list of paths"),
        (lambda p: _written(p / "a.mp4", b""), FileFormatError, "give a folder"),
        (lambda p: _table(p / "b.parquet"), FileFormatError, "no column of images"),
        (lambda p: _written(p / "set/state.json", b"{}").parent, FileFormatError, "damaged data"),
    ],
)
def test_what_is_no_input_is_refused(make, error, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        find(make(tmp_path))


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def _table(path: Path) -> Path:
    pq.write_table(pa.table({"number": [1]}), path)
    return path
