"""Figures into files: the same figure always gives the same bytes."""

from __future__ import annotations

import io
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib
from matplotlib.figure import Figure

from torchfbi.errors import ImageError, SettingsError

FORMATS = ("png", "svg", "pdf")

# SVG and PDF take these from the process-wide settings only. Without the salt an SVG's ids are
# random; conferences refuse PDFs with Type 3 fonts, Matplotlib's default.
_SETTINGS: Any = {"svg.hashsalt": "torchfbi", "svg.fonttype": "path", "pdf.fonttype": 42}
_DATED = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}
_lock = threading.Lock()


def save(figure: Figure, path: str | os.PathLike[str] | BinaryIO, *, dpi: float = 150) -> None:
    """Write a figure. No time goes into the file, so equal figures give equal bytes.

    Args:
        figure: the figure, which is not changed.
        path: a file (.png, .svg or .pdf; missing folders are made), or a binary file object,
            which gets a PNG.
        dpi: pixels an inch. The figures are about 10 inches wide, so 150 gives 1500 pixels.

    Raises:
        SettingsError: another suffix.
        ImageError: the file cannot be written.
    """
    if not isinstance(path, str | os.PathLike):
        path.write(encode(figure, "png", dpi))
        return
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise SettingsError(
            f"{path}: figures are saved as .{', .'.join(FORMATS)}, not as {kind or 'no suffix'!r}."
        )
    write(Path(path), encode(figure, kind, dpi))


def write(path: Path, content: bytes) -> None:
    """Write a picture's bytes and make its folder.

    Raises:
        ImageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}.") from error


def encode(figure: Figure, kind: str, dpi: float = 150) -> bytes:
    """A figure as the bytes of a file of that kind, one of ``FORMATS``."""
    buffer = io.BytesIO()
    draw = partial(
        figure.savefig,
        buffer,
        format=kind,
        dpi=dpi,
        facecolor=figure.get_facecolor(),
        metadata={_DATED[kind]: None},
    )
    if kind == "png":
        draw()
    else:
        with _lock, matplotlib.rc_context(_SETTINGS):
            draw()
    return buffer.getvalue()
