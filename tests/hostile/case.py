"""What a hostile file is, and the table of all of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

TRACE = "executed"
"""The file that a payload leaves in the current folder if it runs."""


class Case(NamedTuple):
    """A hostile file.

    Args:
        name: what it is called in the tests.
        kind: what it is given to.
        make: writes it into an empty folder and returns its path.
        open: the loader under test.
        refusal: the error that it must meet; None where it must be opened without harm.
        message: a part of the error's text, a regular expression.
    """

    name: str
    kind: str
    make: Callable[[Path], Any]
    open: Callable[[Any], object]
    refusal: type[Exception] | None
    message: str


class Outcome(NamedTuple):
    """What happened: the error's type and text, both empty if it was opened; seconds; the peak of
    the memory in MiB above what the process had before."""

    error: str
    message: str
    seconds: float
    memory: float


CASES: dict[str, Case] = {}
Maker = Callable[[Path], Any]


def kind(name: str, open: Callable[[Any], object], refusal: type[Exception]) -> Any:
    """A decorator for the generators of one kind: ``@picture("message")``; None: no refusal."""

    def decorator(message: str | None) -> Callable[[Maker], Maker]:
        def register(make: Maker) -> Maker:
            title = f"{name}: {make.__name__.strip('_').replace('_', ' ')}"
            assert title not in CASES
            error = None if message is None else refusal
            CASES[title] = Case(title, name, make, open, error, message or "")
            return make

        return register

    return decorator


def sparse(path: Path, size: int, start: bytes = b"") -> Path:
    """A file of that size that takes no room on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


def zeros(mib: int, start: bytes = b"") -> bytes:
    """A deflate stream of that many MiB of zeros, about a thousandth of it long."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + block * mib + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def archive(*members: tuple[str, bytes, int]) -> bytes:
    """A zip file of compressed members: name, deflate stream, and the size that it claims."""
    body, directory = b"", b""
    for name, stream, size in members:
        offset, encoded = len(body), name.encode()
        fields = struct.pack(
            "<HHHHHIIIHH", 45, 0, 8, 0, 33, 0, len(stream), min(size, 2**32 - 1), len(encoded), 20
        )
        extra = struct.pack("<HHQQ", 1, 16, size, len(stream))
        body += b"PK\x03\x04" + fields + encoded + extra + stream
        directory += b"PK\x01\x02\x2d\0" + fields + bytes(10) + struct.pack("<I", offset)
        directory += encoded + extra
    count, place = len(members), len(body)
    ending = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), place, 0)
    return body + directory + b"PK\x05\x06" + ending
