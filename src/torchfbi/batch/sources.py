"""Where the bytes of the images are: files, tar archives, Parquet files, Hugging Face datasets.

A source is a sequence: it has as many names as images, in an order that does not change, and
gives the bytes of any of them. It can be pickled; what it opens it opens where it is used.
"""

from __future__ import annotations

import os
import tarfile
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from torchfbi.errors import FileFormatError, ImageError, needs
from torchfbi.models.images import SUFFIXES

MAX_BYTES = 2**30
"""Larger files are refused unread: no picture of ``images.MAX_PIXELS`` is as large."""


class Source(Protocol):
    """Images in a fixed order; ``kind`` says in a word what it is."""

    kind: str

    @property
    def names(self) -> Sequence[str]:
        """Of each image, as the rows call it."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """All that is read."""
        ...

    def read(self, index: int) -> bytes:
        """The bytes of the image's file.

        Raises:
            ImageError: it is gone, unreadable or too large.
        """
        ...


class Files:
    """Files, each an image.

    Args:
        names: their paths, absolute or from ``root``.
        root: a folder.
    """

    kind = "files"

    def __init__(self, names: Sequence[str], root: Path) -> None:
        self.names, self.root = names, root.absolute()

    @property
    def files(self) -> list[Path]:
        return [self.root / name for name in self.names]

    def read(self, index: int) -> bytes:
        return read_file(self.root / self.names[index])


class _Member(NamedTuple):
    archive: int
    start: int
    size: int


class Tars:
    """The images in tar archives that are not compressed, as WebDataset writes them.

    Raises:
        FileFormatError: an archive is compressed, or none.
    """

    kind = "tar"

    def __init__(self, archives: Sequence[Path]) -> None:
        self.archives = self.files = [archive.absolute() for archive in archives]
        self.names: list[str] = []
        self._members: list[_Member] = []
        for number, archive in enumerate(self.archives):
            self._index(number, archive)

    def _index(self, number: int, archive: Path) -> None:
        try:
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    whole = member.isreg() and not member.issparse()
                    if whole and Path(member.name).suffix.lower() in SUFFIXES:
                        self.names.append(f"{archive.name}/{member.name}")
                        self._members.append(_Member(number, member.offset_data, member.size))
        except (tarfile.TarError, OSError, ValueError) as error:
            raise FileFormatError(
                f"{archive}: not an uncompressed tar archive ({error}). Images are read from "
                "anywhere in it, so decompress it first, for example with gunzip."
            ) from error

    def read(self, index: int) -> bytes:
        member = self._members[index]
        archive = self.archives[member.archive]
        return read_file(archive, member.start, member.size, self.names[index])


class Parquets:
    """An image column of Parquet files: Hugging Face images, bytes, or paths of files.

    Args:
        files: read one after the other.

    Raises:
        FileFormatError: a file is damaged, or has no such column.
    """

    kind = "parquet"

    def __init__(self, files: Sequence[Path]) -> None:
        self._paths = [file.absolute() for file in files]
        self.files = self._paths.copy()
        self.names: list[str] = []
        self._groups: list[tuple[int, int]] = []  # file, row group
        self._columns: list[str] = []
        sizes: list[int] = []
        for number, path in enumerate(self._paths):
            try:
                with pq.ParquetFile(path) as file:
                    column = image_column(file.schema_arrow, path)
                    self._columns.append(column)
                    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
                    if not _holds_bytes(kind := file.schema_arrow.field(column).type):
                        part = f"{column}.path" if pa.types.is_struct(kind) else column
                        self.files += _named(file.read([part]).column(0), path.parent)
            except (pa.ArrowException, OSError) as error:
                raise FileFormatError(f"{path}: not a Parquet file ({error}).") from error
            self._groups += [(number, group) for group in range(len(rows))]
            sizes += rows
            self.names += [f"{path.name}/{row}" for row in range(sum(rows))]
        self._starts = list(accumulate(sizes, initial=0))
        self._open: tuple[int, Any] = (-1, None)

    def read(self, index: int) -> bytes:
        group = bisect_right(self._starts, index) - 1
        if self._open[0] != group:
            self._open = (group, self._column(group))
        value = self._open[1][index - self._starts[group]].as_py()
        return _cell(value, self._paths[self._groups[group][0]].parent, self.names[index])

    def _column(self, group: int) -> Any:
        number, part = self._groups[group]
        try:
            with pq.ParquetFile(self._paths[number]) as file:
                return file.read_row_group(part, [self._columns[number]]).column(0)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ImageError(f"{self._paths[number]} cannot be read: {error}.") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": (-1, None)}


class HuggingFace:
    """A data set that ``datasets`` has saved to a folder, with all its splits.

    Raises:
        ModelError: the package datasets is missing.
        FileFormatError: the folder is damaged, or has no column of images.
    """

    kind = "hugging-face"

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._splits = self._load()
        self.files = sorted(filter(Path.is_file, self.folder.rglob("*")))
        for rows, column in self._splits.values():
            self.files += _named(rows.data.column(column), self.folder)
        sizes = {split: len(rows) for split, (rows, _) in self._splits.items()}
        self.names = [f"{split}/{row}" for split, size in sizes.items() for row in range(size)]
        self._starts = list(accumulate(sizes.values(), initial=0))

    def _load(self) -> dict[str, tuple[Any, str]]:
        with needs("datasets"):
            import datasets
        try:
            found: Any = datasets.load_from_disk(str(self.folder))
        except Exception as error:  # a damaged folder raises nearly anything
            raise FileFormatError(f"{self.folder}: a damaged data set: {error}") from error
        splits = dict(found) if isinstance(found, datasets.DatasetDict) else {"all": found}
        loaded = {}
        for split, rows in sorted(splits.items()):
            column = image_column(rows.features.arrow_schema, self.folder)
            if isinstance(rows.features[column], datasets.Image):
                rows = rows.cast_column(column, datasets.Image(decode=False))
            loaded[split] = (rows.select_columns(column), column)
        return loaded

    def read(self, index: int) -> bytes:
        part = bisect_right(self._starts, index) - 1
        rows, column = list(self._splits.values())[part]
        return _cell(rows[index - self._starts[part]][column], self.folder, self.names[index])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_splits": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._splits = self._load()


def image_column(schema: pa.Schema, path: Path) -> str:
    """The column that holds images: Hugging Face's image type, bytes, or paths; of several the
    one called image, else the first.

    Raises:
        FileFormatError: there is none.
    """

    def is_image(kind: pa.DataType) -> bool:
        return pa.types.is_struct(kind) and {"bytes", "path"} <= {
            kind[i].name for i in range(len(kind))
        }

    def is_path(field: pa.Field) -> bool:
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        return text and field.name in ("image", "path", "file", "file_name", "filename")

    images = [field.name for field in schema if is_image(field.type)]
    contents = [field.name for field in schema if _holds_bytes(field.type)]
    paths = [field.name for field in schema if is_path(field)]
    for names in (images, contents, paths):
        if names:
            return "image" if "image" in names else names[0]
    raise FileFormatError(
        f"{path} has no column of images (bytes and path), of bytes, or called image, path or "
        f"file; it has {', '.join(schema.names)}."
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _named(cells: Any, folder: Path) -> list[Path]:
    """The files that the cells of an image column name."""
    if _holds_bytes(cells.type):
        return []
    names = pc.struct_field(cells, "path") if pa.types.is_struct(cells.type) else cells
    return [folder / name for name in names.to_pylist() if name]


def read_file(path: Path, start: int = 0, size: int | None = None, name: str = "") -> bytes:
    """The bytes of a file, or of a part of it.

    Raises:
        ImageError: it is gone, no regular file, too large, or cut short.
    """
    name = name or str(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no file, or no longer one"
            raise ImageError(f"{name} {what}.")
        length = path.stat().st_size if size is None else size
        if length > MAX_BYTES:
            raise ImageError(f"{name} has {length / 2**30:.1f} GiB. Scale the picture down.")
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(length)
    except ImageError:  # a ValueError as well
        raise
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be opened: {error}.") from error
    if len(content) < length:
        raise ImageError(f"{name} is cut short: {len(content)} of {length} bytes.")
    return content


def _cell(value: Any, folder: Path, name: str) -> bytes:
    """What a cell of an image column stands for: bytes, or the path of a file."""
    if isinstance(value, dict):
        value = value["bytes"] if value["bytes"] is not None else value["path"]
    if value is None:
        raise ImageError(f"{name}: the cell is empty.")
    return value if isinstance(value, bytes) else read_file(folder / value, name=name)


def stamp(path: Path) -> str:
    """Size and time of a file, which change with it; of none, that it is gone."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return "gone"
    return f"{found.st_size} {found.st_mtime_ns}"


def printable(name: str) -> str:
    """A name as UTF-8 can hold it: bytes of a file name that are no text become ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
