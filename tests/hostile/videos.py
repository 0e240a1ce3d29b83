"""Videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from hostile.case import kind
from hostile.pictures import NOISE, written
from torchfbi.errors import ImageError
from torchfbi.models.clips import frames
from torchfbi.plot.clip import save


def read(path: Path) -> list[Any]:
    return list(frames(path, 30))


video = kind("video", read, ImageError)
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"


def recorded(folder: Path, kind: str) -> Path:
    path = folder / f"a.{kind}"
    frames = [Image.fromarray(np.roll(NOISE, number)) for number in range(9)]
    save(frames, [number / 10 for number in range(9)], path, 0.1)
    return path


for name in ("mp4", "gif"):

    def cut_short(folder: Path, name: str = name) -> Path:
        data = recorded(folder, name).read_bytes()
        return written(folder / f"half.{name}", data[: len(data) // 2])

    cut_short.__name__ = f"{name}_cut_short"
    video(r"half\..* damaged or cut short")(cut_short)


@video("it is none")
def playlist_that_would_be_downloaded(folder: Path) -> Path:
    return written(folder / "a.mp4", PLAYLIST.format("http://127.0.0.1:1/a.ts").encode())


@video("it is none")
def list_of_other_files(folder: Path) -> Path:
    other = recorded(folder, "webm")
    return written(folder / "b.mp4", f"ffconcat version 1.0\nfile {other}\n".encode())


@video("it is none")
def text_called_video(folder: Path) -> Path:
    return written(folder / "a.mp4", b"These are no pixels. " * 99)


@video("bomb")
def gif_of_four_gigapixels(folder: Path) -> Path:
    data = recorded(folder, "gif").read_bytes()
    return written(folder / "b.gif", data[:6] + b"\xff" * 4 + data[10:])


@video("damaged")
def avi_of_four_gigapixels(folder: Path) -> Path:
    path = folder / "a.avi"
    with av.open(path, "w") as clip:
        stream = clip.add_stream("mjpeg", 10, width=64, height=64, pix_fmt="yuvj420p")
        clip.mux(stream.encode(av.VideoFrame.from_ndarray(NOISE)))
        clip.mux(stream.encode())
    size = b"\xff\xc0\x00\x11\x08"  # what comes before it in a JPEG
    data = path.read_bytes()
    assert size in data
    return written(path, data.replace(size + b"\0\x40\0\x40", size + b"\xff" * 4))
