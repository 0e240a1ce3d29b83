"""From what the user names to a source of images."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from torchfbi.batch.sources import Files, HuggingFace, Parquets, Source, Tars
from torchfbi.errors import FileFormatError, ImageError
from torchfbi.models.images import SUFFIXES

LISTS = (".txt", ".lst", ".list")
PARQUET, TAR = (".parquet", ".pq"), (".tar",)


def find(place: str | os.PathLike[str], without: str | os.PathLike[str] | None = None) -> Source:
    """The images that a place stands for.

    Args:
        place: a folder of pictures, with all folders below it, or of Parquet files or tar
            archives; a data set that Hugging Face's ``datasets`` has saved to a folder; one
            picture, Parquet file or tar archive; a list, ``.txt``, with a path a line, absolute
            or from the list's folder; or a pattern with ``*``, ``?``, ``[...]`` or ``**``.
        without: a folder to leave out where it lies in that folder, such as that of the results.

    Returns:
        A source in an order that depends on the names alone: sorted, but for lists and the
        insides of archives, which keep theirs.

    Raises:
        ImageError: there is no such place, or no image in it.
        FileFormatError: a list, archive or data set cannot be read.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        source = _folder(path, None if without is None else Path(without).absolute())
    elif path.is_file():
        source = _file(path)
    elif glob.has_magic(str(path)):
        matches = sorted(filter(os.path.isfile, glob.iglob(str(path), recursive=True)))  # noqa: PTH207  # sees ** as a shell does
        source = _several(list(map(Path, matches)), None)
    else:
        raise ImageError(f"{path} is no file, folder or pattern (seen from {Path.cwd()}).")
    if not source.names:
        raise ImageError(
            f"{path} holds no images. They are known by {', '.join(sorted(SUFFIXES))}."
        )
    return source


def _folder(folder: Path, without: Path | None) -> Source:
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return HuggingFace(folder)
    files = sorted(_walk(folder, without), key=lambda path: path.parts)
    for suffixes in (SUFFIXES, PARQUET, TAR):
        if found := [path for path in files if path.suffix.lower() in suffixes]:
            return _several(found, folder)
    return Files([], folder)


def _walk(folder: Path, without: Path | None) -> Iterator[Path]:
    """All regular files, hidden ones left out; links to folders are not followed, so that none
    leads in circles."""

    def refuse(error: OSError) -> None:
        raise ImageError(f"{error.filename} cannot be listed: {error.strerror}.") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        here = Path(place)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and (here / name).absolute() != without
        ]
        for name in names:
            path = here / name
            if not name.startswith(".") and path.is_file():
                yield path


def _file(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in LISTS:
        return Files(_lines(path), path.parent)
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")):
        return Tars([path])  # which says what to do
    if suffix in (*SUFFIXES, *PARQUET, *TAR):
        return _several([path], path.parent)
    raise FileFormatError(
        f"{path}: give a folder, a picture, a list ({', '.join(LISTS)}), a pattern, a .parquet "
        "file, a .tar archive or a data set of Hugging Face."
    )


def _several(paths: list[Path], root: Path | None) -> Source:
    """Files of one kind, named from the root, or as they are."""
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes and suffixes <= set(PARQUET):
        return Parquets(paths)
    if suffixes and suffixes <= set(TAR):
        return Tars(paths)
    names = [str(path if root is None else path.relative_to(root)) for path in paths]
    return Files(names, root or Path())


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}.") from error
    if "\0" in text:
        raise FileFormatError(f"{path} is no list of paths: it holds zero bytes.")
    return [line for line in (line.rstrip("\r") for line in text.split("\n")) if line.strip()]
