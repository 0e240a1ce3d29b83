"""Videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@video("damaged")
def with_a_hole(folder: Path) -> Path:
    data = bytearray(recorded(folder, "webm").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    return written(folder / "a.webm", bytes(data))


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


@video("cannot be read as a video")
def mp4_of_ten_gigapixels(folder: Path) -> Path:
    data = recorded(folder, "mp4").read_bytes()
    return written(folder / "b.mp4", data.replace(b"\x00\x40\x00\x40", b"\xf0\x00\xf0\x00"))
