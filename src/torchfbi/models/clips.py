"""Videos: some frames a second of a clip, as photos with their times."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence

from torchfbi.errors import ImageError, TorchFBIError, needs
from torchfbi.models.images import MAX_PIXELS, Photo

CONTAINERS = "mov,matroska,avi,mpeg,mpegts,ogg,flv,asf"
"""What is read. Not playlists: they would have FFmpeg open other files and addresses."""

STILL = 0.1
"""Seconds of a GIF's frame that says none, as in browsers."""


def library() -> Any:
    """PyAV, which reads and writes videos.

    Raises:
        ModelError: it is not installed.
    """
    with needs("torchfbi[video]"):
        return importlib.import_module("av")


def frames(path: str | os.PathLike[str], rate: float) -> Iterator[tuple[float, Photo]]:
    """At most ``rate`` frames a second of a clip, upright, with their times in seconds from 0 on.

    A clip of fewer gives all of its own. They are decoded one by one.

    Args:
        path: a .gif, or any video that FFmpeg knows.
        rate: above 0.

    Raises:
        ImageError: it is missing, damaged, no video, or larger than ``MAX_PIXELS``.
        ModelError: it is no GIF, and PyAV is not installed.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ImageError(f"{path} is no file (seen from {Path.cwd()}). Pass the path of a clip.")
    last = -1
    try:
        for time, image in _gif(path) if path.suffix.lower() == ".gif" else _video(path):
            slot = int(time * rate + 1e-6)
            if slot > last:
                last = slot
                upright = image if isinstance(image, Image.Image) else _upright(image)
                yield time, Photo.read(upright, path.name)
    except TorchFBIError:
        raise
    except Exception as error:  # on damaged files decoders raise nearly anything
        what = getattr(error, "strerror", None) or error
        raise ImageError(
            f"{path} cannot be read as a video: it is none, damaged or cut short ({what}). Copy "
            "it again, or convert it to MP4."
        ) from error
    if last < 0:
        raise ImageError(f"{path} has no frame that can be read.")


def _gif(path: Path) -> Iterator[tuple[float, Image.Image]]:
    time = 0.0
    with Image.open(path, formats=["GIF"]) as image:
        for frame in ImageSequence.Iterator(image):
            yield time, frame
            time += frame.info.get("duration", 0) / 1000 or STILL


def _video(path: Path) -> Iterator[tuple[float, Any]]:
    av = library()
    # Of a file that is open already no name can mean anything else than a file.
    with path.open("rb") as file, av.open(file, options={"format_whitelist": CONTAINERS}) as clip:
        if not clip.streams.video:
            return
        stream = clip.streams.video[0]
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        start = None
        for number, frame in enumerate(clip.decode(stream)):
            time = number / (stream.average_rate or 25) if frame.time is None else frame.time
            start = time if start is None else start
            yield float(time - start), frame


def _upright(frame: Any) -> Image.Image:
    """Phones film sideways, and say so."""
    image: Image.Image = frame.to_image()
    return image.rotate(frame.rotation, expand=True)
