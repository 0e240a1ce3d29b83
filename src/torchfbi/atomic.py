"""Files that appear whole or not at all, whatever stops the program."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

UNFINISHED = ".*.part"
"""What a program that was killed may leave beside a file; data tools skip names with a dot."""


def write(path: Path, content: bytes) -> None:
    """Write a file under another name, wait until the disk has it, and rename it. Where several
    threads or processes write one path, it is the whole of one of them.

    Args:
        path: the file; missing folders are made, an older file is replaced.
        content: all of it.

    Raises:
        OSError: it cannot be written; an older file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.part"  # fits where path does
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        error.filename = str(path)  # nobody knows the other name
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the new name itself last. Windows opens no folders, and some file systems refuse."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
