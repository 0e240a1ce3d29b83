"""Reading files that may be anything: an endless device, a pipe, a terabyte, a zip bomb."""

from __future__ import annotations

import zipfile
from pathlib import Path


def whole(path: Path, most: int) -> bytes:
    """The content of a regular file.

    Args:
        path: the file. A pipe or a device is refused, since reading it may never end.
        most: how many bytes it may have.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is larger.
    """
    size = regular(path).stat().st_size
    if size > most:
        raise ValueError(f"it has {size} bytes, which is more than {most}")
    with path.open("rb") as file:
        return file.read(size)


def regular(path: Path) -> Path:
    """The path.

    Raises:
        OSError: there is nothing, or no regular file.
    """
    path.stat()  # says why, where there is nothing
    if not path.is_file():
        raise OSError("it is no regular file")
    return path


def unpacked(archive: zipfile.ZipFile) -> int:
    """How many bytes the members of a zip file hold once unpacked; reading stops there, whatever
    else a member has."""
    return sum(member.file_size for member in archive.infolist())
